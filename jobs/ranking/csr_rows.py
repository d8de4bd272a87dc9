"""Sparse matrices put together row by row; SciPy's own ways go through coordinates and take several times as long."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.compiled import compiled, plain

Int64s = npt.NDArray[np.int64]


def stacked(
    parts: Sequence[tuple[Int64s, npt.NDArray[Any], npt.NDArray[np.float32]]], rows: int, columns: int
) -> sparse.csr_array:
    """Put entries (row, column, value) of several parts into one matrix; within a row they keep their order."""
    row, column, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    indptr = np.zeros(rows + 1, np.int32)
    np.cumsum(np.bincount(row, minlength=rows), out=indptr[1:])
    indices, data = np.empty(len(row), np.int32), np.empty(len(row), np.float32)
    _put(indptr[:-1].copy(), plain(row, np.int64), plain(column, np.int64), plain(value, np.float32), indices, data)
    return sparse.csr_array((data, indices, indptr), shape=(rows, columns))


@compiled
def _put(free, row, column, value, indices, data):  # type: ignore[no-untyped-def]
    """Put each entry into its row's next free place."""
    for entry in range(len(row)):
        place = free[row[entry]]
        free[row[entry]] = place + 1
        indices[place], data[place] = column[entry], value[entry]


def row_starts(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Say where each row starts, and where the last one ends, in 32 bits wherever they suffice.

    SciPy's arrays widen the columns to what the starts have: of 64 bits they take twice the memory, and each compiled
    loop that is given them has them copied.
    """
    starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    return starts.astype(sparse.get_index_dtype(maxval=int(starts[-1])))


def row_of(matrix: sparse.csr_array) -> Int64s:
    """Name the row of every entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def ones_like(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    """Mark the entries of a matrix in one with more columns."""
    return sparse.csr_array(
        (np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns)
    )


def nothing_in(rows: int, columns: int) -> sparse.csr_array:
    """Make a matrix without entries."""
    indptr = np.zeros(rows + 1, np.int32)
    return sparse.csr_array((np.empty(0, np.float32), np.empty(0, np.int32), indptr), shape=(rows, columns))
