"""The correlations as the ranking takes them: whole and best first, or the nearest eligible ones above a penalty.

[C ; -M·I ; -M·G] is what a user's [R | E | T] is multiplied with: C the correlations without the columns of items that
may not be recommended, I the identity for the items that E rules out, G the groups of twins for those that T does. M is
larger than any score, so that what is ruled out has a negative one whatever speaks for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, rank_within
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
        indptr = np.concatenate(([0], np.cumsum(count)))
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
    indptr = np.concatenate(([0], np.cumsum(counts)))
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


def with_penalty(scores: sparse.csr_array, facts: ItemFacts) -> sparse.csr_array:
    """Stack scores (rows, items), less those of items that may not be recommended and times the boosts, on the penalty.

    Shapes: the answer (rows + items + groups of twins, items).
    Raises: GateError if a score times its boost is not finite.
    """
    eligible = facts.is_eligible[scores.indices]
    item = scores.indices[eligible]
    value = scores.data[eligible] * facts.boost[item]
    count = np.concatenate(([0], np.cumsum(eligible)))[scores.indptr]
    penalty = -2.0 * MOST_WEIGHT * float(np.abs(value).max(initial=1.0))
    items, groups = len(facts.twins), twin_groups(facts)
    twin = np.flatnonzero(facts.twins != NO_KIND)
    twin = twin[np.argsort(facts.twins[twin], kind="stable")]
    stacked = sparse.csr_array(
        (
            np.concatenate((value, np.full(items + len(twin), penalty, np.float32))).astype(np.float32),
            np.concatenate((item, np.arange(items), twin)).astype(np.int32),
            np.concatenate(
                (
                    count,
                    count[-1] + np.arange(1, items + 1),
                    count[-1] + items + np.cumsum(np.bincount(facts.twins[twin], minlength=groups)),
                )
            ),
        ),
        shape=(scores.shape[0] + items + groups, items),
    )
    check_finite(stacked)
    return stacked


def twin_groups(facts: ItemFacts) -> int:
    """How many groups of twins there are."""
    return int(facts.twins.max(initial=NO_KIND)) + 1
