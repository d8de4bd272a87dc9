"""PostgreSQL through ADBC."""

import contextlib
import datetime as dt
import re
from collections.abc import Iterator

import adbc_driver_postgresql.dbapi as postgresql
import pyarrow as pa

from jobs.sources.column_kinds import kind_of
from jobs.sources.database import Columns, Parameters
from schemas.errors import ConfigError
from schemas.sql_parameters import bind_names


class PostgresqlDatabase:
    """A server, asked by a session that reads only and counts in UTC."""

    def __init__(self, uri: str) -> None:
        try:
            self._connection = postgresql.connect(uri, autocommit=True)
        except postgresql.Error as error:
            # The driver's message may quote the URI, password and all.
            raise ConfigError(
                f"PostgreSQL cannot be reached ({type(error).__name__}); check host, port, user and password of the "
                f"source's connection"
            ) from None
        with self._connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute("SET default_transaction_read_only = on")

    @contextlib.contextmanager
    def stream(self, query: str, parameters: Parameters) -> Iterator[tuple[Columns, Iterator[pa.RecordBatch]]]:
        # Typed literals of instants that are ours, not bound values: with bound values the driver fetches the whole
        # result as one batch (3 million rows: 1,286 MB), without them it streams a COPY (164 MB).
        # The line break ends a comment that the query may end in, before what the driver puts behind it.
        bound = bind_names(query, lambda name: _literal(parameters[name])) + "\n"
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(bound)
                rows = cursor.fetch_record_batch()
            except postgresql.Error as error:
                raise ConfigError(f"PostgreSQL refused the query: {_harmless(error)}") from None
            with rows:
                yield [(field.name, kind_of(field.type)) for field in rows.schema], _batches(rows)

    def close(self) -> None:
        self._connection.close()


def _batches(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = rows.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException, postgresql.Error) as error:
            raise ConfigError(
                f"PostgreSQL broke off while it was read: {_without_values(error)}. Nothing was exported; "
                f"correct the query if it is to blame, or try again"
            ) from None
        yield batch


def _without_values(error: Exception) -> str:
    """Keep what the server says in its first line, without what may be a row's values."""
    found = re.search(r"ERROR:\s*([^\n]*)", str(error))
    if found is None:
        return type(error).__name__
    return re.sub(r"""\"[^"]*"|'[^']*'|\([^)]*\)=\([^)]*\)|\d+""", "…", found[1])


def _literal(instant: dt.datetime) -> str:
    return f"TIMESTAMPTZ '{instant.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'"


def _harmless(error: postgresql.Error) -> str:
    """Name tables and columns (SQLSTATE class 42: the statement itself is wrong); of other errors the code alone."""
    state = getattr(error, "sqlstate", None) or "no SQLSTATE"
    if state.startswith("42"):
        return str(error).splitlines()[0]
    return f"SQLSTATE {state}"
