"""The source settings file: where a shop's events, catalog and users come from and what their columns are called.

Two kinds: `files` maps the columns of Parquet, CSV and JSON Lines files; `sql` gives one query per table, whose result
already has ryml's column names. Unknown keys and columns are errors, all of them in one message.
docs/examples/online_retail.toml is the example to copy.
"""

import datetime as dt
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import ConfigError
from schemas.sql_parameters import query_problems
from schemas.tables import CATALOG, EVENTS, INSTANT, USERS, Table

EXPORTED: Final = (EVENTS, CATALOG, USERS)
PROPERTIES_COLUMN: Final = "properties"
# When the shop learned of an event. Not a column of the table, but where a source gives it, windows go by it: an event
# that comes in late then belongs to the day it came, and is neither lost nor counted twice.
ARRIVAL_COLUMN: Final = "received_at"
# The shop's own number of an event, the same each time it is sent. Not a column of the table either.
EVENT_ID_COLUMN: Final = "event_id"
URL_SPEC: Final = "url"  # `{item_id:url}` in a template: percent-encoded

# Formats of instants that are numbers; anything else is a format of Python's strptime.
EPOCH_FORMATS: Final = {"epoch_seconds": 1_000_000, "epoch_milliseconds": 1_000, "epoch_microseconds": 1}

_NUMERIC: Final = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
Scalar = str | int | float | bool
_SECRET_WORDS: Final = ("password", "secret", "token", "key")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_min_length=1)


class ColumnRule(_Closed):
    """Where one column of a table comes from: exactly one of a source column, a constant or a template.

    `values` translates a column's values; what it does not name passes through as it is, or becomes `otherwise` where
    that is given. Placeholders of a template name *source* columns; a row that lacks one of them has no value.
    """

    column: str | None = None
    constant: Scalar | None = None
    template: str | None = None
    values: dict[str, str] = {}
    otherwise: str | None = None
    absolute: bool = False
    format: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origins = [name for name in ("column", "constant", "template") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"expected exactly one of column, constant and template, got {origins or 'none'}")
        extras = [name for name in ("values", "otherwise", "absolute", "format") if getattr(self, name)]
        if extras and self.column is None:
            raise ValueError(f"{', '.join(extras)} only goes with column")
        if self.otherwise is not None and not self.values:
            raise ValueError("otherwise only goes with values")
        if self.template is not None:
            for _, name, spec, conversion in _template_parts(self.template):
                if name is not None and (not name or spec not in ("", URL_SPEC) or conversion):
                    raise ValueError(f"template placeholders look like {{column}} or {{column:{URL_SPEC}}}")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns of the source that the rule reads."""
        if self.template is not None:
            return tuple(name for _, name, _, _ in self.template_parts if name is not None)
        return (self.column,) if self.column is not None else ()

    @property
    def template_parts(self) -> list[tuple[str, str | None, str | None, str | None]]:
        """The template as (text, column or None, format, conversion)."""
        return _template_parts(self.template or "")


def _template_parts(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r}: {error}") from error


class _Table(_Closed):
    """What every table of a source can say, files or query.

    `timezone`: the IANA name of the zone of instants that come without one (otherwise they are UTC). A wall time that
    the clock skipped in spring is the moment of the change; one that came twice in autumn is the first of the two.
    `version`: the columns of a source are compared with those of the export before; raise it to accept them as they
    have become. Any other change of the table's settings does the same.
    """

    timezone: str | None = None
    version: Annotated[int, Field(strict=True, ge=1)] = 1

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, timezone: str | None) -> str | None:
        if timezone is not None:
            try:
                ZoneInfo(timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"no time zone is called {timezone!r}; expected one like Europe/Berlin") from error
        return timezone


class _Events(_Table):
    """What is said of events alone.

    `late_days`: for sources without received_at: each export goes over so many days before its window once more and
    takes the rows that no export had. A row that the shop changed in the meantime counts as another one.
    `duplicates`: what becomes of rows that are the same in every column, where the source has no event_id. "keep" is
    the default: somebody who puts the same thing into a basket twice within a second did so twice.
    """

    late_days: Annotated[int, Field(strict=True, ge=0, le=31)] = 0
    duplicates: Literal["keep", "quarantine"] = "keep"


class FileTable(_Table):
    """One table in files.

    `path`: relative to the data folder; may hold `*`, and `**` for any number of folders: the files in order of their
    names.
    `open_end`: the last line of CSV does not end in a line break. Otherwise a file without it counts as half-written.
    `marker`: a file in the data folder that is written when all others are complete; without it nothing is read.
    """

    target: ClassVar[Table]

    path: str
    columns: dict[str, ColumnRule]
    properties: tuple[str, ...] = ()
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    open_end: bool = False
    marker: str | None = None

    @field_validator("columns")
    @classmethod
    def _fits_table(cls, columns: dict[str, ColumnRule]) -> dict[str, ColumnRule]:
        if problems := "; ".join(_mapping_problems(cls.target, columns)):
            raise ValueError(problems)
        return columns

    @field_validator("properties")
    @classmethod
    def _has_properties(cls, properties: tuple[str, ...]) -> tuple[str, ...]:
        if properties and PROPERTIES_COLUMN not in cls.target.schema.names:
            raise ValueError(f"{cls.target.name} keeps no properties")
        return properties

    @property
    def source_columns(self) -> list[str]:
        """Every column of the source that is read, each once, in the order of the settings."""
        named = [column for rule in self.columns.values() for column in rule.source_columns]
        return list(dict.fromkeys([*named, *self.properties]))


class EventsFile(FileTable, _Events):
    """Events in files; rows of days outside the window are passed over."""

    target = EVENTS

    @model_validator(mode="after")
    def _one_rule_for_late_events(self) -> Self:
        if self.late_days and ARRIVAL_COLUMN in self.columns:
            raise ValueError(f"late_days is for sources without {ARRIVAL_COLUMN}, which already tells late events")
        return self


class CatalogFile(FileTable):
    """The catalog in files; the whole file is the snapshot."""

    target = CATALOG


class UsersFile(FileTable):
    """Users in files; the whole file is the snapshot."""

    target = USERS


class QueryTable(_Table):
    """One table as a query. Columns beyond the table's go into `properties`, where the table has it."""

    needed: ClassVar[frozenset[str]] = frozenset()
    allowed: ClassVar[frozenset[str]] = frozenset({"snapshot_at"})

    query: str

    @field_validator("query")
    @classmethod
    def _one_ordered_select(cls, query: str) -> str:
        if problems := "; ".join(query_problems(query, needed=set(cls.needed), allowed=set(cls.allowed))):
            raise ValueError(problems)
        return query


class EventsQuery(QueryTable, _Events):
    """Events from :window_start (included) to :window_end (excluded)."""

    needed = frozenset({"window_start", "window_end"})
    allowed = needed


class _Source(_Closed):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=80)]
    history_days: Annotated[int, Field(strict=True, ge=1, le=4000)]  # days of events that the first export takes


class FilesSettings(_Source):
    """A shop that is a folder of files.

    `default_date`: the day that is run when none is asked for: a late day of the data.
    `data_folder`: where the files are, relative to the folder of the settings file, or `s3://bucket/prefix`.
    """

    kind: Literal["files"]
    default_date: dt.date
    data_folder: str
    events: EventsFile
    catalog: CatalogFile
    users: UsersFile


class Driver(_Closed):
    """An ADBC driver that ryml does not bring along.

    `name`: a Python package that holds a driver (`adbc_driver_flightsql`), the name of an installed one, or the path of
    a shared library (with `entrypoint` where its function has another name than usual).
    `bind`: how the instants of a window are given to the query: as timestamps in UTC, or as text in ISO 8601.
    `login_as_options`: user and password of the URI become the options `username` and `password`.
    """

    name: str
    entrypoint: str | None = None
    options: dict[str, str] = {}
    bind: Literal["timestamp", "text"] = "timestamp"
    login_as_options: bool = False

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("options")
    @classmethod
    def _no_secret(cls, options: dict[str, str]) -> dict[str, str]:
        if secret := [name for name in options if any(word in name.lower() for word in _SECRET_WORDS)]:
            raise ValueError(f"{', '.join(secret)} does not belong into a settings file; name a connection instead")
        return options


class SqlSettings(_Source):
    """A shop that is a database.

    `uri`: `sqlite:///{data}`, where {data} is the database's path, or `postgresql://host/name` without a password.
    `connection`: instead of `uri`, an Airflow Connection, which the caller resolves.
    `data_path`: what {data} stands for unless the caller says, relative to the folder of the settings file.
    `driver`: for databases other than SQLite and PostgreSQL.
    """

    kind: Literal["sql"]
    uri: str | None = None
    connection: str | None = None
    default_date: dt.date | None = None
    data_path: str | None = None
    driver: Driver | None = None
    events: EventsQuery
    catalog: QueryTable
    users: QueryTable

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).password is not None:
            raise ValueError("a password does not belong into a settings file; name a connection instead")
        return uri

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.uri is None) == (self.connection is None):
            raise ValueError("expected exactly one of uri and connection")
        return self


SourceSettings = FilesSettings | SqlSettings
_KINDS: Final[dict[object, type[FilesSettings] | type[SqlSettings]]] = {"files": FilesSettings, "sql": SqlSettings}


def load_source(path: Path) -> SourceSettings:
    """Read a source settings file.

    Raises: ConfigError with the file's name and every mistake in it.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"source settings {path} is not a file; expected a TOML file as in docs/examples") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"source settings {path} is not TOML: {error}; correct it there") from error
    model = _KINDS.get(settings.get("kind"))
    if model is None:
        raise ConfigError(f"source settings {path}: kind is {settings.get('kind')!r}; expected 'files' or 'sql'")
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        mistakes = list(_mistakes(error))
        plural = "mistake" if len(mistakes) == 1 else "mistakes"
        raise ConfigError(f"source settings {path}: {len(mistakes)} {plural}: {'. '.join(mistakes)}") from error


def _mistakes(error: ValidationError) -> Iterator[str]:
    """Say where and what, without the value: a URI may hold a secret."""
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in item["loc"]) or "the file"
        yield f"{place}: {item['msg'].removeprefix('Value error, ')}"


def helper_columns(table: Table) -> tuple[str, ...]:
    """Columns that a source may give beside the table's own, for the rules alone."""
    return (ARRIVAL_COLUMN, EVENT_ID_COLUMN) if table is EVENTS else ()


def column_type(table: Table, name: str) -> pa.DataType:
    """The type that a column of the table, or one that helps its rules, ends up with."""
    helpers = {ARRIVAL_COLUMN: INSTANT, EVENT_ID_COLUMN: pa.string()}
    return helpers[name] if name in helper_columns(table) else table.schema.field(name).type


def _mapping_problems(table: Table, columns: dict[str, ColumnRule]) -> Iterator[str]:
    known = [name for name in (*table.schema.names, *helper_columns(table)) if name != PROPERTIES_COLUMN]
    if unknown := sorted(set(columns) - set(known)):
        yield f"{table.name} has no column {', '.join(unknown)}; it has {', '.join(known)}"
    needed = [field.name for field in table.schema if not field.nullable]
    if missing := [name for name in needed if name not in columns]:
        yield f"{table.name} needs {', '.join(missing)}"
    for name, rule in columns.items():
        kind = column_type(table, name) if name in known else None
        if rule.absolute and kind is not None and not any(test(kind) for test in _NUMERIC):
            yield f"absolute goes with numbers, {name} is {kind}"
        if rule.format is not None and kind is not None and kind != INSTANT:
            yield f"format goes with instants, {name} is {kind}"
