"""A shop that is a database: one query per table, whose result has the table's column names."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from jobs.lake.manifest import Window
from jobs.quality.casts import has_own_zone
from jobs.quality.row_rules import POSITION
from jobs.sources.database import Database, Parameters
from jobs.sources.mapping import numbered, property_map
from jobs.sources.protocol import Reading
from schemas.errors import SchemaError
from schemas.source import ARRIVAL_COLUMN, PROPERTIES_COLUMN, EventsQuery, QueryTable, SqlSettings, helper_columns
from schemas.tables import EVENTS, INSTANT, Table

# Around a window in local time: an hour that the clock repeats or skips (two at most in the zones there are) would
# otherwise fall out at its edge. What comes in addition is passed over by its instant.
_CLOCK_CHANGE: Final = dt.timedelta(hours=3)


class SqlSource:
    """Asks a database for exactly the window."""

    def __init__(self, settings: SqlSettings, connect: Callable[[], Database]) -> None:
        self.name = settings.name
        self._settings = settings
        self._connect = connect

    @contextlib.contextmanager
    def reading(
        self, table: Table, window: Window, *, known_columns: frozenset[str] | None = None
    ) -> Iterator[Reading]:
        query: QueryTable = getattr(self._settings, table.name)
        with (
            contextlib.closing(self._connect()) as database,
            database.stream(query.query, _parameters(table, window, query.timezone)) as (columns, results),
        ):
            names = [name for name, _ in columns]
            late_days = query.late_days if isinstance(query, EventsQuery) else 0
            extra = _check_columns(table, names, known_columns, late_days)
            ignored = [] if PROPERTIES_COLUMN in table.schema.names else extra
            yield Reading(
                columns=dict(columns),
                used=frozenset(names) - frozenset(ignored),
                batches=_mapped(table, query, names, extra, results),
                holds_all_days=query.timezone is not None,
            )


def _mapped(
    table: Table, query: QueryTable, names: list[str], extra: list[str], results: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    position = 1
    for rows in results:
        columns = {name: pa.nulls(rows.num_rows) for name in table.schema.names}
        columns |= {name: rows.column(name) for name in names if name not in extra}
        if PROPERTIES_COLUMN in columns:
            columns[PROPERTIES_COLUMN] = property_map(rows, extra)
        if query.timezone is not None:
            _check_local(table, columns, query.timezone)
        yield numbered(columns, position)
        position += rows.num_rows


def _parameters(table: Table, window: Window, timezone: str | None) -> Parameters:
    margin = _CLOCK_CHANGE if timezone is not None else dt.timedelta()
    if table is EVENTS:
        return {
            "window_start": _wall_time(window.start_at, timezone) - margin,
            "window_end": _wall_time(window.end_at, timezone) + margin,
        }
    return {"snapshot_at": _wall_time(window.end_at, timezone)}


def _wall_time(instant: dt.datetime, timezone: str | None) -> dt.datetime:
    """Give what the shop's clocks showed, written as if it were UTC, as the shop writes it."""
    return instant if timezone is None else instant.astimezone(ZoneInfo(timezone)).replace(tzinfo=dt.UTC)


def _check_local(table: Table, columns: dict[str, pa.Array], timezone: str) -> None:
    """Refuse instants with a zone of their own where the window was asked for in local time: it would miss some."""
    instants = [field.name for field in table.schema if field.type == INSTANT]
    for name in (*instants, *helper_columns(table)):
        if name in columns and has_own_zone(columns[name]):
            raise SchemaError(
                f"column {name} has time zones of its own, and the settings say that {table.name} is in {timezone}; "
                f"take timezone out, or give the column without a zone"
            )


def _check_columns(table: Table, names: list[str], known_columns: frozenset[str] | None, late_days: int) -> list[str]:
    """Name the columns that the table does not have: they become properties, where it has those."""
    known = [name for name in table.schema.names if name != PROPERTIES_COLUMN]
    problems = []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"{', '.join(twice)} more than once")
    if POSITION.name in names or PROPERTIES_COLUMN in names:
        problems.append(f"a column called {POSITION.name} or {PROPERTIES_COLUMN}, which ryml makes itself")
    if missing := [field.name for field in table.schema if not field.nullable and field.name not in names]:
        problems.append(f"no column {', '.join(missing)}")
    extra = [name for name in names if name not in (*known, *helper_columns(table))]
    # What the shop added since is told apart from a name that was misspelt when the query was written.
    unplaced = extra if known_columns is None else [name for name in extra if name in known_columns]
    if unplaced and PROPERTIES_COLUMN not in table.schema.names:
        problems.append(f"{', '.join(unplaced)}, which {table.name} has no place for")
    if late_days and ARRIVAL_COLUMN in names:
        problems.append(f"{ARRIVAL_COLUMN}, which tells late events already: take late_days out")
    if problems:
        raise SchemaError(
            f"the query of {table.name} gives {'; '.join(problems)}. Expected {', '.join(known)}: "
            f"name the result's columns so (AS) in the source settings"
        )
    return extra
