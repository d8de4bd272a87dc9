"""Named features as a sparse matrix: which rows have which of a vocabulary of texts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from jobs.lake.distinct import distinct

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """The features of some rows.

    Shapes: names (features,), in byte order; matrix (rows, features), float32 above 0 with int32 indices.
    """

    names: pa.StringArray
    matrix: sparse.csr_array


@dataclass(frozen=True)
class Named:
    """Which row has which feature, by name: parallel columns. A name that a row has twice counts once."""

    row: Int64s
    name: pa.ChunkedArray

    @classmethod
    def of(cls, kind: str, row: Int64s, value: pa.ChunkedArray) -> "Named":
        """Name values by their kind, so that the brand `apple` is not the word `apple`; nulls are no feature."""
        there = value.is_valid()
        kept: pa.ChunkedArray = pc.binary_join_element_wise(kind, value.filter(there), "=")
        return cls(row[there.to_numpy(zero_copy_only=False)], kept)


def features_of(parts: list[Named], rows: int, *, at_least: int, at_most: int, limit: int) -> Features:
    """Lay features out that at least so many and at most so many rows share; of too many, the most common.

    A rare feature says more than a common one: each weighs log(rows / rows that have it), and each row's weights are
    scaled to a length of 1.
    Source: Sparck Jones, A statistical interpretation of term specificity, 1972 (the weight).
    """
    row = np.concatenate([part.row for part in parts])
    chunks = [chunk for part in parts for chunk in part.name.chunks]
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    names, code = encoded.dictionary.take(pa.array(order)), place[encoded.indices.to_numpy()]
    key = distinct(row * max(len(names), 1) + code)
    row, code = key // max(len(names), 1), key % max(len(names), 1)
    shared_by = np.bincount(code, minlength=len(names))
    kept = np.flatnonzero((shared_by >= at_least) & (shared_by <= at_most))
    kept = np.sort(kept[np.argsort(-shared_by[kept], kind="stable")[:limit]])
    column = np.full(len(names), -1)
    column[kept] = np.arange(len(kept))
    weight = np.log(rows / np.maximum(shared_by, 1))
    chosen = (column[code] >= 0) & (weight[code] > 0)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[chosen], minlength=rows))))
    squares = np.bincount(row[chosen], weight[code[chosen]] ** 2, minlength=rows)
    data = weight[code[chosen]] / np.sqrt(squares[row[chosen]])
    matrix = sparse.csr_array(
        (data.astype(np.float32), column[code[chosen]].astype(np.int32), indptr.astype(np.int32)),
        shape=(rows, len(kept)),
    )
    return Features(names.take(pa.array(kept)), matrix)
