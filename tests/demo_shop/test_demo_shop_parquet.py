"""The Parquet shop holds the rows of the SQLite shop, whatever the number of workers."""

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.demo_shop import parquet_shop
from jobs.demo_shop.parquet_shop import ParquetSummary, write_parquet_shop
from jobs.demo_shop.shop_plan import BLOCK, Shop
from jobs.demo_shop.shop_tables import EVENTS_SCHEMA, ITEMS_SCHEMA, USERS_SCHEMA
from jobs.demo_shop.sqlite_shop import make_shop
from schemas.errors import ConfigError, StorageError

FIRST = dt.date(2026, 11, 2)
DAYS = 3
IMAGES = "http://127.0.0.1:8085/images"


def write(folder: Path, users: int, workers: int = 1) -> ParquetSummary:
    shop = Shop.plan(seed=7, users=users, first_date=FIRST)
    return write_parquet_shop(folder, shop, days=DAYS, image_base_url=IMAGES, workers=workers)


def plain(value: Any) -> Any:
    """A value as SQLite stores it."""
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value if value is None or isinstance(value, str | int) else float(value)


def test_parquet_holds_what_sqlite_holds(tmp_path: Path) -> None:
    summary = write(tmp_path / "parquet", 2_000)
    shop = Shop.plan(seed=7, users=2_000, first_date=FIRST)
    last_date = FIRST + dt.timedelta(days=DAYS - 1)
    made = make_shop(tmp_path / "shop.sqlite", shop, last_date=last_date, image_base_url=IMAGES)
    assert (summary.users, summary.items, summary.events) == (made.users, made.items, made.events)
    assert made.events > 5_000
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        for name, schema in (("users", USERS_SCHEMA), ("items", ITEMS_SCHEMA), ("events", EVENTS_SCHEMA)):
            table = pq.read_table(tmp_path / "parquet" / name)
            assert table.schema.equals(schema), name
            cursor = connection.execute(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608 (names of the test)
            assert [column[0] for column in cursor.description] == schema.names
            skipped = 1 if name == "events" else 0  # event_id: numbered by block there, by receipt here
            written = [tuple(plain(value) for value in row.values())[skipped:] for row in table.to_pylist()]
            assert written == [row[skipped:] for row in cursor.fetchall()]


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    one, two = (write(tmp_path / str(workers), BLOCK + 5_000, workers) for workers in (1, 2))
    assert one == two
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.parquet"))
    assert len(files) == 2 * DAYS + 2 + 1
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    ids = pq.read_table(tmp_path / "1" / "events", columns=["event_id"])["event_id"].to_pylist()
    assert len(set(ids)) == len(ids) == one.events


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        write(tmp_path, 2_000)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="workers is 0"):
        write(tmp_path / "new", 2_000, workers=0)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_shop, "_write_items", full)
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path / "new", 2_000)
    assert list(tmp_path.iterdir()) == []
