"""Fold a day's events into the profiles of one user bucket.

A profile is a set of records, one per item and event type, each with the last instant and the count. Merging two
sets takes the later instant and adds the counts; that is associative and commutative, so days can be folded one by
one, all at once or late, with the same result. What a user *has* (bought, in the cart, on the wishlist) is derived
from the records when it is needed, never stored.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.lake.list_columns import flat, lengths, list_column, rank_within
from schemas.tables import EVENT_TYPES, PROFILES

VIEW = EVENT_TYPES.index("view")
_TYPE_BITS = 3
_ITEM_BITS = 31

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


def records_of_profiles(profiles: pa.Table, user: Int64s) -> Records:
    """Flatten profile rows into records; `user` gives each row its position."""
    return Records(
        user=np.repeat(user, lengths(profiles["item"])),
        item=flat(profiles["item"]).astype(np.int64),
        event_type=flat(profiles["event_type"]).astype(np.int64),
        last_at=flat(profiles["last_at"]),
        count=flat(profiles["count"]).astype(np.int64),
    )


def records_of_events(events: pa.Table, index: pa.StringArray, user: Int64s) -> Records:
    """Turn events into records of count 1."""
    types = pc.index_in(events["event_type"], value_set=pa.array(EVENT_TYPES))
    return Records(
        user=user,
        item=to_items(index, events["item_id"]).to_numpy().astype(np.int64),
        event_type=types.to_numpy().astype(np.int64),
        last_at=events["occurred_at"].cast(pa.int64()).to_numpy(),
        count=np.ones(len(events), np.int64),
    )


def merge(records: Records) -> Records:
    """Keep one record per user, item and type: the later instant, the sum of the counts; sorted by that key."""
    if len(records.user) == 0:
        return records
    # 2^29 users a bucket x 2^31 items x 8 types fill the 63 bits of one sortable number.
    key = (records.user << (_ITEM_BITS + _TYPE_BITS)) | (records.item << _TYPE_BITS) | records.event_type
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    merged = records.take(order[first])
    return Records(
        merged.user,
        merged.item,
        merged.event_type,
        np.maximum.reduceat(records.last_at[order], first),
        np.add.reduceat(records.count[order], first),
    )


def newest_first(records: Records, *, cap: int, state_cap: int) -> Records:
    """Order each user's records from the newest, and drop the oldest beyond the caps.

    `cap` bounds views, `state_cap` everything else (a purchase must be remembered for longer than a look). Dropping
    is safe while folding: a record among the newest of all days is among the newest of every prefix of them.
    """
    order = np.lexsort((records.event_type, records.item, -records.last_at, records.user))
    records = records.take(order)
    is_view = records.event_type == VIEW
    keep = np.zeros(len(order), bool)
    for chosen, limit in ((is_view, cap), (~is_view, state_cap)):
        rows = np.flatnonzero(chosen)
        keep[rows] = rank_within(records.user[rows]) < limit
    return records.take(np.flatnonzero(keep))


def fold(profiles: pa.Table | None, events: pa.Table, index: pa.StringArray, *, cap: int, state_cap: int) -> pa.Table:
    """Fold events into profiles (None: there are none yet).

    Grain: one row per user of either input, in byte order of the user id.
    """
    before = profiles if profiles is not None else PROFILES.schema.empty_table()
    user_ids, (profile_user, event_user) = _number([before["user_id"], events["user_id"]])
    old, new = records_of_profiles(before, profile_user), records_of_events(events, index, event_user)
    records = newest_first(merge(_concatenate(old, new)), cap=cap, state_cap=state_cap)
    counts = np.bincount(records.user, minlength=len(user_ids))
    return pa.table(
        {
            "user_id": user_ids,
            "item": list_column(PROFILES, "item", records.item, counts),
            "event_type": list_column(PROFILES, "event_type", records.event_type, counts),
            "last_at": list_column(PROFILES, "last_at", records.last_at, counts),
            "count": list_column(PROFILES, "count", records.count, counts),
        },
        schema=PROFILES.schema,
    )


def _number(columns: list[pa.ChunkedArray]) -> tuple[pa.StringArray, list[Int64s]]:
    """Number the distinct strings of several columns in byte order."""
    encoded = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    encoded = encoded.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    codes = place[encoded.indices.to_numpy()] if len(encoded) else np.empty(0, np.int64)
    return encoded.dictionary.take(pa.array(order)), np.split(codes, np.cumsum([len(c) for c in columns])[:-1])


def _concatenate(one: Records, other: Records) -> Records:
    return Records(
        np.concatenate((one.user, other.user)),
        np.concatenate((one.item, other.item)),
        np.concatenate((one.event_type, other.event_type)),
        np.concatenate((one.last_at, other.last_at)),
        np.concatenate((one.count, other.count)),
    )
