"""The row rules: each batch of a source is split into rows that are used and rows that are set aside, with the reason.

The rules of a table are tried in the order in which its function below lists them; the first that a row breaks is its
reason. They are Arrow and numpy expressions over whole columns.

Ids are text to the byte (`007` and trailing spaces stay); an empty id is no id. A row whose ids or other needed text
are not UTF-8 is set aside. An optional value that cannot be read, or is empty, is null and the row stays.

An event belongs to the window in which it arrived: `received_at` where the source has it, else `occurred_at`. It
cannot have happened long after it arrived, nor after its window: then a clock went wrong, and what it says would be
the newest thing about its user for as long.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.manifest import Window
from jobs.quality.casts import (
    Mask,
    as_mask,
    flags,
    instants,
    is_badly_encoded,
    keep,
    money,
    numbers,
    plain,
    text,
)
from jobs.quality.email_addresses import canonical, collision_key, is_address
from jobs.quality.quarantine import quarantine_rows
from schemas.contracts import LEAST_PRICE, MAX_ID_BYTES, MAX_PRICE, MAX_QUANTITY
from schemas.errors import SchemaError
from schemas.source import ARRIVAL_COLUMN, EVENT_ID_COLUMN
from schemas.tables import EVENT_TYPES, INSTANT, QUARANTINE, Table

POSITION: Final = QUARANTINE.schema.field("source_position")

_SMALLEST_PRICE: Final = LEAST_PRICE / 2  # rounds to it
_MAX_STOCK: Final = 2**31 - 1
_CLOCK_TOLERANCE: Final = dt.timedelta(minutes=15)  # of the clocks of a shop and of those who visit it

Columns = Mapping[str, pa.Array]
Rule = tuple[str, Mask]
# What a table's rules say of a batch: the rules, its typed columns, and for events when each one arrived.
Rules = tuple[list[Rule], dict[str, pa.Array], pa.Array | None]


@dataclass(frozen=True)
class Checked:
    """What became of one batch.

    `good` has the table's schema. Parallel to it are `positions`, `bad_address`, `address_keys` (what a user's address
    is compared by, whether mail can go to it or not) and `event_ids` (None where the source has none). `outside` counts
    the rows of other days, which are neither used nor set aside; `on_last_day` the good rows of the window's last day;
    `unreadable` the optional values that became null.
    """

    good: pa.Table
    positions: pa.Array
    bad_address: Mask
    address_keys: pa.Array
    event_ids: pa.Array | None
    quarantined: pa.Table
    read: int
    outside: int
    on_last_day: int
    unreadable: Mapping[str, int]


def check_rows(
    table: Table, rows: pa.RecordBatch, window: Window, *, holds_all_days: bool, zone: str | None = None
) -> Checked:
    """Split a batch that has the table's columns, loosely typed, and `source_position`.

    `holds_all_days`: the source cannot be asked for a window, so rows of other days are passed over; otherwise
    they are set aside as outside_window, because the query does not do what it says.
    `zone`: the time zone of instants that come without one; otherwise they are UTC.
    Raises: SchemaError if a column is missing or of a type that nothing can be read from.
    """
    raw = _plain_columns(table, rows)
    rules, columns, arrived_at = _RULES[table.name](raw, window, zone)
    passed_over = np.zeros(rows.num_rows, np.bool_)
    if holds_all_days and arrived_at is not None:
        passed_over = _is_outside(arrived_at, window)
    used, reasons = _first_broken(rules, passed_over)
    bad_address, address_keys = np.zeros(rows.num_rows, np.bool_), pa.nulls(rows.num_rows, pa.string())
    if "email" in columns:
        columns, bad_address, address_keys = _without_bad_addresses(columns)
    event_ids = _optional(raw[EVENT_ID_COLUMN]).filter(pa.array(used)) if EVENT_ID_COLUMN in raw else None
    set_aside = ~used & ~passed_over
    schema_columns = [columns[name].filter(pa.array(used)) for name in table.schema.names]
    positions = rows.column(POSITION.name)
    mask = pa.array(set_aside)
    return Checked(
        good=pa.table(schema_columns, schema=table.schema),
        positions=positions.filter(pa.array(used)),
        bad_address=bad_address[used],
        address_keys=address_keys.filter(pa.array(used)),
        event_ids=event_ids,
        quarantined=quarantine_rows(
            table.name,
            pa.RecordBatch.from_arrays([raw[name].filter(mask) for name in raw], names=list(raw)),
            reasons.filter(mask),
            positions.filter(mask),
        ),
        read=rows.num_rows,
        outside=int(passed_over.sum()),
        on_last_day=_count_on_last_day(arrived_at, window, used),
        unreadable=_unreadable(table, raw, columns, used),
    )


def _events(raw: Columns, window: Window, zone: str | None) -> Rules:
    user_ids, item_ids, event_types = text(raw["user_id"]), text(raw["item_id"]), text(raw["event_type"])
    occurred_at = instants(raw["occurred_at"], "occurred_at", zone)
    quantities, prices = numbers(raw["quantity"]), numbers(raw["price"])
    arrived_at = occurred_at
    if ARRIVAL_COLUMN in raw:
        arrived_at = pc.coalesce(instants(raw[ARRIVAL_COLUMN], ARRIVAL_COLUMN, zone), occurred_at)
    ahead = as_mask(pc.greater_equal(occurred_at, pa.scalar(window.end_at, INSTANT)))
    if ARRIVAL_COLUMN in raw:
        lead = pc.subtract(occurred_at.cast(pa.int64()), arrived_at.cast(pa.int64()))
        ahead |= as_mask(pc.greater(lead, _CLOCK_TOLERANCE // dt.timedelta(microseconds=1)))
    countable = _between(quantities, 1, MAX_QUANTITY) & as_mask(pc.equal(quantities, pc.trunc(quantities)))
    priced = _between(prices, 0, MAX_PRICE)
    rules = [
        ("bad_encoding", _any_badly_encoded(raw, "user_id", "item_id", "event_type")),
        ("null_user", _is_empty(user_ids)),
        ("null_item", _is_empty(item_ids)),
        ("unknown_event_type", ~as_mask(pc.is_in(event_types, value_set=pa.array(EVENT_TYPES)))),
        ("bad_timestamp", _is_null(occurred_at)),
        ("outside_window", _is_outside(arrived_at, window)),
        ("future_timestamp", ahead),
        ("bad_quantity", ~countable),
        ("bad_price", _is_given(raw["price"]) & ~priced),
        ("id_too_long", _is_too_long(user_ids) | _is_too_long(item_ids)),
    ]
    columns = {
        "user_id": user_ids,
        "item_id": item_ids,
        "event_type": event_types,
        "occurred_at": occurred_at,
        "quantity": keep(quantities, countable).cast(pa.int32()),
        "price": money(keep(prices, priced)),
    }
    return rules, columns, arrived_at


def _catalog(raw: Columns, _: Window, zone: str | None) -> Rules:
    item_ids = text(raw["item_id"])
    needed = {name: text(raw[name]) for name in ("title", "url", "image_url", "currency")}
    prices, stocks, ratings = numbers(raw["price"]), numbers(raw["stock"]), numbers(raw["rating"])
    priced = _between(prices, _SMALLEST_PRICE, MAX_PRICE)
    rated = as_mask(pc.is_finite(ratings)) & _between(ratings, -1e6, 1e6)
    stocked = as_mask(pc.is_finite(stocks))
    # Less than nothing in stock is a back-order, and more than fits is "always there"; halves are not whole items.
    whole_stocks = pc.floor(pc.max_element_wise(pc.min_element_wise(keep(stocks, stocked), _MAX_STOCK), 0))
    missing = ~stocked | ~_is_given(raw["price"])
    for values in needed.values():
        missing |= _is_blank(values)
    rules = [
        ("bad_encoding", _any_badly_encoded(raw, "item_id", *needed)),
        ("null_item", _is_empty(item_ids)),
        ("missing_field", missing),
        ("bad_price", ~priced),
        ("id_too_long", _is_too_long(item_ids)),
    ]
    columns = {
        **needed,
        "item_id": item_ids,
        "category": _optional(raw["category"]),
        "brand": _optional(raw["brand"]),
        "price": money(keep(prices, priced)),
        "stock": keep(whole_stocks, stocked).cast(pa.int32()),
        "rating": keep(ratings, rated).cast(pa.float32()),
        "created_at": instants(raw["created_at"], "created_at", zone),
        "properties": raw["properties"],
    }
    return rules, columns, None


def _users(raw: Columns, _: Window, __: str | None) -> Rules:
    user_ids, subscribed = text(raw["user_id"]), flags(raw["is_subscribed"])
    rules = [
        ("bad_encoding", _any_badly_encoded(raw, "user_id")),
        ("null_user", _is_empty(user_ids)),
        # Whoever may not have agreed to mail is not guessed to have done so.
        ("missing_field", _is_null(subscribed)),
        ("id_too_long", _is_too_long(user_ids)),
    ]
    columns = {
        "user_id": user_ids,
        "email": _optional(raw["email"]),
        "is_subscribed": subscribed,
        "locale": _optional(raw["locale"]),
        "properties": raw["properties"],
    }
    return rules, columns, None


_RULES: Final[Mapping[str, Callable[[Columns, Window, str | None], Rules]]] = {
    "events": _events,
    "catalog": _catalog,
    "users": _users,
}


def _plain_columns(table: Table, rows: pa.RecordBatch) -> dict[str, pa.Array]:
    wanted = [*table.schema.names, POSITION.name]
    if missing := [name for name in wanted if name not in rows.schema.names]:
        raise SchemaError(f"a batch of {table.name} lacks {', '.join(missing)}; it has {', '.join(rows.schema.names)}")
    return {
        name: rows.column(name) if pa.types.is_map(rows.column(name).type) else plain(rows.column(name), name)
        for name in rows.schema.names
        if name != POSITION.name
    }


def _first_broken(rules: list[Rule], passed_over: Mask) -> tuple[Mask, pa.Array]:
    """Tell which rows are used, and for every row the first rule that it breaks (null where none)."""
    first = np.full(len(passed_over), -1, np.int8)
    for number, (_, broken) in reversed(list(enumerate(rules))):
        first[broken] = number
    used = (first < 0) & ~passed_over
    names = pa.array([reason for reason, _ in rules])
    return used, names.take(pa.array(first, mask=first < 0))


def _without_bad_addresses(columns: dict[str, pa.Array]) -> tuple[dict[str, pa.Array], Mask, pa.Array]:
    addresses = canonical(columns["email"])
    bad = as_mask(addresses.is_valid()) & ~is_address(addresses)
    return {**columns, "email": keep(addresses, ~bad)}, bad, collision_key(addresses, bad)


def _any_badly_encoded(raw: Columns, *names: str) -> Mask:
    found = is_badly_encoded(raw[names[0]])
    for name in names[1:]:
        found |= is_badly_encoded(raw[name])
    return found


def _unreadable(table: Table, raw: Columns, columns: Columns, used: Mask) -> dict[str, int]:
    """Count optional values of used rows that could not be read (addresses have a reason of their own)."""
    found = {}
    for field in table.schema:
        if field.nullable and field.name != "email" and not pa.types.is_map(field.type):
            lost = int((used & _is_given(raw[field.name]) & _is_null(columns[field.name])).sum())
            if lost:
                found[field.name] = lost
    return found


def _is_outside(arrived_at: pa.Array, window: Window) -> Mask:
    before = pc.less(arrived_at, pa.scalar(window.start_at, INSTANT))
    after = pc.greater_equal(arrived_at, pa.scalar(window.end_at, INSTANT))
    return as_mask(pc.or_(before, after))


def _count_on_last_day(arrived_at: pa.Array | None, window: Window, used: Mask) -> int:
    if arrived_at is None:
        return int(used.sum())
    last_day = pa.scalar(window.end_at - dt.timedelta(days=1), INSTANT)
    return int((used & as_mask(pc.greater_equal(arrived_at, last_day))).sum())


def _optional(values: pa.Array) -> pa.Array:
    written = text(values)
    return keep(written, ~_is_empty(written))


def _between(values: pa.Array, least: float, most: float) -> Mask:
    """False for null and not-a-number too."""
    return as_mask(pc.and_(pc.greater_equal(values, float(least)), pc.less_equal(values, float(most))))


def _is_null(values: pa.Array) -> Mask:
    return ~as_mask(values.is_valid())


def _is_empty(texts: pa.Array) -> Mask:
    return _is_null(texts) | as_mask(pc.equal(pc.binary_length(texts), 0))


def _is_blank(texts: pa.Array) -> Mask:
    return _is_empty(pc.utf8_trim_whitespace(texts))


def _is_given(raw: pa.Array) -> Mask:
    """Tell where the source has anything at all: not null, and not empty where it gives text."""
    given = as_mask(raw.is_valid())
    if pa.types.is_string(raw.type) or pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type):
        given &= as_mask(pc.greater(pc.binary_length(raw), 0))
    return given


def _is_too_long(ids: pa.Array) -> Mask:
    return as_mask(pc.greater(pc.binary_length(ids), MAX_ID_BYTES))
