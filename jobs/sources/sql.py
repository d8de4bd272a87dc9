"""A shop that is a database: one query per table, whose result has the table's column names."""

import contextlib
from collections.abc import Callable, Iterator

import pyarrow as pa

from jobs.lake.manifest import Window
from jobs.quality.row_rules import POSITION
from jobs.sources.database import Database, Parameters
from jobs.sources.mapping import numbered, property_map
from schemas.errors import SchemaError
from schemas.source import PROPERTIES_COLUMN, QueryTable, SqlSettings, helper_columns
from schemas.tables import EVENTS, Table


class SqlSource:
    """Asks a database for exactly the window."""

    holds_all_days = False

    def __init__(self, settings: SqlSettings, connect: Callable[[], Database]) -> None:
        self.name = settings.name
        self._settings = settings
        self._connect = connect

    def batches(self, table: Table, window: Window) -> Iterator[pa.RecordBatch]:
        query: QueryTable = getattr(self._settings, table.name)
        position = 1
        with (
            contextlib.closing(self._connect()) as database,
            database.stream(query.query, _parameters(table, window)) as (names, results),
        ):
            extra = _check_columns(table, names)
            for rows in results:
                columns = {name: pa.nulls(rows.num_rows) for name in table.schema.names}
                columns |= {name: rows.column(name) for name in names if name not in extra}
                if PROPERTIES_COLUMN in columns:
                    columns[PROPERTIES_COLUMN] = property_map(rows, extra)
                yield numbered(columns, position)
                position += rows.num_rows


def _parameters(table: Table, window: Window) -> Parameters:
    if table is EVENTS:
        return {"window_start": window.start_at, "window_end": window.end_at}
    return {"snapshot_at": window.end_at}


def _check_columns(table: Table, names: list[str]) -> list[str]:
    """Name the columns that become properties."""
    known = [name for name in table.schema.names if name != PROPERTIES_COLUMN]
    problems = []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"{', '.join(twice)} more than once")
    if POSITION.name in names or PROPERTIES_COLUMN in names:
        problems.append(f"a column called {POSITION.name} or {PROPERTIES_COLUMN}, which ryml makes itself")
    if missing := [field.name for field in table.schema if not field.nullable and field.name not in names]:
        problems.append(f"no column {', '.join(missing)}")
    extra = [name for name in names if name not in (*known, *helper_columns(table))]
    if extra and PROPERTIES_COLUMN not in table.schema.names:
        problems.append(f"{', '.join(extra)}, which {table.name} has no place for")
    if problems:
        raise SchemaError(
            f"the query of {table.name} gives {'; '.join(problems)}. Expected {', '.join(known)}: "
            f"name the result's columns so (AS) in the source settings"
        )
    return extra
