"""What a user was mailed: per item the last date, and on which of the 62 days before it the item was mailed too.

Dates are those of the lists that were mailed. The days before are the bits of one number, bit k for k days before the
last date, so that "mailed twice within a week" can be told exactly, and what is folded twice changes nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.compiled import compiled, plain
from jobs.lake.list_columns import flat, lengths, list_column
from jobs.profiles.records import starts_of
from schemas.ranking_rules import MAILED_WINDOW_DAYS
from schemas.tables import PROFILES

# Receipts of a date exist only after its send; a fold takes in those of so many dates before its own.
LATE_DAYS: Final = 14
_WINDOW: Final = 2 ** (MAILED_WINDOW_DAYS + 1) - 1  # a bit for each day of the window

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mails:
    """Mailed items in columns; `user` is a position in a list of user ids, `last_on` counts days from 1970."""

    user: Int64s
    item: Int64s
    last_on: Int64s
    days: Int64s

    def take(self, rows: npt.NDArray[np.intp]) -> "Mails":
        """Pick rows, in the order given."""
        return Mails(self.user[rows], self.item[rows], self.last_on[rows], self.days[rows])

    def times_within(self, day: int, days: int) -> Int64s:
        """Count the dates from `days` before a day up to it on which each item was mailed."""
        # Of the bits from 0 on, those that lie no further back than the oldest day that counts.
        reach = np.minimum(self.last_on - (day - days), MAILED_WINDOW_DAYS)
        mask = np.where(reach < 0, 0, np.left_shift(np.int64(2), np.maximum(reach, 0)) - 1)
        times: Int64s = np.bitwise_count(self.days & mask).astype(np.int64)
        return times

    def columns(self, counts: Int64s) -> dict[str, pa.Array]:
        """Cut the rows into the lists of the profile table."""
        values: dict[str, npt.NDArray[Any]] = {
            "mailed_item": self.item,
            "mailed_last_on": self.last_on.astype(np.int32),
            "mailed_days": self.days,
        }
        return {name: list_column(PROFILES, name, column, counts) for name, column in values.items()}


def mails_of_profiles(profiles: pa.Table, user: Int64s) -> Mails:
    """Flatten profile rows; `user` gives each row its position."""
    return Mails(
        user=np.repeat(user, lengths(profiles["mailed_item"])),
        item=flat(profiles["mailed_item"]).astype(np.int64),
        last_on=flat(profiles["mailed_last_on"]).astype(np.int64),
        days=flat(profiles["mailed_days"]),
    )


def mails_of_lists(lists: pa.ChunkedArray, user: Int64s, day: int) -> Mails:
    """Turn the lists that were mailed on one date into mails; `user` gives each list its position."""
    item = flat(lists).astype(np.int64)
    return Mails(np.repeat(user, lengths(lists)), item, np.full(len(item), day), np.ones(len(item), np.int64))


def nothing_mailed() -> Mails:
    """Make the mails of users who were mailed nothing."""
    return Mails(*(np.empty(0, np.int64) for _ in range(4)))


def concatenate(parts: list[Mails]) -> Mails:
    """Put several sets behind one another."""
    return Mails(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("user", "item", "last_on", "days"))
    )


def merge(mails: Mails) -> Mails:
    """Keep one row per user and item: the later date, and the union of the days before it. By user, newest first.

    Items are forgotten that were last mailed so long before their user's newest mail that no list to come, be it
    LATE_DAYS late, can have that mail in its window. So what is dropped while folding is never missed.
    """
    if (mails.user[1:] < mails.user[:-1]).any():
        mails = mails.take(np.argsort(mails.user, kind="stable"))
    kept, days = np.empty(len(mails.user), np.int64), np.empty(len(mails.user), np.int64)
    columns = (plain(column, np.int64) for column in (mails.item, mails.last_on, mails.days))
    size = _merge(starts_of(mails.user), *columns, kept, days)
    rows = kept[:size]
    return Mails(mails.user[rows], mails.item[rows], mails.last_on[rows], days[:size])


@compiled
def _merge(start, item, last_on, days, kept, merged_days):  # type: ignore[no-untyped-def]
    """Name the rows that say last when each item was mailed, and give the days of each; return how many stay."""
    size = 0
    for user in range(len(start) - 1):
        first, stop = start[user], start[user + 1]
        order = np.argsort(-last_on[first:stop], kind="mergesort")
        order = first + order[np.argsort(item[first:stop][order], kind="mergesort")]
        begin = size
        for row in order:
            if size > begin and item[kept[size - 1]] == item[row]:
                # What lies further back than the window falls off; the topmost bit stays clear.
                age = last_on[kept[size - 1]] - last_on[row]
                if age <= MAILED_WINDOW_DAYS:
                    merged_days[size - 1] |= (days[row] << age) & _WINDOW
                continue
            kept[size], merged_days[size] = row, days[row] & _WINDOW
            size += 1
        # Newest first, by insertion: what was mailed on one date stays in the order of items.
        for place in range(begin, size):
            row, bits, to = kept[place], merged_days[place], place
            while to > begin and last_on[kept[to - 1]] < last_on[row]:
                kept[to], merged_days[to] = kept[to - 1], merged_days[to - 1]
                to -= 1
            kept[to], merged_days[to] = row, bits
        while size > begin and last_on[kept[size - 1]] < last_on[kept[begin]] - MAILED_WINDOW_DAYS - LATE_DAYS:
            size -= 1
    return size
