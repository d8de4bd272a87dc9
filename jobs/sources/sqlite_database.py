"""SQLite through ADBC."""

import contextlib
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import adbc_driver_sqlite.dbapi as sqlite
import pyarrow as pa
import pyarrow.compute as pc

from jobs.quality.casts import as_mask, keep
from jobs.sources.database import Columns, Parameters
from schemas.errors import ConfigError
from schemas.sql_parameters import bind_names, parameter_names

_BATCH_ROWS: Final = 65_536
_TWIN: Final = re.compile(r":\d+$")
# The driver takes a column's type from its first batch, where nothing but nulls is int64 to it, and fails on the first
# later value of another type. So everything comes as text that is never null: a mark and then the value. The row rules
# read numbers and instants from text.
_AS_TEXT: Final = "IFNULL('=' || {name}, '-') AS {name}"
_NULL: Final = b"-"


class SqliteDatabase:
    """A database file, opened for reading only: a wrong path never makes an empty shop."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(
                f"the database {path} does not exist; make the demo shop first, or say where the database is (--data)"
            )
        try:
            self._connection = sqlite.connect(f"file:{quote(str(path.absolute()))}?mode=ro")
        except sqlite.Error as error:
            raise ConfigError(
                f"the database {path} cannot be opened; check that it is SQLite and its rights"
            ) from error

    @contextlib.contextmanager
    def stream(self, query: str, parameters: Parameters) -> Iterator[tuple[Columns, Iterator[pa.RecordBatch]]]:
        used = sorted(parameter_names(query))
        values = tuple(_as_text(parameters[name]) for name in used)
        bound = bind_names(query, lambda name: f"?{used.index(name) + 1}")
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_BATCH_ROWS)})
            try:
                # Line breaks, because the query may end in a comment. The query is the settings' own.
                cursor.execute(f"SELECT * FROM (\n{bound}\n) LIMIT 0", values)  # noqa: S608
                names: list[str] = cursor.fetch_arrow_table().column_names
                quoted = ['"' + name.replace('"', '""') + '"' for name in names]
                columns = ", ".join(_AS_TEXT.format(name=name) for name in quoted)
                cursor.execute(f"SELECT {columns} FROM (\n{bound}\n)", values)  # noqa: S608
            except sqlite.Error as error:
                # A refusal comes while the statement is prepared: it names tables and columns, no row's values.
                raise ConfigError(f"SQLite refused the query: {str(error).splitlines()[0]}") from error
            with cursor.fetch_record_batch() as rows:
                # SQLite calls the second `a` of a subquery `a:1`.
                given = [_TWIN.sub("", name) if _TWIN.sub("", name) in names else name for name in names]
                # A column of SQLite has no type; each of its values has one.
                yield [(name, "text") for name in given], _batches(rows)

    def close(self) -> None:
        self._connection.close()


def _batches(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = rows.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException, sqlite.Error) as error:
            raise ConfigError(
                f"SQLite broke off while it was read ({type(error).__name__}); nothing was exported: check the "
                f"database with PRAGMA integrity_check"
            ) from error
        yield pa.RecordBatch.from_arrays([_unmarked(column) for column in batch.columns], names=batch.schema.names)


def _unmarked(column: pa.Array) -> pa.Array:
    # As bytes: SQLite does not check that its text is UTF-8. Not `binary_slice`: in pyarrow 25 it fails on a column
    # whose values are all one byte long.
    marked = column.cast(pa.binary())
    return keep(pc.binary_replace_slice(marked, 0, 1, b""), ~as_mask(pc.equal(marked, _NULL)))


def _as_text(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
