"""What a user has and likes, derived from the profile records of one bucket: one row per user and item."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import rank_within
from jobs.profiles.fold import Int64s, Records, merge, records_of_profiles
from schemas.ranking_rules import ExcludeSettings, LookBack
from schemas.tables import EVENT_TYPES

_DAY = 86_400_000_000  # microseconds
_NEVER = np.iinfo(np.int64).min

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """One row per user and item, sorted by both. `last_at` and `count` have a column per event type."""

    users: int
    user: Int64s
    item: Int64s
    last_at: Int64s
    count: Int64s

    def last(self, name: str) -> Int64s:
        """When each pair last had an event of a type (microseconds; the lowest number if never)."""
        return self.last_at[:, EVENT_TYPES.index(name)]

    def is_bought(self) -> Bools:
        """Bought more often than given back."""
        count = self.count
        return count[:, EVENT_TYPES.index("purchase")] > count[:, EVENT_TYPES.index("refund")]

    def is_wishlisted(self) -> Bools:
        """On the wishlist now. An add and a remove at the same instant leave it there: excluding is the safe side."""
        added = self.last("wishlist_add")
        return (added > _NEVER) & (added >= self.last("wishlist_remove"))

    def is_in_cart(self) -> Bools:
        """In the cart now; a purchase takes the item out of it."""
        added = self.last("cart_add")
        return (added > _NEVER) & (added >= np.maximum(self.last("cart_remove"), self.last("purchase")))

    def is_excluded(self, rules: ExcludeSettings, now: int) -> Bools:
        """Which pairs the exclusion rules forbid at an instant (microseconds)."""

        def within(since: Int64s, days: LookBack) -> Bools:
            if days == "for_ever":
                return since > _NEVER
            return since >= now - days * _DAY if days else np.zeros(len(since), bool)

        return (
            (self.is_bought() & within(self.last("purchase"), rules.bought_days))
            | (self.is_wishlisted() & within(self.last("wishlist_add"), rules.wishlisted_days))
            | (self.is_in_cart() & within(self.last("cart_add"), rules.in_cart_days))
            | within(self.last("view"), rules.seen_days)
        )

    def interest(self, weights: npt.NDArray[np.float64], half_life_days: float, now: int) -> npt.NDArray[np.float32]:
        """Weigh each pair: the sum over event types of weight x 0.5^(age / half-life). A refunded purchase is none.

        Shapes: weights has one entry per event type.
        """
        age_days = np.maximum(0, now - self.last_at) / _DAY
        decayed = np.where(self.last_at == _NEVER, 0.0, np.exp2(-age_days / half_life_days)) * weights
        decayed[~self.is_bought(), EVENT_TYPES.index("purchase")] = 0.0
        total: npt.NDArray[np.float32] = decayed.sum(axis=1).astype(np.float32)
        return total

    def newest(self, chosen: Bools, limit: int, weights: npt.NDArray[np.float64]) -> Bools:
        """Narrow the chosen pairs to each user's most recent `limit` by their last event of a weighted type."""
        rows = np.flatnonzero(chosen)
        last = np.where(weights > 0, self.last_at[rows], _NEVER).max(axis=1, initial=_NEVER)
        order = rows[np.lexsort((self.item[rows], -last, self.user[rows]))]
        kept = np.zeros(len(chosen), bool)
        kept[order[rank_within(self.user[order]) < limit]] = True
        return kept

    def matrix(self, chosen: Bools, values: npt.NDArray[np.float32], items: int) -> sparse.csr_array:
        """Lay the chosen pairs out as a users x items matrix, rows in user order."""
        indptr = np.zeros(self.users + 1, np.int64)
        np.cumsum(np.bincount(self.user[chosen], minlength=self.users), out=indptr[1:])
        return sparse.csr_array((values[chosen], self.item[chosen].astype(np.int32), indptr), shape=(self.users, items))


def pairs_of_profiles(profiles: pa.Table) -> Pairs:
    """Pivot the profiles of one bucket; a user's position is their row in `profiles`."""
    records: Records = merge(records_of_profiles(profiles, np.arange(len(profiles), dtype=np.int64)))
    changes = (np.diff(records.user) != 0) | (np.diff(records.item) != 0)
    new_pair = np.concatenate(([True], changes))[: len(records.user)]
    row = np.cumsum(new_pair) - 1
    size = int(row[-1]) + 1 if len(row) else 0
    last_at = np.full((size, len(EVENT_TYPES)), _NEVER)
    count = np.zeros((size, len(EVENT_TYPES)), np.int64)
    last_at[row, records.event_type] = records.last_at
    count[row, records.event_type] = records.count
    return Pairs(len(profiles), records.user[new_pair], records.item[new_pair], last_at, count)
