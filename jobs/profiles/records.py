"""Profile records in columns, merged and put into order user by user.

The loops are compiled (jobs/compiled.py): the records of a user, some twenty, are sorted by insertion, where NumPy
would sort those of all users together, by up to four keys.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.compiled import compiled, plain
from schemas.tables import EVENT_TYPES

VIEW: Final = EVENT_TYPES.index("view")
# The types of which every instant is kept.
COUNTED: Final = np.isin(EVENT_TYPES, ("purchase", "refund"))
_TYPE_BITS: Final = 3
# Insertion takes the square of the records in steps: of more than this a user's are sorted by merging.
_FEW: Final = 128

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Profile records in columns; `user` is a position in a list of user ids, instants are microseconds."""

    user: Int64s
    item: Int64s
    event_type: Int64s
    last_at: Int64s
    count: Int64s

    def take(self, rows: npt.NDArray[np.intp]) -> "Records":
        """Pick rows, in the order given."""
        return Records(self.user[rows], self.item[rows], self.event_type[rows], self.last_at[rows], self.count[rows])


def merge(records: Records) -> Records:
    """Keep one record per user, item, type and, of those that are counted, instant; sorted by that key.

    Of the others the last instant stays. The counts of one instant are added up.
    """
    if len(records.user) == 0:
        return records
    if (records.user[1:] < records.user[:-1]).any():
        records = records.take(np.argsort(records.user, kind="stable"))
    what = (records.item << _TYPE_BITS) | records.event_type
    count = records.count.copy()
    kept = np.empty(len(count), np.int64)
    merged = _merge(
        starts_of(records.user), plain(what, np.int64), plain(records.last_at, np.int64), count,
        COUNTED[records.event_type], kept,
    )  # fmt: skip
    rows = kept[:merged]
    return Records(records.user[rows], records.item[rows], records.event_type[rows], records.last_at[rows], count[rows])


def newest_first(records: Records, *, cap: int, state_cap: int) -> Records:
    """Order each user's records from the newest, and drop the oldest beyond the caps.

    Takes what `merge` gives: of one instant the records stay in the order of item and type.
    `cap` bounds views, `state_cap` everything else (a purchase must be remembered for longer than a look). Dropping
    is safe while folding: a record among the newest of all days is among the newest of every prefix of them.
    """
    kept = np.empty(len(records.user), np.int64)
    size = _newest_first(
        starts_of(records.user), plain(records.last_at, np.int64), records.event_type == VIEW, cap, state_cap, kept
    )
    return records.take(kept[:size])


def starts_of(user: Int64s) -> Int64s:
    """Say where each user's records start, and the last one's end; they are in the order of users."""
    return np.concatenate((np.flatnonzero(np.diff(user, prepend=-1)), [len(user)])).astype(np.int64)


@compiled
def _merge(start, what, at, count, is_counted, kept):  # type: ignore[no-untyped-def]
    """Name the records that stay, and add counts up in theirs; return how many stay."""
    merged = 0
    order = np.empty(_FEW, np.int64)
    for user in range(len(start) - 1):
        first, size = start[user], start[user + 1] - start[user]
        if size > _FEW:
            # By instant, then, stable, by what it is.
            order = np.argsort(at[first : first + size], kind="mergesort")
            order = order[np.argsort(what[first : first + size][order], kind="mergesort")]
        else:
            for place in range(size):
                to, one = place, first + place
                while to > 0:
                    other = first + order[to - 1]
                    if what[other] < what[one] or (what[other] == what[one] and at[other] <= at[one]):
                        break
                    order[to] = order[to - 1]
                    to -= 1
                order[to] = place
        for place in range(size):
            one = first + order[place]
            if place > 0:
                other = kept[merged - 1]
                if what[other] == what[one] and at[other] == at[one]:
                    count[other] += count[one]
                    continue
                if what[other] == what[one] and not is_counted[one]:
                    kept[merged - 1] = one
                    continue
            kept[merged] = one
            merged += 1
    return merged


@compiled
def _newest_first(start, at, is_view, view_cap, state_cap, kept):  # type: ignore[no-untyped-def]
    """Name the records that stay, user by user and the newest first; return how many stay."""
    size = 0
    order = np.empty(_FEW, np.int64)
    for user in range(len(start) - 1):
        first, records = start[user], start[user + 1] - start[user]
        if records > _FEW:
            order = np.argsort(-at[first : first + records], kind="mergesort")
        else:
            for place in range(records):
                to = place
                while to > 0 and at[first + order[to - 1]] < at[first + place]:
                    order[to] = order[to - 1]
                    to -= 1
                order[to] = place
        views = states = 0
        for place in range(records):
            one = first + order[place]
            if is_view[one]:
                views += 1
                stays = views <= view_cap
            else:
                states += 1
                stays = states <= state_cap
            if stays:
                kept[size] = one
                size += 1
    return size
