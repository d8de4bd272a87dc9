"""The one sparse product: row-wise top n of A · B, exact and the same every time.

`sp_matmul_topn` keeps each row's n best as it goes, so the full product is never there. Which of several equal
scores it keeps at the edge is up to its heap; here ties are settled by (score, column): rows whose edge is a tie are
done again deeper until it is not.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from schemas.errors import GateError

_COLUMN_BITS = 31
_TIE_MARGIN = 8  # extra scores asked for at first; ties longer than this cost the row a second product


Names = npt.NDArray[np.int32] | None


def top_n_product(
    a: sparse.csr_array, b: sparse.csr_array, n: int, *, threads: int = 1, names: Names = None
) -> sparse.csr_array:
    """Give each row of A · B its n largest positive scores, best first, equal ones by column.

    Shapes: a (rows, k), b (k, columns), both float32 with int32 indices; the answer (rows, columns).
            names (columns,): which column of the answer each column of b is, where they stand in another order.
    Raises: GateError if a score is not finite: one NaN would rank first for everybody.
    """
    check_finite(a, b)
    return ranked_product(a, b, n, threads=threads, names=names)


def check_finite(*matrices: sparse.csr_array) -> None:
    """Let no score or weight pass that is infinite or not a number.

    Raises: GateError if there is one.
    """
    if not all(np.isfinite(matrix.data).all() for matrix in matrices):
        raise GateError("a score or weight is not finite, so nothing was ranked; train the correlations again")


def ranked_product(
    a: sparse.csr_array, b: sparse.csr_array, n: int, *, threads: int = 1, names: Names = None
) -> sparse.csr_array:
    """Do what top_n_product does with matrices that `check_finite` has seen."""
    rows = np.arange(a.shape[0])
    depth = min(n + _TIE_MARGIN, b.shape[1])
    indptr, columns, scores = _ranked(a, b, depth, threads, names)
    while True:
        counts = np.diff(indptr)
        full = np.flatnonzero(counts == depth) if n < depth < b.shape[1] else rows[:0]
        edge = full[scores[indptr[full] + n - 1] == scores[indptr[full + 1] - 1]]
        if len(edge) == 0:
            break
        # Only these rows again, twice as deep; the others are spliced back in around them.
        depth = min(depth * 2, b.shape[1])
        indptr, columns, scores = _splice((indptr, columns, scores), edge, _ranked(a[edge], b, depth, threads, names))
    keep = np.arange(len(columns)) - np.repeat(indptr[:-1], np.diff(indptr)) < n
    kept = np.zeros(a.shape[0] + 1, np.int64)
    np.cumsum(np.minimum(np.diff(indptr), n), out=kept[1:])
    return sparse.csr_array((scores[keep], columns[keep], kept), shape=(a.shape[0], b.shape[1]))


Ranked = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def _ranked(a: sparse.csr_array, b: sparse.csr_array, depth: int, threads: int, names: Names) -> Ranked:
    # The package takes SciPy's older matrix classes only; wrapping one copies nothing.
    product = sp_matmul_topn(
        sparse.csr_matrix(a), sparse.csr_matrix(b), top_n=depth, threshold=0.0, sort=True, n_threads=threads
    )
    indptr = np.asarray(product.indptr, np.int64)
    columns, scores = product.indices if names is None else names[product.indices], product.data
    # Sorted by score already; only equal ones next to one another still have to be put into order. Their scores stay
    # where they are, so one sort of numbers (run of equal scores, column) does it; sorting rows by three keys took as
    # long as the product.
    equal = scores[1:] == scores[:-1]
    starts = indptr[1:-1]
    equal[starts[(starts > 0) & (starts < len(scores))] - 1] = False
    in_run = np.zeros(len(scores), np.bool_)
    in_run[1:] = equal
    in_run[:-1] |= equal
    run = np.cumsum(~np.concatenate(([False], equal))) if len(scores) else indptr[:0]
    key = (run[in_run] << _COLUMN_BITS) | columns[in_run]
    key.sort()
    columns[in_run] = key & (2**_COLUMN_BITS - 1)
    return indptr, columns, scores


def _splice(all_rows: Ranked, chosen: npt.NDArray[np.int64], again: Ranked) -> Ranked:
    """Replace the chosen rows by their deeper versions."""
    indptr, columns, scores = all_rows
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    stays = ~np.isin(row, chosen)
    new_row = np.repeat(chosen, np.diff(again[0]))
    merged_row = np.concatenate((row[stays], new_row))
    order = np.argsort(merged_row, kind="stable")
    counts = np.bincount(merged_row, minlength=len(indptr) - 1)
    return (
        np.concatenate(([0], np.cumsum(counts))),
        np.concatenate((columns[stays], again[1]))[order],
        np.concatenate((scores[stays], again[2]))[order],
    )


# Whole numbers up to twice this are exact in single precision.
_MARK = float(2**23)


def counts_of_pairs(a: sparse.csr_array, b: sparse.csr_array, pairs: sparse.csr_array) -> npt.NDArray[np.int32]:
    """Count, for each pair given, the terms of its entry of A · B, where A and B hold ones alone.

    The product [A | M·P] · [B ; I] has M + count where P, the pattern of the pairs, has an entry, and less than M
    elsewhere, where its threshold drops it: nothing is ever there but what was asked for.
    Shapes: a (rows, k), b as `marked` makes it (k + columns, columns), pairs (rows, columns); the answer is parallel to
            pairs.data.
    Units: counts below 2^23.
    """
    if pairs.nnz == 0:
        return np.empty(0, np.int32)
    marks = sparse.csr_array((np.full(pairs.nnz, _MARK, np.float32), pairs.indices, pairs.indptr), shape=pairs.shape)
    marked_a = sparse.hstack([a, marks], format="csr", dtype=np.float32)
    found = sp_matmul_topn(
        sparse.csr_matrix(marked_a), sparse.csr_matrix(b), top_n=int(np.diff(pairs.indptr).max()),
        threshold=_MARK - 0.5, n_threads=1,
    )  # fmt: skip
    row = np.repeat(np.arange(pairs.shape[0], dtype=np.int64), np.diff(pairs.indptr))
    key, wanted = _keys(found), row * pairs.shape[1] + pairs.indices
    order = np.argsort(key)
    place = order[np.searchsorted(key[order], wanted)]
    counts: npt.NDArray[np.int32] = (found.data[place] - _MARK).astype(np.int32)
    return counts


def marked(b: sparse.csr_array) -> sparse.csr_array:
    """Lay the ones of B out as `counts_of_pairs` takes them: B over the identity."""
    ones = sparse.csr_array((np.ones(b.nnz, np.float32), b.indices, b.indptr), shape=b.shape)
    return sparse.vstack([ones, sparse.eye_array(b.shape[1], format="csr", dtype=np.float32)], format="csr")


def by_popularity(b: sparse.csr_array) -> tuple[sparse.csr_array, npt.NDArray[np.int32]]:
    """Put the columns of B into the order of how often they come, and name them.

    The product adds up into one number a column; where the common ones stand together, these stay in the processor's
    cache (46 instead of 76 seconds of one core for 38 million entries in 198,000 columns).
    """
    names = np.argsort(-np.bincount(b.indices, minlength=b.shape[1]), kind="stable").astype(np.int32)
    place = np.empty_like(names)
    place[names] = np.arange(len(names), dtype=np.int32)
    return sparse.csr_array((b.data, place[b.indices], b.indptr), shape=b.shape), names


def _keys(matrix: sparse.csr_array) -> npt.NDArray[np.int64]:
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return row * matrix.shape[1] + matrix.indices
