"""One small shop in every form that a source can have, and its export."""

import contextlib
import csv
import datetime as dt
import gzip
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.export_table import main
from jobs.lake.lake import Lake
from jobs.quality.override import GateOverride
from schemas.layout import Partition

DATE = dt.date(2026, 3, 2)
COLUMNS = {
    "events": ("user_id", "item_id", "event_type", "occurred_at", "quantity", "price"),
    "catalog": ("item_id", "title", "url", "image_url", "category", "price", "currency", "stock", "rating", "color"),
    "users": ("user_id", "email", "is_subscribed", "locale", "country"),
}
Rows = dict[str, list[tuple[object, ...]]]


def shop_rows() -> Rows:
    """Two days of events by users whose ids try everything, and rows of every day around them."""
    users = ["007", "7", "7 ", "ü", "😀", "a'b", 'a"b', "a,b", "a\nb", *(f"user-{n}" for n in range(60))]
    kinds = ["view", "cart_add", "purchase", "refund"]
    start = dt.datetime(2026, 2, 28, tzinfo=dt.UTC)
    events = [
        (
            users[n * 7 % len(users)],
            f"{n % 40:03}",
            kinds[n % 4],
            (start + dt.timedelta(minutes=8 * n, microseconds=n)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            n % 3 + 1,
            None if n % 5 == 0 else round(n * 0.37, 2),
        )
        for n in range(700)
    ]
    catalog = [
        (
            f"{n:03}", f"Item {n}, \"large\"", f"https://shop.example.com/{n}", f"https://shop.example.com/{n}.png",
            None if n % 3 else "a > b", round(n * 1.1 + 0.25, 2), "EUR", n % 7, None if n % 4 else 4.5,
            None if n % 2 else "red",
        )
        for n in range(40)
    ]  # fmt: skip
    people = [
        (user, None if n % 9 == 0 else f"User.{n}@Example.com", n % 2 == 0, "en-GB" if n % 3 else None, "DE")
        for n, user in enumerate(users)
    ]
    return {"events": events, "catalog": catalog, "users": people}


FILES_SETTINGS = """
kind = "files"
name = "small"
default_date = 2026-03-02
history_days = 2
data_folder = "."
[events]
path = "events{suffix}"
[events.columns]
user_id = "user_id"
item_id = "item_id"
event_type = "event_type"
occurred_at = "occurred_at"
quantity = "quantity"
price = "price"
[catalog]
path = "catalog{suffix}"
properties = ["color"]
[catalog.columns]
item_id = "item_id"
title = "title"
url = "url"
image_url = "image_url"
category = "category"
price = "price"
currency = "currency"
stock = "stock"
rating = "rating"
[users]
path = "users{suffix}"
properties = ["country"]
[users.columns]
user_id = "user_id"
email = "email"
is_subscribed = "is_subscribed"
locale = "locale"
"""

SQL_SETTINGS = """
kind = "sql"
name = "small"
history_days = 2
{place}
[events]
query = '''
  SELECT user_id, item_id, event_type, occurred_at, quantity, price FROM events  -- not :bound
  WHERE occurred_at >= :window_start AND occurred_at < :window_end AND ':window_end' <> '' ORDER BY n
'''
[catalog]
query = "SELECT {catalog} FROM catalog ORDER BY n -- all"
[users]
query = "SELECT {users} FROM users ORDER BY n"
"""


def sql_settings(folder: Path, place: str) -> Path:
    path = folder / "sql.toml"
    columns = {table: ", ".join(COLUMNS[table]) for table in ("catalog", "users")}
    path.write_text(SQL_SETTINGS.format(place=place, **columns))
    return path


def make_csv(folder: Path, rows: Rows, suffix: str = ".csv") -> Path:
    for table, values in rows.items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS[table])
            writer.writerows(values)
    (folder / "files.toml").write_text(FILES_SETTINGS.format(suffix=suffix))
    return folder / "files.toml"


def make_json(folder: Path, rows: Rows) -> Path:
    for table, values in rows.items():
        with gzip.open(folder / f"{table}.jsonl.gz", "wt") as file:
            for row in values:
                file.write(json.dumps(dict(zip(COLUMNS[table], row, strict=True))) + "\n")
    (folder / "files.toml").write_text(FILES_SETTINGS.format(suffix=".jsonl.gz"))
    return folder / "files.toml"


def make_parquet(folder: Path, rows: Rows) -> Path:
    for table, values in rows.items():
        columns = {name: [row[place] for row in values] for place, name in enumerate(COLUMNS[table])}
        if table == "events":
            columns["occurred_at"] = [dt.datetime.fromisoformat(text) for text in columns["occurred_at"]]
        pq.write_table(pa.table(columns), folder / f"{table}.parquet", row_group_size=97)
    (folder / "files.toml").write_text(FILES_SETTINGS.format(suffix=".parquet"))
    return folder / "files.toml"


SQL_TYPES = {
    "quantity": "BIGINT",
    "stock": "INTEGER",
    "is_subscribed": "BOOLEAN",
    "price": "NUMERIC(12, 2)",
    "rating": "REAL",
}


def make_sqlite(folder: Path, rows: Rows) -> Path:
    with contextlib.closing(sqlite3.connect(folder / "shop.sqlite")) as database:
        for table, values in rows.items():
            columns = ", ".join(COLUMNS[table])
            database.execute(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY, {columns})")
            marks = ", ".join("?" * len(COLUMNS[table]))
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608
        database.commit()
    return sql_settings(folder, 'uri = "sqlite:///{data}"\ndata_path = "shop.sqlite"')


def make_postgresql(folder: Path, rows: Rows, uri: str, instant: str = "TIMESTAMPTZ") -> Path:
    import adbc_driver_postgresql.dbapi as postgresql

    with postgresql.connect(uri) as connection, connection.cursor() as cursor:
        for table, values in rows.items():
            kinds = SQL_TYPES | {"occurred_at": instant}
            columns = ", ".join(f"{name} {kinds.get(name, 'TEXT')}" for name in COLUMNS[table])
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
            cursor.execute(f"CREATE TABLE {table} (n SERIAL PRIMARY KEY, {columns})")
            for row in values:
                written = ", ".join(map(_sql, row))
                cursor.execute(f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ({written})")  # noqa: S608
        connection.commit()
    return sql_settings(folder, 'connection = "shop_default"')


def _sql(value: object) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, bool | int | float) else "'" + str(value).replace("'", "''") + "'"


@dataclass(frozen=True)
class Export:
    """Exports of one settings file into one lake."""

    lake: Path
    settings: Path
    source_uri: str | None = None
    override: GateOverride | None = None

    def run(self, table: str, date: dt.date = DATE, *, run_id: str = "r1", buckets: int | None = None, data=None):
        return main(
            lake=str(self.lake), table=table, date=date, source=self.settings, data=data, run_id=run_id,
            buckets=buckets or 4, source_uri=self.source_uri, override=self.override,
        )  # fmt: skip

    def read(self, table: str, date: dt.date = DATE) -> pa.Table:
        lake = Lake.open(str(self.lake))
        return lake.read(lake.manifest(Partition(table, date)))

    def content(self, table: str, date: dt.date = DATE) -> str | None:
        manifest = Lake.open(str(self.lake)).find(Partition(table, date))
        return manifest and manifest.content_sha256

    def attempts(self) -> list[Path]:
        return sorted(self.lake.glob("*/*/run=*/attempt=*"))
