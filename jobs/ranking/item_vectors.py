"""Item vectors as whole numbers, and their nearest others: exact, and the same whatever the blocks or the machine.

A vector is scaled to a length of 4,000 and rounded. By Cauchy and Schwarz no partial sum of a product of two is above
4,016 squared, which is below 2^24, so single precision adds it up without rounding: order, blocks, threads and the
BLAS make no difference. A component is off by 1 in 8,000 at most, which moves a cosine by less than 0.002.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.lake.list_columns import rank_within
from jobs.lake.scratch import Scratch
from schemas.errors import GateError

LENGTH: Final = 4_000
LENGTH_SLACK: Final = 16  # rounding 256 components by up to a half moves the length by at most 8
_BLOCK_SCORES: Final = 8_000_000  # scores of one product: 32 MB

Vectors = npt.NDArray[np.int16]


def whole_vectors(vectors: npt.NDArray[Any]) -> Vectors:
    """Scale each vector to LENGTH and round; one without length stays 0, which is near nothing.

    Raises: GateError if a number is not finite.
    """
    if not np.isfinite(vectors).all():
        raise GateError(
            "an item vector has a number that is not finite, so none was used; train the hybrid model again"
        )
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.rint(vectors / np.where(length > 0, length, 1) * LENGTH).astype(np.int16)


def check_vectors(vectors: Vectors) -> None:
    """See that every vector has the length that it was rounded to, or none.

    Raises: GateError saying how many have not.
    """
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    wrong = int(((length > 0) & (np.abs(length - LENGTH) > LENGTH_SLACK)).sum())
    if wrong:
        raise GateError(
            f"{wrong:,} of {len(vectors):,} item vectors are not {LENGTH:,} long (± {LENGTH_SLACK}), as all are made; "
            "none was used. Run train_hybrid again"
        )


@dataclass(frozen=True)
class VectorItems:
    """An item model (jobs/ranking/item_model.py) that ranks others by the cosine of their vectors.

    Shapes: vectors (items, components), as whole_vectors makes them; a row of zeros is an item without a vector.
    """

    vectors: Vectors

    def block(self, first: int, last: int, depth: int) -> sparse.csr_array:
        """Give the best `depth` others of items first…last-1 with a cosine above 0, best first, ties by item.

        Shapes: (last - first, items), float32.
        """
        return nearest(self.vectors[first:last], self.vectors, depth, never=np.arange(first, last))

    def save(self, scratch: Scratch, name: str) -> None:
        """Write the vectors for the tasks of a job."""
        np.save(scratch.folder / f"{name}.vectors.npy", self.vectors)

    @classmethod
    def load(cls, scratch: Scratch, name: str) -> Self:
        """Map what `save` wrote."""
        return cls(np.load(scratch.folder / f"{name}.vectors.npy", mmap_mode="r"))


def nearest(
    queries: Vectors, vectors: Vectors, depth: int, *, never: npt.NDArray[np.int64] | None = None
) -> sparse.csr_array:
    """Find the `depth` vectors with the largest positive cosine to each query, best first, ties by position.

    Shapes: queries (rows, components), vectors (items, components); `never` (rows,) is the item that each row is not
            compared with. The answer (rows, items), float32 cosines.
    """
    items = len(vectors)
    columns = vectors.astype(np.float32).T
    rows_at_once = max(1, _BLOCK_SCORES // max(items, 1))
    counts, others, scores = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for start in range(0, len(queries), rows_at_once):
        products = queries[start : start + rows_at_once].astype(np.float32) @ columns
        if never is not None:
            products[np.arange(len(products)), never[start : start + len(products)]] = 0
        count, other, score = _best(products, depth)
        counts.append(count)
        others.append(other)
        scores.append(score / np.float32(LENGTH * LENGTH))
    indptr = np.cumsum(np.concatenate(counts))
    return sparse.csr_array((np.concatenate(scores), np.concatenate(others), indptr), shape=(len(queries), items))


def _best(
    products: npt.NDArray[np.float32], depth: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Pick each row's largest positive products; every one that ties with the last is looked at."""
    rows, items = products.shape
    edge = np.zeros((rows, 1), np.float32)
    if depth < items:
        edge = np.partition(products, items - depth, axis=1)[:, items - depth, None]
    row, other = np.nonzero((products >= edge) & (products > 0))
    score = products[row, other]
    order = np.lexsort((other, -score, row))
    row, other, score = row[order], other[order], score[order]
    kept = rank_within(row) < depth
    return np.bincount(row[kept], minlength=rows), other[kept].astype(np.int32), score[kept]
