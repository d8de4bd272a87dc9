"""Fold a day's events, and the mails that were confirmed since, into the profiles of one user bucket.

A profile is a set of records. Purchases and refunds have one per item and instant, because they are counted; of
everything else the last instant counts, so there is one record per item and event type. Merging two sets takes the
later instant, or adds the counts of one instant; that is associative and commutative, so days can be folded one by
one, all at once or late, with the same result. What a user *has* (bought, in the cart, on the wishlist) is derived
from the records when it is needed, never stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.lake.list_columns import flat, lengths, list_column, rank_within
from jobs.profiles import mails
from jobs.profiles.mails import Mails, mails_of_lists, mails_of_profiles
from schemas.tables import EVENT_TYPES, PROFILES

VIEW: Final = EVENT_TYPES.index("view")
# The types of which every instant is kept.
COUNTED: Final = np.isin(EVENT_TYPES, ("purchase", "refund"))
_TYPE_BITS: Final = 3
_ITEM_BITS: Final = 31

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Caps:
    """How many records are kept of each user, the newest first: viewed items, and all others."""

    views: int
    states: int


@dataclass(frozen=True)
class MailedLists:
    """The confirmed lists of one date: rows with `user_id` and `item`. `day` counts days from 1970."""

    day: int
    rows: pa.Table


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
    """Keep one record per user, item, type and, of those that are counted, instant; sorted by that key.

    Of the others the last instant stays. The counts of one instant are added up.
    """
    if len(records.user) == 0:
        return records
    # 2^29 users a bucket x 2^31 items x 8 types fill the 63 bits of one sortable number.
    key = (records.user << (_ITEM_BITS + _TYPE_BITS)) | (records.item << _TYPE_BITS) | records.event_type
    order = np.lexsort((records.last_at, key))
    key, last_at = key[order], records.last_at[order]
    new_key = np.concatenate(([True], key[1:] != key[:-1]))
    first = np.flatnonzero(new_key | np.concatenate(([True], last_at[1:] != last_at[:-1])))
    count = np.add.reduceat(records.count[order], first)
    is_last_of_key = np.append(new_key[first[1:]], True)
    merged = records.take(order[first])
    merged = Records(merged.user, merged.item, merged.event_type, merged.last_at, count)
    return merged.take(np.flatnonzero(COUNTED[merged.event_type] | is_last_of_key))


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


def fold(
    profiles: pa.Table | None, events: pa.Table, index: pa.StringArray, *, caps: Caps, mailed: list[MailedLists]
) -> pa.Table:
    """Fold events and mailed lists into profiles (None: there are none yet).

    Grain: one row per user of any input, in byte order of the user id.
    Users whom nothing concerns keep their row as it is; a day concerns few of them.
    """
    before = profiles if profiles is not None else PROFILES.schema.empty_table()
    lists = [(part.day, part.rows.filter(pc.greater(pc.list_value_length(part.rows["item"]), 0))) for part in mailed]
    user_ids = [events["user_id"], *(rows["user_id"] for _, rows in lists)]
    before, (event_user, *list_users) = with_rows_for(before, user_ids)
    columns = {name: before[name] for name in PROFILES.schema.names}
    users = _different([event_user], len(before))
    if len(users):
        new = records_of_events(events, index, event_user)
        _put(columns, users, _fold_events(_rows(before, users), users, new, caps))
    mailed_users = _different(list_users, len(before))
    if len(mailed_users):
        sent = [mails_of_lists(part["item"], who, day) for (day, part), who in zip(lists, list_users, strict=True)]
        _put(columns, mailed_users, _fold_mails(_rows(before, mailed_users), mailed_users, sent))
    return pa.table(columns, schema=PROFILES.schema)


def _different(rows: Iterable[Int64s], size: int) -> Int64s:
    """Give the rows of a table of `size` that come in any of some arrays, in order."""
    comes = np.zeros(size, np.bool_)
    for some in rows:
        comes[some] = True
    return np.flatnonzero(comes)


def _fold_events(profiles: pa.Table, user: Int64s, new: Records, caps: Caps) -> dict[str, pa.Array]:
    """Fold events into the rows of their users; the answer has one list per row."""
    old = records_of_profiles(profiles, user)
    joined = Records(*(np.concatenate((getattr(old, name), getattr(new, name))) for name in vars(old)))
    records = newest_first(merge(joined), cap=caps.views, state_cap=caps.states)
    counts = _counts(records.user, user)
    return {name: list_column(PROFILES, name, getattr(records, name), counts) for name in vars(old) if name != "user"}


def _fold_mails(profiles: pa.Table, user: Int64s, new: list[Mails]) -> dict[str, pa.Array]:
    """Fold mails into the rows of their users; the answer has one list per row."""
    merged = mails.merge(mails.concatenate([mails_of_profiles(profiles, user), *new]))
    return merged.columns(_counts(merged.user, user))


def _counts(sorted_users: Int64s, users: Int64s) -> Int64s:
    """Count the rows of each user; both are in order."""
    return np.diff(np.append(np.searchsorted(sorted_users, users), len(sorted_users)))


def with_rows_for(profiles: pa.Table, columns: list[pa.ChunkedArray]) -> tuple[pa.Table, list[Int64s]]:
    """Give profiles an empty row for each user of the columns that has none; say in which row each user is."""
    wanted = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    row = pc.index_in(wanted, value_set=profiles["user_id"])
    if row.null_count:
        new = wanted.filter(pc.is_null(row)).unique()
        added = {
            name: pa.array([[]] * len(new), PROFILES.schema.field(name).type) for name in PROFILES.schema.names[1:]
        }
        profiles = pa.concat_tables([profiles, pa.table({"user_id": new, **added}, schema=PROFILES.schema)])
        profiles = profiles.take(pc.sort_indices(profiles["user_id"]))
        row = pc.index_in(wanted, value_set=profiles["user_id"])
    return profiles, np.split(row.to_numpy().astype(np.int64), np.cumsum([len(column) for column in columns])[:-1])


def _rows(table: pa.Table, rows: Int64s) -> pa.Table:
    """Pick rows that are in order; all of them cost nothing."""
    return table if len(rows) == len(table) else table.take(pa.array(rows))


def _put(columns: dict[str, pa.ChunkedArray], rows: Int64s, values: dict[str, pa.Array]) -> None:
    """Put values into the rows given, which are in order."""
    for name, lists in values.items():
        column = columns[name]
        if len(rows) == len(column):
            columns[name] = pa.chunked_array([lists])
            continue
        source = np.arange(len(column))
        source[rows] = len(column) + np.arange(len(rows))
        columns[name] = pa.chunked_array([*column.chunks, lists]).take(pa.array(source))
