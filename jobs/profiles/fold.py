"""Fold a day's events, and the mails that were confirmed since, into the profiles of one user bucket.

A profile is a set of records. Purchases and refunds have one per item and instant, because they are counted; of
everything else the last instant counts, so there is one record per item and event type. Merging two sets takes the
later instant, or adds the counts of one instant; that is associative and commutative, so days can be folded one by
one, all at once or late, with the same result. What a user *has* (bought, in the cart, on the wishlist) is derived
from the records when it is needed, never stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.lake.list_columns import flat, lengths, list_column
from jobs.profiles import mails
from jobs.profiles.mails import Mails, mails_of_lists, mails_of_profiles
from jobs.profiles.records import Int64s, Records, merge, newest_first
from schemas.tables import EVENT_TYPES, PROFILES


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
