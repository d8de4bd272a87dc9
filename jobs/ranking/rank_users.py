"""Rank items for users as serving does, with an item model's lists: one sparse product, what a user has left out."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.lake.list_columns import rank_within
from jobs.ranking.cooccurrence import keep_pairs, row_of
from jobs.ranking.item_model import ItemModel
from jobs.ranking.sparse_product import top_n_product

# Larger than any score: weights are at most 100, and there are at most 1,000 of them.
_PENALTY = 1e9
_BLOCK_ITEMS = 4_000


def lists_of(model: ItemModel, items: int, depth: int, *, signed: bool = True, threads: int = 1) -> sparse.csr_array:
    """Give the lists of all items.

    Shapes: (items, items), float32, at most `depth` in a row.
    """
    blocks = [
        model.block(first, min(first + _BLOCK_ITEMS, items), depth, signed=signed, threads=threads)
        for first in range(0, items, _BLOCK_ITEMS)
    ]
    return _int32(sparse.vstack(blocks, format="csr", dtype=np.float32))


def nearest(lists: sparse.csr_array, n: int) -> sparse.csr_array:
    """Cut lists (items, items), each best first, to the first n scores above 0."""
    positive = keep_pairs(lists, lists.data > 0)
    return keep_pairs(positive, rank_within(row_of(positive)) < n)


def rank_users(history: sparse.csr_array, lists: sparse.csr_array, n: int, *, threads: int = 1) -> sparse.csr_array:
    """Give each user the n best items that they do not have.

    Shapes: history (users, items), weights above 0; lists (items, items); the answer (users, items), best first.
    """
    items = lists.shape[1]
    # One scale for all, so that the penalty outweighs every score.
    scale = np.float32(1 / max(float(np.abs(lists.data).max(initial=0)), 1e-30))
    scaled = sparse.csr_array((lists.data * scale, lists.indices, lists.indptr), shape=lists.shape)
    penalty = sparse.diags_array(np.full(items, -_PENALTY, np.float32), format="csr")
    left = _int32(sparse.hstack([history, _ones(history)], format="csr", dtype=np.float32))
    return top_n_product(
        left, _int32(sparse.vstack([scaled, penalty], format="csr", dtype=np.float32)), n, threads=threads
    )


def fill_up(
    ranked: sparse.csr_array,
    history: sparse.csr_array,
    popularity: npt.NDArray[np.float64],
    n: int,
    *,
    threads: int = 1,
) -> sparse.csr_array:
    """Fill short lists with the most popular items that the user neither has nor is listed already.

    Shapes: popularity (items,): larger is better, 0 is never listed. Scores of the answer are 1 / (1 + place).
    """
    short = np.flatnonzero(np.diff(ranked.indptr) < n)
    mine, has = ranked[short], history[short]
    known = (_ones(mine) + _ones(has)).tocsr()
    most = n + int(np.diff(known.indptr).max(initial=0))
    best = np.argsort(-popularity, kind="stable")[:most]
    best = best[popularity[best] > 0]
    # By place, so that equal ones stay in the order of `best`, and far above 0 in single precision.
    column = sparse.csr_array(
        (np.arange(len(best), 0, -1).astype(np.float32), (np.zeros(len(best), np.int32), best.astype(np.int32))),
        shape=(1, len(popularity)),
    )
    everybody = sparse.csr_array(np.ones((len(short), 1), np.float32))
    penalty = sparse.diags_array(np.full(len(popularity), -_PENALTY, np.float32), format="csr")
    more = top_n_product(
        _int32(sparse.hstack([everybody, known], format="csr", dtype=np.float32)),
        _int32(sparse.vstack([column, penalty], format="csr", dtype=np.float32)), n, threads=threads,
    )  # fmt: skip
    row = np.concatenate((_rows(ranked), short[_rows(more)]))
    place = np.concatenate((_places(ranked), np.diff(mine.indptr)[_rows(more)] + _places(more)))
    item = np.concatenate((ranked.indices, more.indices))
    order = np.lexsort((place, row))
    order = order[place[order] < n]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[order], minlength=ranked.shape[0]))))
    score = (1 / (1 + place[order])).astype(np.float32)
    return sparse.csr_array((score, item[order].astype(np.int32), indptr), shape=ranked.shape)


def _rows(lists: sparse.csr_array) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(lists.shape[0]), np.diff(lists.indptr))


def _places(lists: sparse.csr_array) -> npt.NDArray[np.int64]:
    return np.arange(lists.nnz) - lists.indptr[_rows(lists)]


def _ones(matrix: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def _int32(matrix: sparse.csr_array) -> sparse.csr_array:
    if matrix.nnz >= 2**31:
        return matrix
    parts = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_array(parts, shape=matrix.shape)
