"""The SQLite shop: extending equals making at once, nothing is torn, and an instant finds the same rows for ever."""

import datetime as dt
import hashlib
import itertools
import re
import sqlite3
import tomllib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.demo_shop import shop_plan, sqlite_shop, user_model
from jobs.demo_shop.catalog_model import Catalog
from jobs.demo_shop.shop_plan import DAY_US, Shop, day_number
from jobs.demo_shop.shop_tables import padded
from jobs.demo_shop.sqlite_shop import ShopSummary, make_shop
from jobs.demo_shop.user_model import UserBlock
from schemas.errors import ConfigError, StorageError
from schemas.source import ARRIVAL_COLUMN, load_source
from schemas.tables import CATALOG, EVENT_TYPES, EVENTS, INSTANT, MONEY

FIRST = dt.date(2026, 9, 4)
IMAGES = "http://127.0.0.1:8085/images"
TABLES = ("shop", "users", "items", "item_history", "events")
SETTINGS_FILE = Path(__file__).parents[2] / "docs/examples/demo_shop.toml"
SETTINGS = tomllib.loads(SETTINGS_FILE.read_text())


def after(days: int) -> dt.date:
    return FIRST + dt.timedelta(days=days)


def planned(users: int = 600, seed: int = 7) -> Shop:
    return Shop.plan(seed=seed, users=users, first_date=FIRST)


def make(path: Path, last_date: dt.date, shop: Shop | None = None, images: str = IMAGES) -> ShopSummary:
    return make_shop(path, shop or planned(), last_date=last_date, image_base_url=images)


def rows(path: Path, query: str, **bound: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, bound).fetchall()


def everything(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    tables = {name: rows(path, f"SELECT * FROM {name}") for name in TABLES}  # noqa: S608 (names of the test)
    assert all(tables.values())
    return tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty days of a small shop: longer than the longest journey."""
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    summary = make(path, after(59))
    assert (summary.users, summary.items, summary.days_added) == (659, 777, 60)
    assert summary.events == len(rows(path, "SELECT 1 FROM events")) > 30_000
    return path


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "again.sqlite", after(59))
    assert everything(tmp_path / "again.sqlite") == everything(made)
    make(tmp_path / "other.sqlite", after(1), planned(seed=8))
    first_events = "SELECT user_id, item_id FROM events WHERE event_id <= 500 ORDER BY event_id"
    assert rows(tmp_path / "other.sqlite", first_events) != rows(made, first_events)


def test_extending_equals_making_at_once(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    assert [make(path, after(days)).days_added for days in (0, 1, 20, 58, 59)] == [1, 1, 19, 38, 1]
    assert everything(path) == everything(made)


def test_nothing_is_written_when_nothing_is_missing(made: Path) -> None:
    before = hashlib.sha256(made.read_bytes()).digest()
    assert make(made, after(59)).days_added == 0
    assert make(made, after(30)) == make(made, after(59))
    assert hashlib.sha256(made.read_bytes()).digest() == before


def test_a_killed_run_leaves_whole_days_and_the_next_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.sqlite"
    real = sqlite_shop.events_table
    for days_done in (0, 5):
        calls = itertools.count()

        def interrupted(*args: Any, calls: Any = calls) -> pa.Table:
            if next(calls) == 5:
                raise KeyboardInterrupt
            return real(*args)

        with monkeypatch.context() as patched:
            patched.setattr(sqlite_shop, "events_table", interrupted)
            with pytest.raises(KeyboardInterrupt):
                make(path, after(59))
        assert rows(path, "SELECT value FROM shop WHERE name = 'last_date'") == [(str(after(days_done + 4)),)]
    make(path, after(59))
    assert everything(path) == everything(made)


def test_killed_before_the_first_day_is_like_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.sqlite"

    def interrupted(*args: Any) -> pa.Table:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_shop, "users_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(path, after(1))
    assert rows(path, "SELECT name FROM sqlite_master") == []
    assert make(path, after(1)).days_added == 2


def test_blocks_are_merged_in_the_order_of_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shop_plan, user_model):
        monkeypatch.setattr(module, "BLOCK", 600)
    shop = planned(users=1_795)
    assert [shop.blocks_on(shop.first_day + days) for days in (0, 9)] == [3, 4]
    make(tmp_path / "once.sqlite", after(9), shop)
    for days in (0, 4, 9):
        make(tmp_path / "twice.sqlite", after(days), shop)
    query = "SELECT * FROM events ORDER BY event_id"
    events = rows(tmp_path / "once.sqlite", query)
    assert len(events) > 10_000
    assert events == rows(tmp_path / "twice.sqlite", query)
    received = [row[5] for row in events]
    assert received == sorted(received)
    assert {int(row[1]) // 600 for row in events} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("shop", "named"),
    [
        (Shop.plan(seed=8, users=600, first_date=FIRST), "seed is 7 there, 8 was asked for"),
        (Shop.plan(seed=7, users=601, first_date=FIRST), "users is 600 there, 601 was asked for"),
        (Shop.plan(seed=7, users=600, first_date=after(1)), f"first_date is {FIRST} there"),
        (Shop.plan(seed=7, users=600, first_date=FIRST, items=700), "items is 600 there, 700 was asked for"),
    ],
)
def test_another_shop_is_refused(made: Path, shop: Shop, named: str) -> None:
    before = hashlib.sha256(made.read_bytes()).digest()
    with pytest.raises(ConfigError, match=re.escape(named)):
        make(made, after(61), shop)
    assert hashlib.sha256(made.read_bytes()).digest() == before


def test_another_model_version_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_shop, "MODEL_VERSION", 99)
    with pytest.raises(ConfigError, match="model_version"):
        make(made, after(59))


def test_files_that_are_no_demo_shop_are_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "foreign.sqlite")) as connection:
        connection.execute("CREATE TABLE events (x)")
    with pytest.raises(ConfigError, match="without the table shop"):
        make(tmp_path / "foreign.sqlite", after(1))
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be taken for one\n" * 40)
    with pytest.raises(ConfigError, match="not a database"):
        make(tmp_path / "text.sqlite", after(1))
    with pytest.raises(ConfigError, match="is not a folder"):
        make(tmp_path / "missing" / "shop.sqlite", after(1))
    with pytest.raises(ConfigError, match="before the first date"):
        make(tmp_path / "shop.sqlite", after(-1))
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StorageError, match="unable to open"):
        make(tmp_path / "folder.sqlite", after(1))


def test_a_full_disk_keeps_whole_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.sqlite"
    connect = sqlite3.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 400")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", limited)
        with pytest.raises(StorageError, match="disk is full"):
            make(path, after(20))
    ((last_date,),) = rows(path, "SELECT value FROM shop WHERE name = 'last_date'")
    assert FIRST <= dt.date.fromisoformat(last_date) < after(20)
    make(path, after(20))
    make(tmp_path / "once.sqlite", after(20))
    assert everything(path) == everything(tmp_path / "once.sqlite")


def test_another_image_address_rewrites_the_images_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    make(path, after(2))
    moved = "http://127.0.0.1:9999/images/"
    assert make(path, after(2), images=moved).days_added == 0
    make(tmp_path / "once.sqlite", after(2), images=moved)
    assert everything(path) == everything(tmp_path / "once.sqlite")
    assert rows(path, "SELECT image_url FROM items WHERE item_id = '000007'") == [
        ("http://127.0.0.1:9999/images/000007.svg",)
    ]


def test_the_settings_are_valid() -> None:
    assert load_source(SETTINGS_FILE).name == "demo_shop"


def window(days: int, length: int = 1) -> dict[str, str]:
    return {
        "window_start": f"{after(days)}T00:00:00.000000Z",
        "window_end": f"{after(days + length)}T00:00:00.000000Z",
    }


def test_every_event_is_in_one_window(made: Path) -> None:
    query = SETTINGS["events"]["query"]
    by_day = [rows(made, query, **window(days)) for days in range(60)]
    assert all(len(day) > 200 for day in by_day)
    whole = rows(made, query, **window(0, 60))
    assert [row for day in by_day for row in day] == whole
    assert len(whole) == len(rows(made, "SELECT 1 FROM events"))
    assert set(Counter(row[2] for row in whole)) == set(EVENT_TYPES)
    for row in whole[::97]:
        assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row[3])


def test_an_event_at_midnight_is_in_the_window_that_begins(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    make(path, after(2))
    with closing(sqlite3.connect(path)) as connection, connection:
        midnight = f"{after(2)}T00:00:00.000000Z"
        connection.execute("UPDATE events SET received_at = ? WHERE event_id = 1", (midnight,))
    columns = "user_id, item_id, event_type, occurred_at, received_at, quantity, price"
    (moved,) = rows(path, f"SELECT {columns} FROM events LIMIT 1")  # noqa: S608 (names of the test)
    found = [moved in rows(path, SETTINGS["events"]["query"], **window(days)) for days in range(3)]
    assert found == [False, False, True]


def test_a_snapshot_does_not_depend_on_what_came_later(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    seen = []
    for days in (0, 7, 8, 40):
        make(path, after(days))
        for name in ("catalog", "users"):
            midnight = {"snapshot_at": f"{after(days + 1)}T00:00:00.000000Z"}
            last_instant = {"snapshot_at": f"{after(days)}T23:59:59.999999Z"}
            then = rows(path, SETTINGS[name]["query"], **midnight)
            assert len(then) > 500
            assert then == rows(path, SETTINGS[name]["query"], **last_instant)
            assert then == rows(made, SETTINGS[name]["query"], **midnight)
            seen.append((name, tuple(then)))
    assert len(set(seen)) == 8


def test_the_newest_snapshot_is_the_current_state(made: Path) -> None:
    at = {"snapshot_at": f"{after(60)}T00:00:00.000000Z"}
    current = "SELECT item_id, price, stock FROM items WHERE delisted_at IS NULL ORDER BY item_id"
    snapshot = rows(made, SETTINGS["catalog"]["query"], **at)
    assert [(row[0], row[6], row[8]) for row in snapshot] == rows(made, current)
    assert len(snapshot) < 777
    shop, day = planned(), day_number(after(59))
    catalog, people = Catalog(shop, day), UserBlock(shop, 0)
    listed = np.flatnonzero(catalog.delisted_day > day)
    assert [(row[0], row[8]) for row in snapshot] == list(
        zip(padded(listed, 6).to_pylist(), catalog.stock(listed, day).tolist(), strict=True)
    )
    left = padded(np.flatnonzero(people.unsubscribed_us[:659] < (day + 1) * DAY_US), 7).to_pylist()
    assert len(left) > 8
    assert rows(made, "SELECT user_id FROM users WHERE NOT is_subscribed ORDER BY 1") == [(name,) for name in left]
    users = rows(made, SETTINGS["users"]["query"], **at)
    assert [(row[0], row[2]) for row in users] == rows(
        made, "SELECT user_id, is_subscribed FROM users ORDER BY user_id"
    )


def test_history_has_changes_only(made: Path) -> None:
    last: dict[str, tuple[float, int]] = {}
    for item_id, price, stock in rows(made, "SELECT item_id, price, stock FROM item_history ORDER BY 1, valid_from"):
        assert last.get(item_id) != (price, stock)
        last[item_id] = (price, stock)
    assert len(last) == 777


def test_windows_use_the_index(made: Path) -> None:
    plan = rows(made, f"EXPLAIN QUERY PLAN {SETTINGS['events']['query']}", **window(3))
    assert any("events_by_received_at" in row[3] for row in plan)
    indexed = rows(made, "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'events'")
    assert any("(occurred_at)" in (sql or "") for (sql,) in indexed)


def test_adbc_reads_clean_types(made: Path) -> None:
    bound = {"events": list(window(0, 60).values()), "catalog": [f"{after(60)}T00:00:00.000000Z"]}
    bound["users"] = bound["catalog"]
    read = {}
    with adbc_driver_sqlite.dbapi.connect(str(made)) as connection, connection.cursor() as cursor:
        for name, values in bound.items():
            cursor.execute(SETTINGS[name]["query"], values)
            read[name] = cursor.fetch_arrow_table()
    assert [str(kind) for kind in read["events"].schema.types] == ["string"] * 5 + ["int64", "double"]
    catalog, users = read["catalog"], read["users"]
    assert [catalog.schema.field(name).type for name in ("price", "stock", "rating")] == [
        pa.float64(), pa.int64(), pa.float64(),
    ]  # fmt: skip
    assert users.schema.field("is_subscribed").type == pa.int64()
    assert all(users.schema.field(name).type == pa.string() for name in users.column_names if name != "is_subscribed")
    assert {*EVENTS.schema.names, ARRIVAL_COLUMN} == set(read["events"].column_names)
    assert set(CATALOG.schema.names) - {"properties"} <= set(catalog.column_names)
    prices = catalog["price"].cast(MONEY)
    assert all(str(price).endswith(("4900", "9900")) for price in prices.to_pylist())
    occurred = pc.strptime(
        pc.utf8_slice_codeunits(read["events"]["occurred_at"], 0, 19), format="%Y-%m-%dT%H:%M:%S", unit="us"
    )
    assert occurred.null_count == 0
    assert pc.assume_timezone(occurred, "UTC").type == INSTANT
