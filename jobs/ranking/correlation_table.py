"""The correlations as the ranking takes them: whole and best first, or the nearest of those that may be recommended."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.ranking.csr_rows import row_starts
from jobs.ranking.item_facts import NO_KIND, ItemFacts
from jobs.ranking.sparse_product import check_finite

# A user's weights: at most 100 items of at most four event types of at most 100 each.
MOST_WEIGHT: Final = 100 * 4 * 100

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CorrelationTable:
    """All correlations, each item's best first, and how many of each item's reach to the nearest eligible ones.

    Shapes: matrix (items, items); near (items,). The first `near` of a row hold `neighbours` eligible items, or it is
    the whole row.
    """

    matrix: sparse.csr_array
    near: Int64s

    def rows(self, items: Int64s, *, near: bool) -> sparse.csr_array:
        """Cut out the rows of some items, whole or only their near part."""
        start = self.matrix.indptr[items].astype(np.int64)
        count = self.near[items] if near else np.diff(self.matrix.indptr)[items]
        indptr = row_starts(count)
        entry = np.repeat(start - indptr[:-1], count) + np.arange(indptr[-1])
        return sparse.csr_array(
            (self.matrix.data[entry], self.matrix.indices[entry], indptr), shape=(len(items), self.matrix.shape[1])
        )


def correlation_table(parts: Iterable[pa.Table], facts: ItemFacts, neighbours: int) -> CorrelationTable:
    """Lay out correlations that come in parts, in item order.

    Raises: GateError if a score is not finite.
    """
    items = len(facts.dropped_by)
    counts, near = np.zeros(items, np.int64), np.zeros(items, np.int64)
    others, scores = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for part in parts:
        item, count = part["item"].to_numpy(), lengths(part["other_item"])
        other, score = flat(part["other_item"]), flat(part["score"])
        counts[item] = count
        row = np.repeat(np.arange(len(item)), count)
        near[item] = _reach(row, facts.is_eligible[other], neighbours, count)
        others.append(other)
        scores.append(score)
    indptr = row_starts(counts)
    matrix = sparse.csr_array((np.concatenate(scores), np.concatenate(others), indptr), shape=(items, items))
    check_finite(matrix)
    return CorrelationTable(matrix, near)


def _reach(row: Int64s, eligible: npt.NDArray[np.bool_], neighbours: int, count: Int64s) -> Int64s:
    """Count the entries of each row up to its `neighbours`-th eligible one; all where it has fewer."""
    entry = np.flatnonzero(eligible)
    entry = entry[rank_within(row[entry]) == neighbours - 1]
    reach = count.copy()
    reach[row[entry]] = entry + 1 - (np.cumsum(count) - count)[row[entry]]
    return reach


def boosted(scores: sparse.csr_array, facts: ItemFacts) -> sparse.csr_array:
    """Give scores (rows, items) without those of items that may not be recommended, times the boosts.

    Raises: GateError if a score times its boost, summed up over a user's items, would not be finite.
    """
    eligible = facts.is_eligible[scores.indices]
    item = scores.indices[eligible]
    value = scores.data[eligible] * facts.boost[item]
    indptr = row_starts(eligible)[scores.indptr]
    made = sparse.csr_array((value.astype(np.float32), item.astype(np.int32), indptr), shape=scores.shape)
    check_finite(made * np.float32(MOST_WEIGHT))
    return made


def items_of_groups(facts: ItemFacts) -> sparse.csr_array:
    """Mark the items of each group of twins. Shapes: (groups, items)."""
    item = np.flatnonzero(facts.twins != NO_KIND)
    item = item[np.argsort(facts.twins[item], kind="stable")]
    indptr = row_starts(np.bincount(facts.twins[item], minlength=twin_groups(facts)))
    return sparse.csr_array(
        (np.ones(len(item), np.float32), item.astype(np.int32), indptr), shape=(len(indptr) - 1, len(facts.twins))
    )


def twin_groups(facts: ItemFacts) -> int:
    """How many groups of twins there are."""
    return int(facts.twins.max(initial=NO_KIND)) + 1
