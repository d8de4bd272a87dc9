"""The fallback ladder: lists by group that fill what a user's own history leaves empty.

A step has groups, each with scored items (users of the same features, one category, everybody), and says how much each
user belongs to each group. So it is the same product as the ranking itself, with groups in the place of items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from jobs.lake.list_columns import flat, lengths
from jobs.ranking.correlation_table import boosted
from jobs.ranking.item_facts import NO_KIND, ItemFacts
from jobs.ranking.sparse_product import check_finite
from jobs.ranking.user_batch import UserBatch
from schemas.ranking_rules import CATEGORY_SEPARATOR, FallbackStep

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ladder:
    """The steps that there are lists for, in the campaign's order.

    Shapes: matrices (groups, items), as `boosted` makes them. `group_of_item` gives each
    item its category's group in the step trending_in_categories, or NO_KIND.
    """

    steps: tuple[FallbackStep, ...]
    matrices: tuple[sparse.csr_array, ...]
    groups: tuple[int, ...]
    group_of_item: Int64s

    def memberships(self, step: int, batch: UserBatch, features: Int64s, rows: Int64s) -> sparse.csr_array:
        """Say how much some users of a batch belong to each group of a step.

        Shapes: features (batch,), each user's group in the step `hybrid`, or NO_KIND; the answer (rows, groups).
        """
        name, groups = self.steps[step], self.groups[step]
        if name == "trending_in_categories":
            known = np.flatnonzero(self.group_of_item != NO_KIND)
            of_item = sparse.coo_array(
                (np.ones(len(known), np.float32), (known, self.group_of_item[known])),
                shape=(len(self.group_of_item), groups),
            )
            demand: sparse.csr_array = (batch.interest[rows] @ of_item.tocsr()).tocsr()
            return demand
        group = features[rows] if name == "hybrid" else np.zeros(len(rows), np.int64)
        found = np.flatnonzero(group != NO_KIND)
        belongs = sparse.coo_array((np.ones(len(found), np.float32), (found, group[found])), shape=(len(rows), groups))
        matrix: sparse.csr_array = belongs.tocsr()
        return matrix


def ladder(steps: Sequence[FallbackStep], lists: dict[FallbackStep, pa.Table], facts: ItemFacts) -> Ladder:
    """Make the ladder of the steps that there are lists for.

    Shapes: each table has `key` (the group's name), `item` and `score`, parallel lists. Keys of trending_in_categories
            are category paths; of an item's own path and those above it, the longest that has a list is its group.
    Raises: GateError if a score is not finite.
    """
    found = tuple(step for step in steps if step in lists and len(lists[step]))
    matrices = []
    for step in found:
        table = lists[step]
        scores = sparse.csr_array(
            (
                flat(table["score"]).astype(np.float32),
                flat(table["item"]).astype(np.int32),
                np.concatenate(([0], np.cumsum(lengths(table["item"])))),
            ),
            shape=(len(table), len(facts.dropped_by)),
        )
        check_finite(scores)
        matrices.append(boosted(scores, facts))
    group_of_item = np.full(len(facts.dropped_by), NO_KIND, np.int64)
    if "trending_in_categories" in found:
        group_of_path = _longest(facts.paths, lists["trending_in_categories"]["key"])
        has_path = facts.path != NO_KIND
        group_of_item[has_path] = group_of_path[facts.path[has_path]]
    return Ladder(found, tuple(matrices), tuple(len(lists[step]) for step in found), group_of_item)


def _longest(paths: Sequence[str], keys: pa.ChunkedArray) -> Int64s:
    """Find each path's group: its own, or that of the nearest path above it that has one."""
    group = {key: number for number, key in enumerate(keys.to_pylist())}
    found = []
    for path in paths:  # distinct categories: thousands, not users
        steps = path.split(CATEGORY_SEPARATOR)
        above = (CATEGORY_SEPARATOR.join(steps[:length]) for length in range(len(steps), 0, -1))
        found.append(next((group[name] for name in above if name in group), NO_KIND))
    return np.array(found, np.int64)


def groups_by_key(keys: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Int64s:
    """Give each wanted key its row in a table's keys, or NO_KIND."""
    found: Int64s = pc.fill_null(pc.index_in(wanted, value_set=keys), NO_KIND).to_numpy().astype(np.int64)
    return found
