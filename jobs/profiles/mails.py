"""What a user was mailed: per item the last date, and on which of the 62 days before it the item was mailed too.

Dates are those of the lists that were mailed. The days before are the bits of one number, bit k for k days before the
last date, so that "mailed twice within a week" can be told exactly, and what is folded twice changes nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.list_columns import flat, lengths, list_column, rank_within
from schemas.ranking_rules import MAILED_WINDOW_DAYS
from schemas.tables import PROFILES

# Receipts of a date exist only after its send; a fold takes in those of so many dates before its own.
LATE_DAYS: Final = 14

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
    if len(mails.user) == 0:
        return mails
    mails = mails.take(np.argsort((mails.user << 31) | mails.item))
    first = np.flatnonzero(np.concatenate(([True], (np.diff(mails.user) != 0) | (np.diff(mails.item) != 0))))
    last_on = np.maximum.reduceat(mails.last_on, first)
    age = np.repeat(last_on, np.diff(np.append(first, len(mails.user)))) - mails.last_on
    # What lies further back than the window falls off; the topmost bit stays clear, so the number stays positive.
    inside = np.where(age <= MAILED_WINDOW_DAYS, mails.days << np.minimum(age, MAILED_WINDOW_DAYS), 0)
    days = np.bitwise_or.reduceat(inside & np.int64(2 ** (MAILED_WINDOW_DAYS + 1) - 1), first)
    merged = Mails(mails.user[first], mails.item[first], last_on, days)
    # In order by user and item already: a stable sort by user and date leaves the items so.
    merged = merged.take(np.argsort((merged.user << 20) - merged.last_on, kind="stable"))
    newest = merged.last_on[np.arange(len(merged.user)) - rank_within(merged.user)]
    return merged.take(np.flatnonzero(merged.last_on >= newest - MAILED_WINDOW_DAYS - LATE_DAYS))
