"""What a plan mails beside what the plan before it mailed: users, lists, items, categories."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import Manifest

Int64s = npt.NDArray[np.int64]
NO_CATEGORY = "(none)"


@dataclass
class PlanDiff:
    """Counts over all users, and of each item how many users get it.

    Shapes: `users_of_item` and `users_of_item_before` have one number per item of the index.
    """

    users_of_item: Int64s
    users_of_item_before: Int64s
    users: Counter[str] = field(default_factory=Counter)  # mailed, mailed_before, gained, lost, cleared, changed, same

    @property
    def changed_share(self) -> float:
        """Of those who are mailed as they were before: how many have another list."""
        both = self.users["changed"] + self.users["same"]
        return self.users["changed"] / both if both else 0.0

    def top_items(self, most: int) -> list[tuple[int, float, float]]:
        """The items that the most users get: (item, share of the mailed now, share of the mailed before)."""
        top = np.lexsort((np.arange(len(self.users_of_item)), -self.users_of_item))[:most]
        now, before = self._shares()
        return [(int(item), float(now[item]), float(before[item])) for item in top if self.users_of_item[item]]

    def greatest_rise(self) -> tuple[int, float]:
        """The item whose share of the mailed users grew most, and by how much."""
        now, before = self._shares()
        if not len(now):
            return -1, 0.0
        item = int(np.argmax(now - before))
        return item, float(now[item] - before[item])

    def category_shift(self, categories: pa.StringArray) -> tuple[float, dict[str, tuple[float, float]]]:
        """How much of all places in lists moved to another category, and each category's share (now, before).

        Shapes: categories has one name per item of the index. Half the sum of the differences: 0 to 1.
        """
        names = pc.fill_null(categories, NO_CATEGORY).dictionary_encode()
        codes = names.indices.to_numpy()
        size = len(names.dictionary)
        now, before = (
            np.bincount(codes, weights=counts, minlength=size)
            for counts in (self.users_of_item, self.users_of_item_before)
        )
        if not now.sum() or not before.sum():
            return 0.0, {}
        now, before = now / now.sum(), before / before.sum()
        shares = {
            name: (float(now[code]), float(before[code])) for code, name in enumerate(names.dictionary.to_pylist())
        }
        return float(np.abs(now - before).sum() / 2), shares

    def _shares(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return (
            self.users_of_item / max(1, self.users["mailed"]),
            self.users_of_item_before / max(1, self.users["mailed_before"]),
        )


def compare_plans(lake: Lake, plan: Manifest, before: Manifest | None, items: int) -> PlanDiff:
    """Compare two plans, one user bucket in memory at a time."""
    diff = PlanDiff(np.zeros(items, np.int64), np.zeros(items, np.int64))
    for bucket in range(lake.buckets):
        now = _mailed(lake, plan, bucket)
        diff.users["mailed"] += len(now)
        diff.users["cleared"] += (
            pc.sum(pc.equal(lake.read(plan, bucket=bucket, columns=["action"])["action"], "clear")).as_py() or 0
        )
        diff.users_of_item += np.bincount(flat(now["item"]).astype(np.int64), minlength=items)
        if before is not None:
            _add_bucket(diff, now, _mailed(lake, before, bucket), items)
    return diff


def _mailed(lake: Lake, plan: Manifest, bucket: int) -> pa.Table:
    rows = lake.read(plan, bucket=bucket, columns=["user_id", "action", "item"])
    return rows.filter(pc.equal(rows["action"], "upsert"))


def _add_bucket(diff: PlanDiff, now: pa.Table, before: pa.Table, items: int) -> None:
    diff.users["mailed_before"] += len(before)
    diff.users_of_item_before += np.bincount(flat(before["item"]).astype(np.int64), minlength=items)
    at = pc.index_in(now["user_id"].combine_chunks(), value_set=before["user_id"].combine_chunks())
    both = pc.is_valid(at)
    known = int(pc.sum(both).as_py() or 0)
    diff.users["gained"] += len(now) - known
    diff.users["lost"] += len(before) - known
    same = pc.equal(_as_text(now["item"].combine_chunks().filter(both)), _as_text(before["item"].take(at.drop_null())))
    unchanged = int(pc.sum(same).as_py() or 0)
    diff.users["same"] += unchanged
    diff.users["changed"] += known - unchanged


def _as_text(lists: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Lists as texts: what compares as a whole, order included."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    return pc.binary_join(lists.cast(pa.list_(pa.string())), ",")
