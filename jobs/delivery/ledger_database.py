"""The ledger's database: opened and checked, with one way to write and one to read."""

import contextlib
import datetime as dt
import importlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from jobs.delivery import ledger_tables
from jobs.delivery.ledger_tables import SCHEMA_VERSION, keys
from schemas.errors import ConfigError

Clock = Callable[[], dt.datetime]

_WAIT = wait_random_exponential(0.05, max=1)


class LedgerDatabase:
    """A database by URL; its tables are made on first use."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Open it.

        Raises: ConfigError if its tables are of another version than this code's.
        """
        self._clock = clock
        self._engine = sa.create_engine(url)
        # Its own dialect alone: the other one takes as long to load as the rest of the ledger.
        self._insert = importlib.import_module(f"sqlalchemy.dialects.{self._engine.dialect.name}").insert
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            # SQLite's default takes the write lock at the first write: what was read before it may be stale by then.
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._make_tables()

    def _make_tables(self) -> None:
        with self._engine.begin() as connection:
            is_old = sa.inspect(connection).has_table("plans")
            ledger_tables.metadata.create_all(connection)
            if not is_old:
                row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
                connection.execute(self._insert(keys).values(row).on_conflict_do_nothing())
            found = connection.scalar(sa.select(keys.c.value).where(keys.c.name == "schema_version"))
        if found != str(SCHEMA_VERSION):
            raise ConfigError(
                f"the ledger's tables have version {found or 1}, this code writes {SCHEMA_VERSION}; use the release "
                "that made it, or start a new ledger and run reconcile_ledger for the dates that are under way"
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction; the only way in which anything is written."""
        with self._engine.begin() as connection:
            yield connection

    def now_text(self) -> str:
        """The instant, as the ledger writes it."""
        return self._clock().isoformat()

    def now_seconds(self) -> float:
        """The instant in Unix time."""
        return self._clock().timestamp()

    def reading(self) -> sa.Connection:
        """A connection for reading, to be used as a context manager."""
        return self._engine.connect()

    def insert_or_ignore(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
        """Insert a row unless its key is there."""
        connection.execute(self._insert(table).values(**row).on_conflict_do_nothing())

    def key(self, name: str) -> str:
        """Return the secret key of that name (16 ASCII characters), made at random on first use."""
        with self.writing() as connection:
            self.insert_or_ignore(connection, keys, {"name": name, "value": secrets.token_hex(8)})
            return str(connection.scalar(sa.select(keys.c.value).where(keys.c.name == name)))


# Of two processes that open a new database at once, one gets "database is locked" whatever the time-out says.
@retry(retry=retry_if_exception_type(sqlite3.OperationalError), stop=stop_after_delay(10), wait=_WAIT, reraise=True)
def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by the engine's own event, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose the last commits at power loss; a lost "accepted" would be pushed twice.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
