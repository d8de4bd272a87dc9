"""Degree-normalised co-occurrence of items: C = D_i^-a · Rᵀ · D_u^-b · R · D_i^-c, exact, block by block."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import list_column, rank_within
from jobs.lake.scratch import Scratch
from jobs.ranking.sparse_product import top_n_product
from schemas.item_models import CooccurrenceModel
from schemas.tables import CORRELATIONS

# Pairs below the least support are dropped after the top n was taken, so more are taken at first.
_SUPPORT_MARGIN = 3
# Cells of the dense block that pairs are counted in: 64 MB.
_COUNTED_CELLS = 16_000_000


@dataclass(frozen=True)
class CooccurrenceItems:
    """The two factors whose product is C; one row of it at a time is ever there.

    Shapes: by_items (items, users) is D_i^-a · Rᵀ, by_users (users, items) is D_u^-b · R · D_i^-c.
    """

    by_items: sparse.csr_array
    by_users: sparse.csr_array
    min_support: int = 1

    @classmethod
    def fit(cls, interactions: sparse.csr_array, settings: CooccurrenceModel) -> Self:
        """Scale the interactions (users, items) from both sides."""
        r = interactions
        user = np.repeat(np.arange(r.shape[0]), np.diff(r.indptr))
        square = r.data.astype(np.float64) ** 2
        users = np.bincount(user, square, minlength=r.shape[0])
        items = np.bincount(r.indices, square, minlength=r.shape[1]) + settings.shrinkage
        by_users = _power(users, settings.user_exponent)[user] * _power(items, settings.other_exponent)[r.indices]
        by_items = _power(items, settings.item_exponent)[r.indices]
        left = sparse.csr_array(((by_items * r.data).astype(np.float32), r.indices, r.indptr), shape=r.shape)
        right = sparse.csr_array(((by_users * r.data).astype(np.float32), r.indices, r.indptr), shape=r.shape)
        return cls(left.T.tocsr(), right, settings.min_support)

    def block(self, first: int, last: int, depth: int) -> sparse.csr_array:
        """Give the best `depth` others of items first…last-1; see jobs/ranking/item_model.py."""
        rows, items = self.by_items[first:last], self.by_users.shape[1]
        asked = depth + 1
        while True:
            found = top_n_product(rows, self.by_users, asked)
            others = without_self(found, first)
            if self.min_support > 1:
                others = keep_pairs(others, self._support(first, others) >= self.min_support)
            # A full row that lost pairs to the least support may have more of them further down.
            short = (np.diff(found.indptr) == asked) & (np.diff(others.indptr) < depth)
            if asked >= items or not short.any():
                return keep_pairs(others, rank_within(row_of(others)) < depth)
            asked = min(asked * _SUPPORT_MARGIN, items)

    def _support(self, first: int, lists: sparse.csr_array) -> npt.NDArray[np.int32]:
        return pair_support(all_ones(self.by_items), all_ones(self.by_users), first, lists)

    def save(self, scratch: Scratch, name: str) -> None:
        """Write the factors under a name; the settings go with them in item_model.save."""
        scratch.save(f"{name}.by_items", self.by_items)
        scratch.save(f"{name}.by_users", self.by_users)

    @classmethod
    def load(cls, scratch: Scratch, name: str, settings: CooccurrenceModel) -> Self:
        """Map what `save` wrote."""
        return cls(scratch.load(f"{name}.by_items"), scratch.load(f"{name}.by_users"), settings.min_support)


def pair_support(
    by_items: sparse.csr_array, by_users: sparse.csr_array, first: int, lists: sparse.csr_array
) -> npt.NDArray[np.int32]:
    """Count the users that showed interest in both items of each listed pair.

    Shapes: by_items (items, users) and by_users (users, items) hold ones; row r of lists (block, items) is item
            first + r. The answer is parallel to lists.data.
    """
    items = by_users.shape[1]
    step = max(1, _COUNTED_CELLS // items)
    counts = []
    for start in range(0, lists.shape[0], step):
        part = lists[start : start + step]
        both = by_items[first + start : first + start + part.shape[0]] @ by_users
        counts.append(both.toarray()[row_of(part), part.indices].astype(np.int32))
    return np.concatenate([np.empty(0, np.int32), *counts])


def all_ones(matrix: sparse.csr_array) -> sparse.csr_array:
    """Give the same cells, each 1."""
    return sparse.csr_array((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def without_self(lists: sparse.csr_array, first: int) -> sparse.csr_array:
    """Drop each item from its own list; row r is item first + r."""
    return keep_pairs(lists, lists.indices != row_of(lists) + first)


def keep_pairs(lists: sparse.csr_array, keep: npt.NDArray[np.bool_]) -> sparse.csr_array:
    """Keep some of the listed pairs, in their order."""
    counts = np.bincount(row_of(lists)[keep], minlength=lists.shape[0])
    indptr = np.concatenate(([0], np.cumsum(counts)))
    return sparse.csr_array((lists.data[keep], lists.indices[keep], indptr), shape=lists.shape)


def row_of(lists: sparse.csr_array) -> npt.NDArray[np.int64]:
    """Name the row of each listed pair."""
    return np.repeat(np.arange(lists.shape[0]), np.diff(lists.indptr))


def _power(degree: npt.NDArray[Any], exponent: float) -> npt.NDArray[Any]:
    """degree^-exponent, and 0 for what has no interaction (nothing is ever multiplied with it)."""
    return np.where(degree > 0, np.maximum(degree, np.finfo(np.float64).tiny) ** -exponent, 0.0)


def normalised(interactions: sparse.csr_array) -> sparse.csr_array:
    """Divide each column of a 0/1 matrix by its length, so that columns' products are cosines."""
    users_per_item = np.bincount(interactions.indices, minlength=interactions.shape[1])
    length = np.sqrt(np.maximum(users_per_item, 1)).astype(np.float32)
    return sparse.csr_array(
        (1 / length[interactions.indices], interactions.indices, interactions.indptr), shape=interactions.shape
    )


def correlate_block(
    items_by_users: sparse.csr_array, users_by_items: sparse.csr_array, first: int, *, top: int, min_support: int
) -> pa.Table:
    """Find the best correlated items of a block of items.

    Grain:  one row per item of the block that has a correlated one; an item is never its own.
    Shapes: items_by_users (block, users) holds the rows `first`… of the transpose of users_by_items (users, items),
            both from `normalised`.
    Units:  support counts the users that showed interest in both.
    Source: Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001 (cosine).
    """
    found = top_n_product(items_by_users, users_by_items, top * _SUPPORT_MARGIN + 1)
    item = np.repeat(np.arange(found.shape[0]) + first, np.diff(found.indptr))
    # A normalised entry is 1/sqrt(users of the item), and cosine x sqrt(users x users) is the count itself.
    inverse_length = np.zeros(users_by_items.shape[1])
    inverse_length[users_by_items.indices] = users_by_items.data
    support = np.rint(found.data / (inverse_length[item] * inverse_length[found.indices])).astype(np.int32)
    keep = (item != found.indices) & (support >= min_support)
    row, other, score, support = item[keep], found.indices[keep], found.data[keep], support[keep]
    best = rank_within(row) < top
    row, other, score, support = row[best], other[best], score[best], support[best]
    items, counts = np.unique(row, return_counts=True)
    return pa.table(
        {
            "item": pa.array(items, pa.int32()),
            "other_item": list_column(CORRELATIONS, "other_item", other, counts),
            "score": list_column(CORRELATIONS, "score", score, counts),
            "support": list_column(CORRELATIONS, "support", support, counts),
        },
        schema=CORRELATIONS.schema,
    )
