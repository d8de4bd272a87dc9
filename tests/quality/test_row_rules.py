"""The row rules against an oracle by construction: every generated value knows the rule that it breaks."""

import datetime as dt
import decimal
from collections import Counter
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lake.manifest import Window
from jobs.quality.quarantine import content_hashes
from jobs.quality.row_rules import POSITION, check_rows
from schemas.errors import SchemaError
from schemas.tables import CATALOG, EVENTS, PROPERTIES, QUARANTINE_REASONS, USERS, Table

WINDOW = Window.of_days(dt.date(2026, 1, 1), dt.date(2026, 1, 2))
LONG = "é" * 128  # 256 bytes

IDS = ["007", " 7 ", "a\x00b", "ß", "😀", "x" * 255, "a", "A"]
PRICES = ["0", "-0.0", "1.23456", "9999999999", " 2.5 ", "1e2", "0.00004", None, ""]
BAD_PRICES = ["nan", "-1", "9999999999.1", "1e308", "inf", "abc", "1,5", " "]
COUNTS = ["1", "1000000", "3.0", " 2 "]
BAD_COUNTS = [None, "", "0", "-1", "1000001", "1.5", "nan", "x", "1e308"]

# Per table: column -> (values that are fine, values that break `reason`), in the order of the rules.
Pool = dict[str, tuple[list[str | None], dict[str, list[str | None]]]]
EVENT_POOL: Pool = {
    "user_id": (IDS, {"null_user": [None, ""], "id_too_long": [LONG]}),
    "item_id": (IDS, {"null_item": [None, ""], "id_too_long": [LONG]}),
    "event_type": (["view", "purchase", "refund"], {"unknown_event_type": [None, "", "VIEW", "look", " view"]}),
    "occurred_at": (
        ["2026-01-01", "2026-01-02T23:59:59.999999Z", "2026-01-03T00:00:00+00:01"],
        {
            "bad_timestamp": [None, "", "soon", "2026-02-30", "1767225600"],
            "outside_window": ["2025-12-31T23:59:59.999999Z", "2026-01-03", "2999-01-01"],
        },
    ),
    "quantity": (COUNTS, {"bad_quantity": BAD_COUNTS}),
    "price": (PRICES, {"bad_price": BAD_PRICES}),
}
EVENT_ORDER = (
    "null_user", "null_item", "unknown_event_type", "bad_timestamp", "outside_window", "bad_quantity", "bad_price",
    "id_too_long",
)  # fmt: skip
CATALOG_POOL: Pool = {
    "item_id": (IDS, {"null_item": [None, ""], "id_too_long": [LONG]}),
    **{
        name: (["x", "\x00", "a b"], {"missing_field": [None, "", "  ", "\u00a0"]})
        for name in ("title", "url", "image_url")
    },
    "category": (["", "a", None], {}),
    "brand": (["", "a", None], {}),
    "price": (
        ["0.00005", "1", "9999999999"],
        {"missing_field": [None, ""], "bad_price": [*BAD_PRICES, "0", "0.00004"]},
    ),
    "currency": (["EUR"], {"missing_field": [None, ""]}),
    "stock": (["0", "-3", "1e9", "99999999999", "2.7"], {"missing_field": [None, "", "many", "nan"]}),
    "rating": (["4.5", "x", "nan", "1e308", None], {}),
    "created_at": (["2026-01-01", "x", "", None], {}),
}
CATALOG_ORDER = ("null_item", "missing_field", "bad_price", "id_too_long")
ADDRESSES = ["a@example.com", " A@EXAMPLE.com ", None, "", "  "]
BAD_ADDRESSES = ["a", "a@b@example.com", "ü@example.com", "a@example"]
USER_POOL: Pool = {
    "user_id": (IDS, {"null_user": [None, ""], "id_too_long": [LONG]}),
    "email": (ADDRESSES + BAD_ADDRESSES, {}),
    "is_subscribed": (["true", "0", "YES"], {"missing_field": [None, "", "maybe", "2"]}),
    "locale": (["de", "", None], {}),
}
USER_ORDER = ("null_user", "missing_field", "id_too_long")
CASES = {
    "events": (EVENTS, EVENT_POOL, EVENT_ORDER),
    "catalog": (CATALOG, CATALOG_POOL, CATALOG_ORDER),
    "users": (USERS, USER_POOL, USER_ORDER),
}


def batch_of(table: Table, rows: list[dict[str, object]], first: int = 1) -> pa.RecordBatch:
    columns = {}
    for field in table.schema:
        if pa.types.is_map(field.type):
            columns[field.name] = pa.nulls(len(rows), PROPERTIES)
        else:
            values = [row[field.name] for row in rows]
            columns[field.name] = pa.array(values, pa.string())
    columns[POSITION.name] = pa.array(range(first, first + len(rows)), pa.int64())
    return pa.RecordBatch.from_pydict(columns)


@st.composite
def cases(draw, name: str) -> tuple[Table, list[dict[str, object]], list[str | None]]:
    """Rows with up to two flaws each. One draw for the lot: drawing each value costs fifty times the rules."""
    table, pool, order = CASES[name]
    size, random = draw(st.integers(1, 300)), Random(draw(st.integers(0, 2**32)))
    flawed = sorted(column for column, (_, bad) in pool.items() if bad)
    rows, reasons = [], []
    for _ in range(size):
        row = {column: random.choice(fine) for column, (fine, _) in pool.items()}
        broken = set()
        for column in random.sample(flawed, random.choice((0, 1, 1, 2))):
            reason = random.choice(sorted(pool[column][1]))
            row[column] = random.choice(pool[column][1][reason])
            broken.add(reason)
        rows.append(row)
        reasons.append(next((reason for reason in order if reason in broken), None))
    return table, rows, reasons


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_row_is_used_or_has_the_first_reason_that_it_breaks(name, data):
    table, rows, reasons = data.draw(cases(name))
    checked = check_rows(table, batch_of(table, rows), WINDOW, holds_all_days=False)
    assert checked.good.schema == table.schema
    assert checked.read == len(rows) == checked.good.num_rows + checked.quarantined.num_rows
    assert checked.outside == 0
    expected_good = [place for place, reason in enumerate(reasons, 1) if reason is None]
    assert checked.positions.to_pylist() == expected_good
    found = {row["source_position"]: row["reason"] for row in checked.quarantined.to_pylist()}
    assert found == {place: reason for place, reason in enumerate(reasons, 1) if reason is not None}
    assert set(found.values()) <= set(QUARANTINE_REASONS)
    key = table.key[0]
    assert checked.good.column(key).to_pylist() == [rows[place - 1][key] for place in expected_good]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_of_other_days_are_passed_over_where_the_source_holds_all_days(data):
    table, rows, reasons = data.draw(cases("events"))
    others = EVENT_POOL["occurred_at"][1]["outside_window"]
    checked = check_rows(table, batch_of(table, rows), WINDOW, holds_all_days=True)
    passed_over = [row["occurred_at"] in others for row in rows]
    assert checked.outside == sum(passed_over)
    assert checked.read == checked.good.num_rows + checked.quarantined.num_rows + checked.outside
    expected = Counter(
        reason for reason, over in zip(reasons, passed_over, strict=True) if reason is not None and not over
    )
    assert Counter(checked.quarantined.column("reason").to_pylist()) == expected


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_users_with_an_unusable_address_stay_without_it(data):
    table, rows, _ = data.draw(cases("users"))
    checked = check_rows(table, batch_of(table, rows), WINDOW, holds_all_days=False)
    for place, email, bad in zip(
        checked.positions.to_pylist(), checked.good.column("email").to_pylist(), checked.bad_address, strict=True
    ):
        given_address = rows[place - 1]["email"]
        assert bad == (given_address in BAD_ADDRESSES)
        assert email == ("a@example.com" if given_address in ADDRESSES[:2] else None)


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_good_rows_pass_again_unchanged(name, data):
    table, rows, _ = data.draw(cases(name))
    good = check_rows(table, batch_of(table, rows), WINDOW, holds_all_days=False).good
    positions = pa.array(range(good.num_rows), pa.int64())
    again = pa.table([*good.columns, positions], names=[*good.schema.names, POSITION.name]).combine_chunks()
    for batch in again.to_batches():
        checked = check_rows(table, batch, WINDOW, holds_all_days=False)
        assert checked.quarantined.num_rows == 0
        assert checked.good.equals(good)


ANY_COLUMN = st.one_of(
    st.lists(st.none() | st.floats(), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.floats(width=32), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.float32())),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.uint64())),
    st.lists(st.none() | st.integers(-128, 127), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.int8())),
    st.lists(st.none() | st.booleans(), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.binary(max_size=300), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.binary())),
    st.lists(st.none() | st.text(max_size=300), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.large_string())),
    st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.date32())
    ),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.timestamp("ms"))
    ),
    st.lists(st.none() | st.decimals(-(10**30), 10**30, places=6), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.decimal256(60, 6))
    ),
    st.just(pa.nulls(4)),
)


INSTANT_KINDS = (
    pa.types.is_null, pa.types.is_binary, pa.types.is_large_string, pa.types.is_date, pa.types.is_timestamp,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_value_of_any_type_breaks_the_rules(name, data):
    table, _, _ = CASES[name]
    columns = {}
    for field in table.schema:
        is_map = pa.types.is_map(field.type)
        columns[field.name] = pa.nulls(4, PROPERTIES) if is_map else data.draw(ANY_COLUMN)
    columns[POSITION.name] = pa.array(range(4), pa.int64())
    batch = pa.RecordBatch.from_pydict(columns)
    instant = columns.get("occurred_at", columns.get("created_at"))
    if instant is not None and not any(test(instant.type) for test in INSTANT_KINDS):
        with pytest.raises(SchemaError, match="epoch_seconds"):
            check_rows(table, batch, WINDOW, holds_all_days=False)
        return
    checked = check_rows(table, batch, WINDOW, holds_all_days=False)
    assert checked.good.num_rows + checked.quarantined.num_rows == 4
    checked.good.validate(full=True)


def event(**values: object) -> dict[str, object]:
    return {
        "user_id": "u",
        "item_id": "i",
        "event_type": "view",
        "occurred_at": "2026-01-01",
        "quantity": "1",
        "price": "1",
    } | values


def test_values_become_the_tables_types():
    rows = [event(price="1.23456", occurred_at="2026-01-02T10:00:00+02:00", quantity="3.0"), event(price=None)]
    good = check_rows(EVENTS, batch_of(EVENTS, rows), WINDOW, holds_all_days=False).good.to_pylist()
    assert good[0]["price"] == decimal.Decimal("1.2346")
    assert good[0]["quantity"] == 3
    assert good[0]["occurred_at"] == dt.datetime(2026, 1, 2, 8, tzinfo=dt.UTC)
    assert good[1]["price"] is None


def test_windows_go_by_arrival_where_the_source_has_it():
    late = event(occurred_at="2025-12-20", user_id="late")
    stale = event(user_id="stale")
    ahead = event(occurred_at="2026-01-03", user_id="ahead")
    unknown = event(user_id="unknown")
    batch = batch_of(EVENTS, [late, stale, ahead, unknown])
    arrivals = pa.array(["2026-01-02", "2025-12-31", "2026-01-02", None])
    batch = batch.append_column("received_at", arrivals)
    asked = check_rows(EVENTS, batch, WINDOW, holds_all_days=False)
    assert asked.good.column("user_id").to_pylist() == ["late", "unknown"]
    assert asked.quarantined.column("reason").to_pylist() == ["outside_window", "future_timestamp"]
    assert asked.on_last_day == 1
    everything = check_rows(EVENTS, batch, WINDOW, holds_all_days=True)
    assert everything.good.column("user_id").to_pylist() == ["late", "unknown"]
    assert everything.quarantined.column("source_position").to_pylist() == [3]
    assert everything.outside == 1


def test_optional_values_that_cannot_be_read_are_counted():
    fine = {name: pool[0][0] for name, pool in CATALOG_POOL.items()}
    rows = [fine | {"rating": "x", "created_at": "x"}, fine | {"rating": None, "created_at": ""}]
    checked = check_rows(CATALOG, batch_of(CATALOG, rows), WINDOW, holds_all_days=True)
    assert checked.good.num_rows == 2
    assert dict(checked.unreadable) == {"rating": 1, "created_at": 1}


def test_stock_is_never_below_zero_and_always_fits():
    fine = {name: pool[0][0] for name, pool in CATALOG_POOL.items()}
    rows = [fine | {"stock": stock} for stock in ("-3", "0", "2.7", "99999999999")]
    good = check_rows(CATALOG, batch_of(CATALOG, rows), WINDOW, holds_all_days=True).good
    assert good.column("stock").to_pylist() == [0, 0, 2, 2**31 - 1]


def test_a_column_that_nothing_can_be_read_from_is_named():
    batch = batch_of(EVENTS, [event()])
    with pytest.raises(SchemaError, match="lacks price"):
        check_rows(EVENTS, batch.drop_columns(["price"]), WINDOW, holds_all_days=True)
    listed = batch.set_column(1, "item_id", pa.array([["i"]]))
    with pytest.raises(SchemaError, match="column item_id is list"):
        check_rows(EVENTS, listed, WINDOW, holds_all_days=True)


def test_row_hashes_tell_rows_apart_and_hold_nothing_of_them():
    rows = [
        event(user_id=None, item_id="secret"),
        event(user_id="", item_id="secret"),
        event(user_id=None, item_id="other"),
    ]
    batch = batch_of(EVENTS, [*rows, rows[0]])
    hashes = check_rows(EVENTS, batch, WINDOW, holds_all_days=True).quarantined.column("row_hash").to_pylist()
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]
    assert all(len(value) == 16 and set(value) <= set("0123456789abcdef") for value in hashes)


def test_content_hashes_cover_maps_and_slices():
    maps = pa.array([[("a", "1")], [], None, [("a", "1")], [("a", None)]], PROPERTIES)
    hashes = content_hashes(pa.RecordBatch.from_arrays([maps], names=["properties"]))
    assert hashes[0] == hashes[3]
    assert len(set(hashes.tolist())) == 4
    sliced = content_hashes(pa.RecordBatch.from_arrays([maps], names=["properties"]).slice(2, 2))
    assert sliced.tolist() == hashes[2:4].tolist()
