"""What a user has and likes, derived from the profile records of one bucket: one row per user and item."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.profiles.fold import Int64s
from schemas.tables import EVENT_TYPES

NEVER: Final = np.iinfo(np.int64).min
DAY: Final = 86_400_000_000  # microseconds
_ITEM_BITS: Final = 31
_PURCHASE, _REFUND = EVENT_TYPES.index("purchase"), EVENT_TYPES.index("refund")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Elements:
    """The records behind the pairs, by pair and newest first: each one's place in the flat lists, and what it is."""

    element: Int64s
    pair: Int64s
    event_type: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Pairs:
    """One row per user and item, sorted by both. `last_at` has a column per event type; `bought` says who has what."""

    users: int
    user: Int64s
    item: Int64s
    last_at: Int64s
    bought: Bools
    records: Elements

    def last(self, name: str) -> Int64s:
        """When each pair last had an event of a type (microseconds; the lowest number if never)."""
        return self.last_at[:, EVENT_TYPES.index(name)]

    def is_bought(self) -> Bools:
        """Bought and not given back: since some instant there are more purchases than refunds.

        That is what a shop's own count says, which a refund takes down to nothing but not below: one for a purchase
        that was never seen does not undo the next one.
        """
        return self.bought

    def is_wishlisted(self) -> Bools:
        """On the wishlist now. An add and a remove at the same instant leave it there: excluding is the safe side."""
        added = self.last("wishlist_add")
        return (added > NEVER) & (added >= self.last("wishlist_remove"))

    def is_in_cart(self) -> Bools:
        """In the cart now; a purchase takes the item out of it."""
        added = self.last("cart_add")
        return (added > NEVER) & (added >= np.maximum(self.last("cart_remove"), self.last("purchase")))

    def interest(self, weights: npt.NDArray[np.float64], half_life_days: float, now: int) -> npt.NDArray[np.float32]:
        """Weigh each pair: the sum over event types of weight x 0.5^(age / half-life). A refunded purchase is none.

        Shapes: weights has one entry per event type.
        """
        total = np.zeros(len(self.user))
        for event_type in np.flatnonzero(weights):
            counts = self.last_at[:, event_type] > NEVER
            if event_type == _PURCHASE:
                counts &= self.bought
            rows = np.flatnonzero(counts)
            age_days = np.maximum(0, now - self.last_at[rows, event_type]) / DAY
            total[rows] += weights[event_type] * np.exp2(-age_days / half_life_days)
        return total.astype(np.float32)

    def newest(self, chosen: Bools, limit: int, weights: npt.NDArray[np.float64]) -> Bools:
        """Narrow the chosen pairs to each user's most recent `limit` by their last event of a weighted type.

        A profile's lists are in that order already, ties by item: a pair stands where its first weighted record does.
        """
        records = self.records
        counts = np.flatnonzero((weights > 0)[records.event_type] & chosen[records.pair])
        first = counts[_starts(records.pair[counts])]
        stands = np.full(len(records.pair), -1)
        stands[records.element[first]] = records.pair[first]
        in_order = stands[stands >= 0]
        kept = np.zeros(len(chosen), bool)
        kept[in_order[rank_within(self.user[in_order]) < limit]] = True
        return kept

    def matrix(self, chosen: Bools, values: npt.NDArray[np.float32], items: int) -> sparse.csr_array:
        """Lay the chosen pairs out as a users x items matrix, rows in user order."""
        indptr = np.zeros(self.users + 1, np.int64)
        np.cumsum(np.bincount(self.user[chosen], minlength=self.users), out=indptr[1:])
        return sparse.csr_array((values[chosen], self.item[chosen].astype(np.int32), indptr), shape=(self.users, items))


def pairs_of_profiles(profiles: pa.Table) -> Pairs:
    """Pivot the profiles of one bucket; a user's position is their row in `profiles`."""
    counts = lengths(profiles["item"])
    user, item, row = _by_item(counts, flat(profiles["item"]))
    event_type, at = flat(profiles["event_type"])[row], flat(profiles["last_at"])[row]
    is_new = np.ones(len(user), np.bool_)
    is_new[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    first = np.flatnonzero(is_new)
    pair = np.cumsum(is_new) - 1
    # A column after the other in memory: each rule reads one or two of them.
    last_at = np.full((len(EVENT_TYPES), len(first)), NEVER)
    for code, column in enumerate(last_at):
        rows = np.flatnonzero(event_type == code)
        # Newest first within a pair: of several purchases the first is the last one.
        newest = rows[_starts(pair[rows])]
        column[pair[newest]] = at[newest]
    bought = last_at[_PURCHASE] > NEVER
    returned = (bought & (last_at[_REFUND] > NEVER))[pair]
    rows = np.flatnonzero(returned & ((event_type == _PURCHASE) | (event_type == _REFUND)))
    if len(rows):
        sign = np.where(event_type[rows] == _PURCHASE, 1, -1)
        open_pairs, owned = _owned(pair[rows], at[rows], sign * flat(profiles["count"])[row[rows]])
        bought[open_pairs] = owned
    return Pairs(len(profiles), user[first], item[first], last_at.T, bought, Elements(row, pair, event_type))


def _starts(group: Int64s) -> Bools:
    """Mark where a run of equal values begins."""
    starts = np.ones(len(group), np.bool_)
    np.not_equal(group[1:], group[:-1], out=starts[1:])
    return starts


def _by_item(counts: Int64s, items: npt.NDArray[np.int32]) -> tuple[Int64s, Int64s, Int64s]:
    """Order elements of lists by user and item, those of one pair as they were; return user, item and element.

    One sort of whole numbers: user, item and place in the list, packed (a sort of three keys takes six times as long).
    Raises: ValueError if they do not fit into 63 bits; 2^20 users with lists of 4,095 do.
    """
    user = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    place_bits = int(counts.max(initial=0)).bit_length()
    if place_bits + _ITEM_BITS + len(counts).bit_length() > 63:
        raise ValueError(f"{len(counts)} users with lists of {counts.max()} do not fit into one number; cut the batch")
    key = (user << (_ITEM_BITS + place_bits)) + np.arange(len(items)) - np.repeat(start, counts)
    key += items.astype(np.int64) << place_bits
    key.sort()
    user = key >> (_ITEM_BITS + place_bits)
    return user, (key >> place_bits) & (2**_ITEM_BITS - 1), start[user] + (key & (2**place_bits - 1))


def _owned(pair: Int64s, at: Int64s, change: Int64s) -> tuple[Int64s, Bools]:
    """Tell which pairs have more purchases than refunds since some instant.

    Shapes: purchases and refunds of the pairs, by pair and newest first. What happens at one instant counts together.
    """
    first = np.flatnonzero(_starts(pair))
    total = np.cumsum(change)
    since = total - np.repeat(total[first] - change[first], np.diff(np.append(first, len(pair))))
    ends_instant = np.append((pair[1:] != pair[:-1]) | (at[1:] != at[:-1]), True)
    return pair[first], np.maximum.reduceat(np.where(ends_instant, since, NEVER), first) > 0
