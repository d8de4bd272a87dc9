"""The demo shop's SQLite database: made once, then extended by the days that are missing.

Instants are text, `YYYY-MM-DDTHH:MM:SS.ffffffZ`, always 27 characters: they compare as text in the order of time, and
read back through ADBC as one Arrow type (SQLite has no type for instants, and ADBC takes a column's type from its
first rows, so a column that mixed forms would fail half-way). For the same reason prices are REAL in every row, never
integers, and no column that an export selects starts with a long run of nulls.

`items` holds each item as it is at the end of the last day. What changes from day to day is in `item_history`: a row
from midnight of each day on which price or stock differs from the day before. `delisted_at` and `unsubscribed_at` are
null until that day is in the database. So a query with an instant finds the same rows whatever days were added later:
docs/examples/demo_shop.toml has the three queries.

Each day is one transaction, and `shop` says which days are in: a killed run leaves whole days, and the next goes on.
"""

import datetime as dt
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.demo_shop.catalog_model import Catalog
from jobs.demo_shop.event_model import received_events
from jobs.demo_shop.shop_plan import DAY_US, Shop, day_date, day_number
from jobs.demo_shop.shop_tables import (
    USER_ID_DIGITS,
    cents,
    events_table,
    image_urls,
    item_ids,
    items_table,
    padded,
    users_table,
)
from jobs.demo_shop.user_model import UserBlock
from schemas.errors import ConfigError, StorageError

log = logging.getLogger(__name__)

MODEL_VERSION: Final = 1  # of the generated rows; databases of another version cannot be extended
CENTS: Final = 100.0

CREATE: Final = (
    "CREATE TABLE shop (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE users (
        user_id TEXT PRIMARY KEY, email TEXT UNIQUE, is_subscribed INTEGER NOT NULL, locale TEXT NOT NULL,
        country TEXT NOT NULL, age_band TEXT, gender TEXT, created_at TEXT NOT NULL, unsubscribed_at TEXT
    ) WITHOUT ROWID""",
    """CREATE TABLE items (
        item_id TEXT PRIMARY KEY, title TEXT NOT NULL, category TEXT NOT NULL, brand TEXT NOT NULL, price REAL NOT NULL,
        currency TEXT NOT NULL, stock INTEGER NOT NULL, rating REAL NOT NULL, url TEXT NOT NULL,
        image_url TEXT NOT NULL, color TEXT NOT NULL, material TEXT NOT NULL, weight_grams INTEGER NOT NULL,
        created_at TEXT NOT NULL, delisted_at TEXT
    ) WITHOUT ROWID""",
    """CREATE TABLE item_history (
        item_id TEXT NOT NULL, valid_from TEXT NOT NULL, price REAL NOT NULL, stock INTEGER NOT NULL,
        PRIMARY KEY (item_id, valid_from)
    ) WITHOUT ROWID""",
    """CREATE TABLE events (
        event_id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL, event_type TEXT NOT NULL,
        occurred_at TEXT NOT NULL, received_at TEXT NOT NULL, quantity INTEGER NOT NULL, price REAL NOT NULL
    )""",
    "CREATE INDEX events_by_received_at ON events (received_at)",
    "CREATE INDEX events_by_occurred_at ON events (occurred_at)",
)


@dataclass(frozen=True)
class ShopSummary:
    """What is in the database, and how many days this call added."""

    users: int
    items: int
    events: int
    last_date: dt.date
    days_added: int


def make_shop(
    path: Path,
    shop: Shop,
    *,
    last_date: dt.date,
    image_base_url: str,
    on_day: Callable[[dt.date], None] | None = None,
) -> ShopSummary:
    """Make the database, or add the days that are missing up to `last_date`; do nothing if none is.

    `on_day` is called after each day that was added. Another `image_base_url` than last time rewrites the items' image
    addresses and nothing else.

    Raises: ConfigError if the file is not this shop's database or `last_date` is before the first; StorageError if the
    database cannot be written.
    """
    if last_date < shop.first_date:
        raise ConfigError(
            f"last date {last_date} is before the first date {shop.first_date}; expected the same day or a later one. "
            "Change --last-date or --first-date."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder; expected the one to make {path.name} in. Create it.")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return _Writer(connection, path, shop).extend(last_date, image_base_url, on_day)
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{path}: {error}; expected a database file that can be written. "
            "Check the free disk space, the permissions and that no other program holds it, and run it again: "
            "whole days are kept."
        ) from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"{path}: {error}; expected the demo shop's SQLite database or no file. "
            "Give another path, or delete the file."
        ) from error


class _Writer:
    """Writes one shop's days into one open database."""

    def __init__(self, connection: sqlite3.Connection, path: Path, shop: Shop) -> None:
        self._connection, self._path, self._shop = connection, path, shop

    def extend(self, last_date: dt.date, image_base_url: str, on_day: Callable[[dt.date], None] | None) -> ShopSummary:
        stored = self._stored_settings()
        self._compare(stored)
        last_day = day_number(last_date)
        begun = "last_date" in stored
        done = day_number(dt.date.fromisoformat(stored["last_date"])) if begun else self._shop.first_day - 1
        if begun and stored["image_base_url"] != image_base_url:
            self._move_images(image_base_url)
        if last_day > done:
            self._add_days(done + 1, last_day, image_base_url, on_day)
        return self._summary(max(last_day - done, 0))

    def _stored_settings(self) -> dict[str, str]:
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return {}
        if "shop" not in tables:
            raise ConfigError(
                f"{self._path} is a database without the table shop; expected the demo shop's or no file. "
                "Give another path: nothing was written to this one."
            )
        return dict(self._connection.execute("SELECT name, value FROM shop"))

    def _settings(self) -> dict[str, str]:
        return {
            "model_version": str(MODEL_VERSION),
            "seed": str(self._shop.seed),
            "users": str(self._shop.users),
            "items": str(self._shop.items),
            "first_date": str(self._shop.first_date),
        }

    def _compare(self, stored: dict[str, str]) -> None:
        differences = [
            f"{name} is {stored.get(name)} there, {value} was asked for"
            for name, value in self._settings().items()
            if stored and stored.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"{self._path} is another demo shop: {'; '.join(differences)}. Expected the same options as when it "
                "was made. Give them, give another path, or delete the file to have it made anew."
            )

    def _add_days(self, first: int, last: int, image_base_url: str, on_day: Callable[[dt.date], None] | None) -> None:
        shop = self._shop
        catalog = Catalog(shop, last)
        ids = item_ids(catalog)
        blocks = [UserBlock(shop, block) for block in range(shop.blocks_on(last))]
        streams = zip(*(_event_tables(catalog, ids, users, first, last) for users in blocks), strict=True)
        self._connection.execute("PRAGMA cache_size = -65536")  # 64 MB: the indexes of the default size stay in memory
        for day, arrived in zip(range(first, last + 1), streams, strict=True):
            with _transaction(self._connection) as connection:
                if day == shop.first_day:
                    for statement in CREATE:
                        connection.execute(statement)
                self._put_items(catalog, ids, day, image_base_url)
                for users in blocks:
                    self._put_users(users, day)
                self._put_events(arrived)
                settings = self._settings() | {"last_date": str(day_date(day)), "image_base_url": image_base_url}
                connection.executemany("INSERT OR REPLACE INTO shop VALUES (?, ?)", list(settings.items()))
            if on_day is not None:
                on_day(day_date(day))
        log.info("%s: %d days added, up to %s", self._path.name, last - first + 1, day_date(last))

    def _put_items(self, catalog: Catalog, ids: Any, day: int, image_base_url: str) -> None:
        """Insert what is new, and note what is different from the day before."""
        shop, midnight = self._shop, f"{day_date(day)}T00:00:00.000000Z"
        known = 0 if day == shop.first_day else shop.items_on(day - 1)
        self._insert("items", items_table(catalog, np.arange(known, shop.items_on(day)), day, image_base_url))

        old = np.arange(known)
        is_changed = (catalog.prices(old, day) != catalog.prices(old, day - 1)) | (
            catalog.stock(old, day) != catalog.stock(old, day - 1)
        )
        changed = np.concatenate([np.flatnonzero(is_changed), np.arange(known, shop.items_on(day))])
        names = ids.take(pa.array(changed)).to_pylist()
        prices = (catalog.prices(changed, day) / CENTS).tolist()
        states = list(zip(names, prices, catalog.stock(changed, day).tolist(), strict=True))
        self._connection.executemany(
            "INSERT INTO item_history VALUES (?, ?, ?, ?)",
            [(name, midnight, price, stock) for name, price, stock in states],
        )
        self._connection.executemany(
            "UPDATE items SET price = ?, stock = ? WHERE item_id = ?",
            [(price, stock, name) for name, price, stock in states],
        )
        gone = ids.take(pa.array(np.flatnonzero(catalog.delisted_day[:known] == day))).to_pylist()
        self._connection.executemany(
            "UPDATE items SET delisted_at = ? WHERE item_id = ?", [(midnight, name) for name in gone]
        )

    def _put_users(self, users: UserBlock, day: int) -> None:
        """Insert who joins, and note who of the others unsubscribes."""
        known = 0 if day == self._shop.first_day else users.members(day - 1)
        self._insert("users", users_table(users, np.arange(known, users.members(day)), day))
        leaving = users_table(users, np.flatnonzero(users.unsubscribed_us[:known] // DAY_US == day), day)
        self._connection.executemany(
            "UPDATE users SET is_subscribed = 0, unsubscribed_at = ? WHERE user_id = ?",
            list(zip(_values(leaving["unsubscribed_at"]), leaving["user_id"].to_pylist(), strict=True)),
        )

    def _put_events(self, arrived: tuple[pa.Table, ...]) -> None:
        """Number the day's events in the order in which the shop received them, over all blocks."""
        events = arrived[0]
        if len(arrived) > 1:
            order = ("received_at", "user_id", "item_id", "event_type")
            events = pa.concat_tables(arrived).sort_by([(name, "ascending") for name in order])
        (last_id,) = self._connection.execute("SELECT COALESCE(MAX(event_id), 0) FROM events").fetchone()
        numbers = pa.array(np.arange(last_id + 1, last_id + 1 + len(events)))
        self._insert("events", events.set_column(0, "event_id", numbers))

    def _insert(self, table: str, rows: pa.Table) -> None:
        places = ", ".join("?" * rows.num_columns)
        statement = f"INSERT INTO {table} ({', '.join(rows.column_names)}) VALUES ({places})"  # noqa: S608 (own names)
        self._connection.executemany(statement, zip(*(_values(column) for column in rows.columns), strict=True))

    def _move_images(self, image_base_url: str) -> None:
        with _transaction(self._connection) as connection:
            (names,) = zip(*connection.execute("SELECT item_id FROM items"), strict=True)
            urls = image_urls(pa.array(names), image_base_url).to_pylist()
            connection.executemany(
                "UPDATE items SET image_url = ? WHERE item_id = ?", list(zip(urls, names, strict=True))
            )
            connection.execute("UPDATE shop SET value = ? WHERE name = 'image_base_url'", (image_base_url,))

    def _summary(self, days_added: int) -> ShopSummary:
        (last,) = self._connection.execute("SELECT value FROM shop WHERE name = 'last_date'").fetchone()
        last_date = dt.date.fromisoformat(last)
        day = day_number(last_date)
        (events,) = self._connection.execute("SELECT COALESCE(MAX(event_id), 0) FROM events").fetchone()
        return ShopSummary(
            users=self._shop.users_on(day),
            items=self._shop.items_on(day),
            events=events,
            last_date=last_date,
            days_added=days_added,
        )


def _event_tables(catalog: Catalog, ids: Any, users: UserBlock, first: int, last: int) -> Iterator[pa.Table]:
    """Give the block's events day after day, not numbered yet."""
    user_ids = padded(users.numbers, USER_ID_DIGITS)
    for _, events in received_events(catalog, users, first, last):
        yield events_table(events, user_ids, ids, 0)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Turn a column into what SQLite stores: instants as text, money as floating point."""
    values: list[Any]
    if pa.types.is_timestamp(column.type):
        values = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
    elif pa.types.is_decimal(column.type):
        values = (cents(column) / CENTS).tolist()
    else:
        values = column.to_pylist()
    return values


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit all or nothing, whatever ends it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
