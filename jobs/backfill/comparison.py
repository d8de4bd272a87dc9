"""What rebuilt recommendations change for users and items, counted bucket by bucket."""

from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.list_columns import flat, lengths

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class UserChanges:
    """Users by what becomes of their list: gained one, lost it, got another, kept the same (order counts)."""

    gained: int = 0
    lost: int = 0
    changed: int = 0
    same: int = 0

    def __add__(self, other: "UserChanges") -> "UserChanges":
        return UserChanges(*(mine + theirs for mine, theirs in zip(self._counts(), other._counts(), strict=True)))

    def _counts(self) -> tuple[int, ...]:
        return self.gained, self.lost, self.changed, self.same

    @property
    def before(self) -> int:
        """Users that had a list."""
        return self.lost + self.changed + self.same


def compare_users(before: pa.Table, after: pa.Table) -> UserChanges:
    """Compare the lists of one bucket's users; a user of one side alone had, or has, none on the other."""
    ids = pa.concat_tables([before.select(["user_id"]), after.select(["user_id"])])["user_id"].combine_chunks().unique()
    counts_before, starts_before = _lists_of(ids, before)
    counts_after, starts_after = _lists_of(ids, after)
    both = (counts_before > 0) & (counts_after > 0)
    # Only lists of one length can be the same; their elements are compared in one go.
    alike = np.flatnonzero(both & (counts_before == counts_after))
    length = counts_before[alike]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    differs = (
        flat(before["item"])[np.repeat(starts_before[alike], length) + within]
        != flat(after["item"])[np.repeat(starts_after[alike], length) + within]
    )
    row = np.repeat(np.arange(len(alike)), length)
    same = int((np.bincount(row, weights=differs, minlength=len(alike)) == 0).sum())
    return UserChanges(
        gained=int(((counts_before == 0) & (counts_after > 0)).sum()),
        lost=int(((counts_before > 0) & (counts_after == 0)).sum()),
        changed=int(both.sum()) - same,
        same=same,
    )


def _lists_of(ids: pa.StringArray, table: pa.Table) -> tuple[Int64s, Int64s]:
    """Where each user's list starts in the flat column and how long it is (0 for users that are not there)."""
    row = pc.fill_null(pc.index_in(ids, value_set=table["user_id"].combine_chunks()), -1).to_numpy()
    length = lengths(table["item"])
    start = np.cumsum(length) - length
    return np.append(length, 0)[row], np.append(start, 0)[row]


@dataclass(frozen=True)
class DateComparison:
    """One date before and after."""

    date: str
    users: UserChanges
    items_entered: int
    items_left: int
    coverage_before: float
    coverage_after: float

    def as_json(self) -> dict[str, object]:
        """Lay it out flat."""
        body = asdict(self)
        users = body.pop("users")
        return {**body, **{f"users_{name}": count for name, count in users.items()}}


@dataclass
class Shown:
    """Which items are in anybody's list, before and after."""

    items: int
    before: Bools = field(init=False)
    after: Bools = field(init=False)

    def __post_init__(self) -> None:
        """Start from none."""
        self.before, self.after = np.zeros(self.items, np.bool_), np.zeros(self.items, np.bool_)

    def add(self, before: pa.Table, after: pa.Table) -> None:
        """Mark the items of one bucket's lists."""
        self.before[flat(before["item"])] = True
        self.after[flat(after["item"])] = True

    def compared(self, date: str, users: UserChanges, eligible_before: int, eligible_after: int) -> DateComparison:
        """Sum the date up; coverage is the share of the eligible items that somebody gets."""
        return DateComparison(
            date=date,
            users=users,
            items_entered=int((self.after & ~self.before).sum()),
            items_left=int((self.before & ~self.after).sum()),
            coverage_before=round(int(self.before.sum()) / max(eligible_before, 1), 6),
            coverage_after=round(int(self.after.sum()) / max(eligible_after, 1), 6),
        )
