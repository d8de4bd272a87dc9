"""What the item models learn from: weighted interactions, users x items, from the profiles of user buckets.

The order of the users is that of a hash of their ids, so that sums of single-precision weights, and with them the
bytes of what is trained, do not depend on how many buckets a lake has.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.compiled import compiled, plain
from jobs.lake.buckets import keyed_hash
from jobs.profiles.pairs import Bools, Pairs
from schemas.training import TrainingSettings

DAY: Final = 86_400_000_000  # microseconds
_ORDER_KEY: Final = "ryml train order"
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Interest:
    """What the pairs of a bucket weigh in training, by a campaign's settings.

    `since` and `until` bound the window (microseconds, end exclusive); ages count from `until`.
    """

    weights: npt.NDArray[np.float64]
    half_life_days: float
    items_per_user: int
    since: int
    until: int

    @classmethod
    def of(cls, training: TrainingSettings, *, since: int, until: int) -> "Interest":
        """Take the weights, the half-life and the cap of the settings."""
        # An infinite half-life leaves every weight as it is.
        half_life = training.half_life_days or math.inf
        return cls(np.array(training.weights_by_type()), half_life, training.items_per_user, since, until)

    def last_at(self, pairs: Pairs) -> npt.NDArray[np.int64]:
        """When each pair last showed interest (microseconds; the lowest number if never)."""
        counts = self.weights[:, None] > 0
        last: npt.NDArray[np.int64] = np.where(counts, pairs.last_at, _NEVER).max(axis=0, initial=_NEVER)
        return last[: len(pairs.user)]

    def matrix(self, pairs: Pairs, items: int, chosen: Bools | None = None) -> sparse.csr_array:
        """Lay the interest of the window out, capped to each user's most recent items.

        Shapes: (users, items), float32 above 0; `chosen` narrows the pairs further.
        """
        weight = pairs.interest(self.weights, self.half_life_days, self.until)
        last = self.last_at(pairs)
        inside = (weight > 0) & (last >= self.since) & (last < self.until)
        if chosen is not None:
            inside &= chosen
        return pairs.matrix(pairs.newest(inside, self.items_per_user, self.weights), weight, items)


def user_order(user_ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Give each user the number that the order of users goes by, whatever bucket they are in."""
    return keyed_hash(user_ids, _ORDER_KEY) if len(user_ids) else np.empty(0, np.uint64)


def in_order(parts: list[sparse.csr_array], orders: list[npt.NDArray[np.uint64]]) -> sparse.csr_array:
    """Join the matrices of all buckets, users in their order and without those that have no interaction.

    Shapes: parts (users of the bucket, items) each, orders (users of the bucket,).
    """
    order = np.concatenate(orders)
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    rows = np.argsort(order, kind="stable")
    rows = rows[counts[rows] > 0]
    indptr = np.concatenate(([0], np.cumsum(counts[rows])))
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    _copy_rows(
        plain(starts[rows], np.int64), plain(indptr, np.int64),
        plain(np.concatenate([part.indices for part in parts]), np.int32), indices,
        plain(np.concatenate([part.data for part in parts]), np.float32), data,
    )  # fmt: skip
    kind = np.int32 if indptr[-1] < np.iinfo(np.int32).max else np.int64
    return sparse.csr_array((data, indices, indptr.astype(kind)), shape=(len(rows), parts[0].shape[1]))


@compiled
def _copy_rows(start, indptr, from_indices, indices, from_data, data):  # type: ignore[no-untyped-def]
    """Copy row after row from where it starts."""
    for row in range(len(start)):
        for place in range(indptr[row], indptr[row + 1]):
            indices[place] = from_indices[start[row] + place - indptr[row]]
            data[place] = from_data[start[row] + place - indptr[row]]
