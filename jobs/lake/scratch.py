"""Arrays that the tasks of one Spark job share by memory map: written once, never pickled or broadcast.

The folder must be one that every worker sees; with `local[*]`, and with executors on one machine, any folder is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse


@dataclass(frozen=True)
class Scratch:
    """A folder of `.npy` files that lives as long as its job."""

    folder: Path

    def save(self, name: str, matrix: sparse.csr_array) -> None:
        """Write a CSR matrix under a name."""
        for part in ("data", "indices", "indptr"):
            np.save(self.folder / f"{name}.{part}.npy", getattr(matrix, part))
        np.save(self.folder / f"{name}.shape.npy", np.array(matrix.shape))

    def load(self, name: str) -> sparse.csr_array:
        """Map a CSR matrix; its pages are shared by every process that maps it.

        Mapped copy-on-write: compiled loops are made for arrays that can be written to, though these write to none.
        """
        data, indices, indptr = (
            np.load(self.folder / f"{name}.{part}.npy", mmap_mode="c") for part in ("data", "indices", "indptr")
        )
        rows, columns = np.load(self.folder / f"{name}.shape.npy")
        return sparse.csr_array((data, indices, indptr), shape=(int(rows), int(columns)), copy=False)

    def save_array(self, name: str, array: npt.NDArray[Any]) -> None:
        """Write a dense array under a name."""
        np.save(self.folder / f"{name}.npy", array)

    def load_array(self, name: str) -> npt.NDArray[Any]:
        """Map a dense array; its pages are shared by every process that maps it."""
        mapped: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="c")
        return mapped
