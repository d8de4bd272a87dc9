"""Degree-normalised co-occurrence of items: C = D_i^-a · Rᵀ · D_u^-b · R · D_i^-c, exact, block by block."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.compiled import compiled, plain
from jobs.lake.list_columns import rank_within
from jobs.lake.scratch import Scratch
from jobs.ranking.sparse_product import TopProducts, by_popularity, top_n_product, top_products
from schemas.item_models import CooccurrenceModel

# Others that an item is sharpened by, and how they are weighed: the symmetric filter, of largest eigenvalue 1.
SHARPENED_BY = 100
_SYMMETRIC = CooccurrenceModel(item_exponent=0.5, user_exponent=1.0, other_exponent=0.5)
_FIT_ITEMS = 4_000  # items whose lists are made together while fitting
# Popular items that every item recommends beside its own: more than one list is long, with what its reader has.
POPULAR_ITEMS = 500


@dataclass(frozen=True)
class CooccurrenceItems:
    """The two factors whose product is C; one row of it at a time is ever there.

    Popularity is one more user, who has every popular item and shows interest in each item as far as its row goes.
    Shapes: by_items (items, users [+ 1]) is D_i^-a · Rᵀ, by_users (users [+ 1], items) is D_u^-b · R · D_i^-c; column j
            of by_users is item names[j], the most popular first (see by_popularity);
            sharpener (items, items), where there is one, is 1 - sharpening · S.
    `users`: how many of them there are without popularity.
    """

    by_items: sparse.csr_array
    by_users: sparse.csr_array
    names: npt.NDArray[np.int32]
    users: int
    sharpener: sparse.csr_array | None = None
    sharpened: int = 0

    @classmethod
    def fit(
        cls,
        interactions: sparse.csr_array,
        settings: CooccurrenceModel,
        *,
        by_items: sparse.csr_array | None = None,
        threads: int = 1,
    ) -> Self:
        """Scale the interactions (users, items) from both sides; see item_model.fit."""
        r, turned = interactions, interactions.T.tocsr() if by_items is None else by_items
        users, items = squared_lengths(r)
        items = items + settings.shrinkage
        left = scaled(turned, _power(items, settings.item_exponent), np.ones(r.shape[0]))
        right = scaled(r, _power(users, settings.user_exponent), _power(items, settings.other_exponent))
        if settings.popularity > 0:
            row_sums = left @ right.sum(axis=1)
            extra = sparse.csr_array((settings.popularity * row_sums).astype(np.float32)[:, None])
            left = sparse.hstack([left, extra], format="csr", dtype=np.float32)
            right = sparse.vstack([right, sparse.csr_array(popular_items(r)[None, :])], format="csr", dtype=np.float32)
        sharpener = _sharpener(r, settings.sharpening, threads) if settings.sharpening > 0 else None
        return cls(left, *by_popularity(right), r.shape[0], sharpener, settings.sharpened)

    def block(self, first: int, last: int, depth: int, *, signed: bool = False, threads: int = 1) -> sparse.csr_array:
        """Give the best `depth` others of items first…last-1; see jobs/ranking/item_model.py."""
        asked = depth if self.sharpener is None else self.sharpened
        lists = self.best(first, last, asked, threads=threads).lists
        if self.sharpener is None:
            return lists
        return _others(top_n_product(lists, self.sharpener, depth + 1, threads=threads), first, depth)

    def best(self, first: int, last: int, depth: int, *, min_support: int = 0, threads: int = 1) -> TopProducts:
        """Give the best `depth` others, not sharpened, and how many users each has in common with its item.

        Those with fewer users in common than `min_support` are left out.
        """
        return top_products(
            self.by_items[first:last], self.by_users, depth, threads=threads, names=self.names, counted=self.users,
            least_terms=min_support, own=first,
        )  # fmt: skip

    def dense(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Give whole rows of C, each 0 for the item itself."""
        rows: npt.NDArray[np.float32] = np.empty((last - first, len(self.names)), np.float32)
        rows[:, self.names] = (self.by_items[first:last] @ self.by_users).toarray()
        own = np.arange(len(rows))
        rows[own, first + own] = 0
        if self.sharpener is not None:
            rows = np.maximum(rows @ self.sharpener, 0)
            rows[own, first + own] = 0
        return rows

    def save(self, scratch: Scratch, name: str) -> None:
        """Write the factors under a name; the settings go with them in item_model.save."""
        scratch.save(f"{name}.by_items", self.by_items)
        scratch.save(f"{name}.by_users", self.by_users)
        scratch.save_array(f"{name}.names", self.names)
        if self.sharpener is not None:
            scratch.save(f"{name}.sharpener", self.sharpener)

    @classmethod
    def load(cls, scratch: Scratch, name: str, settings: CooccurrenceModel) -> Self:
        """Map what `save` wrote."""
        names = scratch.load_array(f"{name}.names")
        sharpener = scratch.load(f"{name}.sharpener") if settings.sharpening > 0 else None
        by_items, by_users = scratch.load(f"{name}.by_items"), scratch.load(f"{name}.by_users")
        users = by_users.shape[0] - (settings.popularity > 0)
        return cls(by_items, by_users, names, users, sharpener, settings.sharpened)


def _others(found: sparse.csr_array, first: int, depth: int) -> sparse.csr_array:
    """Drop each item from its own list, and what is then beyond the depth; row r is item first + r."""
    others = keep_pairs(found, found.indices != row_of(found) + first)
    return keep_pairs(others, rank_within(row_of(others)) < depth)


def _sharpener(interactions: sparse.csr_array, sharpening: float, threads: int) -> sparse.csr_array:
    """Lay out 1 - sharpening · S."""
    items = interactions.shape[1]
    symmetric = CooccurrenceItems.fit(interactions, _SYMMETRIC)
    blocks = [
        symmetric.block(first, min(first + _FIT_ITEMS, items), SHARPENED_BY, threads=threads)
        for first in range(0, items, _FIT_ITEMS)
    ]
    similar = sparse.vstack(blocks, format="csr", dtype=np.float32)
    laid_out = sparse.eye_array(items, format="csr", dtype=np.float32) - np.float32(sharpening) * similar
    parts = (laid_out.data, laid_out.indices.astype(np.int32), laid_out.indptr.astype(np.int32))
    return sparse.csr_array(parts, shape=laid_out.shape)


def scaled(
    matrix: sparse.csr_array, by_row: npt.NDArray[np.float64], by_column: npt.NDArray[np.float64]
) -> sparse.csr_array:
    """Multiply each entry by a number of its row, then by one of its column, in double precision.

    Shapes: matrix (rows, columns), by_row (rows,), by_column (columns,); the answer is float32.
    """
    data = np.empty(matrix.nnz, np.float32)
    _scale(
        plain(matrix.indptr, np.int64), plain(matrix.indices, np.int32), plain(matrix.data, np.float32),
        plain(by_row, np.float64), plain(by_column, np.float64), data,
    )  # fmt: skip
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@compiled
def _scale(start, column, value, by_row, by_column, scaled_value):  # type: ignore[no-untyped-def]
    for row in range(len(start) - 1):
        for entry in range(start[row], start[row + 1]):
            scaled_value[entry] = np.float64(value[entry]) * by_row[row] * by_column[column[entry]]


def squared_lengths(matrix: sparse.csr_array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the squared lengths of the rows and of the columns."""
    square = matrix.data.astype(np.float64) ** 2
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (
        np.bincount(row, square, minlength=matrix.shape[0]).astype(np.float64),
        np.bincount(matrix.indices, square, minlength=matrix.shape[1]).astype(np.float64),
    )


def popular_items(interactions: sparse.csr_array) -> npt.NDArray[np.float32]:
    """Give each item its share of all interactions, and 0 where it is not among the most popular (ties by item)."""
    _, items = squared_lengths(interactions)
    share = items / max(items.sum(), np.finfo(np.float64).tiny)
    share[np.argsort(-share, kind="stable")[POPULAR_ITEMS:]] = 0
    found: npt.NDArray[np.float32] = share.astype(np.float32)
    return found


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
    found = np.zeros(len(degree))
    np.power(degree, -exponent, out=found, where=degree > 0)
    return found
