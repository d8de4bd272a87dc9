"""The best others of a block of items as rows of the correlation table: by an item model, with their exact support."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import list_column, rank_within
from jobs.lake.scratch import Scratch
from jobs.ranking.item_model import ItemModel
from jobs.ranking.sparse_product import by_popularity, counts_of_pairs, marked
from schemas.tables import CORRELATION_SOURCES, CORRELATIONS

CO_OCCURRENCE = CORRELATION_SOURCES.index("co-occurrence")
_DEEPER = 3  # how much deeper a block is asked again in which a list lost pairs to the least support


@dataclass(frozen=True)
class Together:
    """Who showed interest in what, as ones, laid out to count the users that two items have in common.

    Shapes: by_items (items, users), by_users (users + items, items), whose column place[j] is item j (see
            by_popularity).
    """

    by_items: sparse.csr_array
    by_users: sparse.csr_array
    place: npt.NDArray[np.int32]

    @classmethod
    def of(cls, interactions: sparse.csr_array) -> "Together":
        """Forget the weights of interactions (users, items)."""
        pattern = sparse.csr_array(
            (np.ones(interactions.nnz, np.float32), interactions.indices, interactions.indptr), shape=interactions.shape
        )
        ordered, names = by_popularity(pattern)
        return cls(pattern.T.tocsr(), marked(ordered), np.argsort(names).astype(np.int32))

    def support(self, first: int, lists: sparse.csr_array) -> npt.NDArray[np.int32]:
        """Count the users in common of each listed pair; row r of lists (block, items) is item first + r."""
        pairs = sparse.csr_array((lists.data, self.place[lists.indices], lists.indptr), shape=lists.shape)
        return counts_of_pairs(self.by_items[first : first + lists.shape[0]], self.by_users, pairs)

    def save(self, scratch: Scratch, name: str) -> None:
        """Write both matrices under a name."""
        scratch.save(f"{name}.by_items", self.by_items)
        scratch.save(f"{name}.by_users", self.by_users)
        scratch.save_array(f"{name}.place", self.place)

    @classmethod
    def load(cls, scratch: Scratch, name: str) -> "Together":
        """Map what `save` wrote."""
        by_items, by_users = scratch.load(f"{name}.by_items"), scratch.load(f"{name}.by_users")
        return cls(by_items, by_users, scratch.load_array(f"{name}.place"))


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

    Exact: a block in which a full list lost pairs to the least support is asked again, deeper.
    """
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
