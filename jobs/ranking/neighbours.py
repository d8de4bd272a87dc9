"""The best others of a block of items as rows of the correlation table: by an item model, with their exact support."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.compiled import compiled, plain
from jobs.lake.list_columns import list_column, rank_within
from jobs.ranking.cooccurrence import CooccurrenceItems
from jobs.ranking.item_model import ItemModel
from schemas.tables import CORRELATION_SOURCES, CORRELATIONS

CO_OCCURRENCE = CORRELATION_SOURCES.index("co-occurrence")
_NOT_LISTED: Final = -1
_DEEPER = 3  # how much deeper a block is asked again in which a list lost pairs to the least support


@dataclass(frozen=True)
class Together:
    """Who showed interest in what, from both sides, to count the users that two items have in common.

    Shapes: by_items (items, users) and by_users (users, items) hold the same weights, of which none is looked at here.
    """

    by_items: sparse.csr_array
    by_users: sparse.csr_array

    @classmethod
    def of(cls, interactions: sparse.csr_array) -> "Together":
        """Turn interactions (users, items) to both sides."""
        return cls(interactions.T.tocsr(), interactions)

    def support(self, first: int, lists: sparse.csr_array) -> npt.NDArray[np.int32]:
        """Count the users in common of each listed pair; row r of lists (block, items) is item first + r."""
        counts = np.zeros(lists.nnz, np.int32)
        sides = [
            (plain(side.indptr, np.int64), plain(side.indices, np.int32)) for side in (self.by_items, self.by_users)
        ]
        listed = plain(lists.indptr, np.int64), plain(lists.indices, np.int32)
        _count_users(first, *sides[0], *sides[1], *listed, np.full(lists.shape[1], _NOT_LISTED, np.int64), counts)
        return counts


@compiled
def _count_users(first, item_start, user, user_start, item, list_start, listed, place_of, counts):  # type: ignore[no-untyped-def]
    for row in range(len(list_start) - 1):
        for place in range(list_start[row], list_start[row + 1]):
            place_of[listed[place]] = place
        for holds in range(item_start[first + row], item_start[first + row + 1]):
            for entry in range(user_start[user[holds]], user_start[user[holds] + 1]):
                place = place_of[item[entry]]
                if place != _NOT_LISTED:
                    counts[place] += 1
        for place in range(list_start[row], list_start[row + 1]):
            place_of[listed[place]] = _NOT_LISTED


@dataclass(frozen=True)
class Neighbours:
    """The lists of a block of items, best first.

    Shapes: lists (block, items), float32 scores; support and source are parallel to lists.data.
    """

    lists: sparse.csr_array
    support: npt.NDArray[np.int32]
    source: npt.NDArray[np.int8]

    def keep(self, chosen: npt.NDArray[np.bool_]) -> "Neighbours":
        """Keep some of the listed pairs, in their order."""
        row = rows_of(self.lists)[chosen]
        indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=self.lists.shape[0]))))
        lists = sparse.csr_array(
            (self.lists.data[chosen], self.lists.indices[chosen], indptr), shape=self.lists.shape, dtype=np.float32
        )
        return Neighbours(lists, self.support[chosen], self.source[chosen])

    def as_table(self, first: int) -> pa.Table:
        """Lay the lists out as rows of the correlation table: items without a list have no row."""
        counts = np.diff(self.lists.indptr)
        some = np.flatnonzero(counts)
        return pa.table(
            {
                "item": pa.array(some + first, pa.int32()),
                "other_item": list_column(CORRELATIONS, "other_item", self.lists.indices, counts[some]),
                "score": list_column(CORRELATIONS, "score", self.lists.data, counts[some]),
                "support": list_column(CORRELATIONS, "support", self.support, counts[some]),
                "source": list_column(CORRELATIONS, "source", self.source, counts[some]),
            },
            schema=CORRELATIONS.schema,
        )


def co_occurring(
    model: ItemModel, together: Together, first: int, last: int, *, depth: int, min_support: int
) -> Neighbours:
    """Find the best `depth` others of items first…last-1 among those with enough users in common.

    Exact: co-occurrence counts as it multiplies; any other model is asked again, deeper, for a block in which a full
    list lost pairs to the least support.
    """
    if isinstance(model, CooccurrenceItems) and model.sharpener is None:
        best = model.best(first, last, depth, min_support=min_support)
        return Neighbours(best.lists, best.terms, np.full(best.lists.nnz, CO_OCCURRENCE, np.int8))
    items = together.by_items.shape[0]
    asked = depth
    while True:
        lists = model.block(first, last, asked)
        support = together.support(first, lists)
        enough = support >= min_support
        kept = np.bincount(rows_of(lists)[enough], minlength=last - first)
        short = (np.diff(lists.indptr) == asked) & (kept < depth)
        if asked >= items or not short.any():
            break
        asked = min(asked * _DEEPER, items)
    found = Neighbours(lists, support, np.full(len(support), CO_OCCURRENCE, np.int8)).keep(enough)
    return found.keep(rank_within(rows_of(found.lists)) < depth)


def rows_of(lists: sparse.csr_array) -> npt.NDArray[np.int64]:
    """Name the row of each listed pair."""
    return np.repeat(np.arange(lists.shape[0]), np.diff(lists.indptr))
