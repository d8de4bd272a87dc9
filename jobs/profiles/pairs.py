"""What a user has and likes, derived from the profile records of one bucket: one row per user and item."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.compiled import compiled, plain
from jobs.lake.list_columns import flat, lengths
from jobs.profiles.records import Int64s
from schemas.tables import EVENT_TYPES

NEVER: Final = np.iinfo(np.int64).min
DAY: Final = 86_400_000_000  # microseconds
COLUMNS: Final = ("item", "event_type", "last_at", "count")  # of the profiles, that the pairs are made of
_PURCHASE, _REFUND = EVENT_TYPES.index("purchase"), EVENT_TYPES.index("refund")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Records:
    """The profile records behind the pairs, as the lists have them: where each user's start, each one's pair and type.

    Shapes: start (users + 1,); pair and event_type (records,).
    """

    start: Int64s
    pair: Int64s
    event_type: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Pairs:
    """One row per user and item, sorted by both. `bought` says who has what.

    Shapes: last_at (event types, pairs or more), what is beyond the pairs being nothing; the others (pairs,).
    """

    users: int
    user: Int64s
    item: Int64s
    last_at: Int64s
    bought: Bools
    records: Records

    def last(self, name: str) -> Int64s:
        """When each pair last had an event of a type (microseconds; the lowest number if never)."""
        return self.last_at[EVENT_TYPES.index(name), : len(self.user)]

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
        found = np.empty(len(self.user), np.float32)
        _weigh(plain(self.last_at, np.int64), plain(self.bought, np.bool_), weights, half_life_days, now, found)
        return found

    def newest_interest(
        self, limit: int, weights: npt.NDArray[np.float64], half_life_days: float, now: int
    ) -> tuple[npt.NDArray[np.float32], Bools]:
        """Weigh each user's most recent `limit` pairs of interest, as `interest` and `newest` would, and no other."""
        found, kept = np.zeros(len(self.user), np.float32), np.zeros(len(self.user), np.bool_)
        records = self.records
        _weigh_newest(
            plain(records.start, np.int64), plain(records.pair, np.int64), plain(records.event_type, np.int8),
            plain(self.last_at, np.int64), plain(self.bought, np.bool_), weights, half_life_days, now, limit,
            found, kept,
        )  # fmt: skip
        return found, kept

    def newest(self, chosen: Bools, limit: int, weights: npt.NDArray[np.float64]) -> Bools:
        """Narrow the chosen pairs to each user's most recent `limit` by their last event of a weighted type.

        A profile's lists are in that order already, ties by item: a pair stands where its first weighted record does.
        """
        records, kept = self.records, np.zeros(len(chosen), np.bool_)
        _newest(
            plain(records.start, np.int64), plain(records.pair, np.int64), plain(records.event_type, np.int8),
            plain(weights > 0, np.bool_), plain(chosen, np.bool_), limit, kept,
        )  # fmt: skip
        return kept

    def matrix(self, chosen: Bools, values: npt.NDArray[np.float32], items: int) -> sparse.csr_array:
        """Lay the chosen pairs out as a users x items matrix, rows in user order."""
        rows, indptr = np.flatnonzero(chosen), np.zeros(self.users + 1, np.int64)
        np.cumsum(np.bincount(self.user[rows], minlength=self.users), out=indptr[1:])
        return sparse.csr_array((values[rows], self.item[rows].astype(np.int32), indptr), shape=(self.users, items))


def pairs_of_profiles(profiles: pa.Table) -> Pairs:
    """Pivot the profiles of one bucket; a user's position is their row in `profiles`."""
    start = np.zeros(len(profiles) + 1, np.int64)
    np.cumsum(lengths(profiles["item"]), out=start[1:])
    event_type = flat(profiles["event_type"])
    size = len(event_type)
    user, item, pair = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    # A column after the other in memory: each rule reads one or two of them.
    last_at, bought = np.empty((len(EVENT_TYPES), size), np.int64), np.zeros(size, np.bool_)
    pairs = _pivot(
        plain(start, np.int64), plain(flat(profiles["item"]), np.int32), plain(event_type, np.int8),
        plain(flat(profiles["last_at"]), np.int64), plain(flat(profiles["count"]), np.int32),
        user, item, pair, last_at, bought,
    )  # fmt: skip
    records = Records(start, pair, event_type)
    return Pairs(len(profiles), user[:pairs], item[:pairs], last_at, bought[:pairs], records)


@compiled
def _pivot(start, of, event_type, at, count, user, item, pair, last_at, bought):  # type: ignore[no-untyped-def]
    """Fill the pairs' columns and each record's pair, user by user; return how many pairs there are."""
    pairs = -1
    order = np.empty(64, np.int64)
    for row in range(len(start) - 1):
        first, size = start[row], start[row + 1] - start[row]
        if size > len(order):
            order = np.empty(2 * size, np.int64)
        # By item, and within an item newest first, as the list is: what is equal stays in its order.
        for place in range(size):
            to = place
            while to > 0 and of[first + order[to - 1]] > of[first + place]:
                order[to] = order[to - 1]
                to -= 1
            order[to] = place
        open_count, ever_owned = 0, False
        for place in range(size):
            record = first + order[place]
            if place == 0 or of[record] != of[first + order[place - 1]]:
                pairs += 1
                user[pairs], item[pairs], bought[pairs] = row, of[record], False
                for code in range(len(last_at)):
                    last_at[code, pairs] = NEVER
                open_count, ever_owned = 0, False
            pair[record] = pairs
            code = event_type[record]
            if last_at[code, pairs] == NEVER:
                last_at[code, pairs] = at[record]
            # More purchases than refunds since some instant; what happens at one instant counts together.
            if code == _PURCHASE:
                open_count += count[record]
            elif code == _REFUND:
                open_count -= count[record]
            after = first + order[place + 1] if place + 1 < size else record
            if after == record or of[after] != of[record] or at[after] != at[record]:
                ever_owned = ever_owned or open_count > 0
            bought[pairs] = ever_owned
    return pairs + 1


@compiled
def _newest(start, pair, event_type, weighted, chosen, limit, kept):  # type: ignore[no-untyped-def]
    for row in range(len(start) - 1):
        left = limit
        for record in range(start[row], start[row + 1]):
            one = pair[record]
            if left > 0 and weighted[event_type[record]] and chosen[one] and not kept[one]:
                kept[one] = True
                left -= 1


@compiled
def _weigh(last_at, bought, weights, half_life_days, now, found):  # type: ignore[no-untyped-def]
    for pair in range(len(found)):
        found[pair] = _interest(last_at, bought, weights, half_life_days, now, pair)


@compiled
def _weigh_newest(start, pair, event_type, last_at, bought, weights, half_life_days, now, limit, found, kept):  # type: ignore[no-untyped-def]
    for row in range(len(start) - 1):
        left = limit
        for record in range(start[row], start[row + 1]):
            one = pair[record]
            if left > 0 and weights[event_type[record]] > 0 and not kept[one]:
                found[one] = _interest(last_at, bought, weights, half_life_days, now, one)
                kept[one] = found[one] > 0
                left -= kept[one]


@compiled
def _interest(last_at, bought, weights, half_life_days, now, pair):  # type: ignore[no-untyped-def]
    total = 0.0
    for code in range(len(weights)):
        if weights[code] > 0 and last_at[code, pair] > NEVER and (code != _PURCHASE or bought[pair]):
            total += weights[code] * 2.0 ** (-max(0, now - last_at[code, pair]) / DAY / half_life_days)
    return np.float32(total)
