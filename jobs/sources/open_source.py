"""From a settings file to the source that it describes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from jobs.sources.database import Database
from jobs.sources.file_places import SourceFolder
from jobs.sources.files import FilesSource
from jobs.sources.protocol import Source
from jobs.sources.sql import SqlSource
from schemas.errors import ConfigError
from schemas.source import FilesSettings, SourceSettings, SqlSettings

_SQLITE: Final = "sqlite"
_POSTGRESQL: Final = ("postgresql", "postgres")


def open_source(settings: SourceSettings, *, settings_path: Path, data: str | None, source_uri: str | None) -> Source:
    """Open the source.

    `data`: where the data is, instead of the settings' data_folder or data_path; relative to the working folder, or
    `s3://bucket/prefix` for files.
    `source_uri`: what the settings' `connection` stands for. It may hold a password and is in no message.
    """
    if isinstance(settings, FilesSettings):
        place = data if data is not None else settings.data_folder
        if data is None and not urlsplit(place).scheme:
            place = str(settings_path.parent / place)
        return FilesSource(settings, SourceFolder.open(place))
    return SqlSource(settings, _database(settings, settings_path, data, source_uri))


def _database_path(data: str | None, default: str | None, settings_path: Path) -> Path | None:
    if data is not None:
        return Path(data)
    return settings_path.parent / default if default is not None else None


def _database(
    settings: SqlSettings, settings_path: Path, data: str | None, source_uri: str | None
) -> Callable[[], Database]:
    uri = source_uri or settings.uri
    if uri is None:
        raise ConfigError(
            f"source {settings.name} is the connection {settings.connection}, whose URI was not given; "
            f"define the connection in Airflow, or set RYML_SOURCE_URI where the job is run by hand"
        )
    if "{data}" in uri:
        place = _database_path(data, settings.data_path, settings_path)
        if place is None:
            raise ConfigError(f"source {settings.name} has {{data}} in its uri; say where the database is: --data PATH")
        uri = uri.replace("{data}", str(place))
    if settings.driver is not None:
        from jobs.sources.adbc_database import AdbcDatabase

        return functools.partial(AdbcDatabase, settings.driver, uri)
    scheme = urlsplit(uri).scheme
    # Each driver is imported where it is needed: a source of one kind does without the others.
    if scheme == _SQLITE:
        from jobs.sources.sqlite_database import SqliteDatabase

        return functools.partial(SqliteDatabase, Path(uri.removeprefix("sqlite:///")))
    if scheme in _POSTGRESQL:
        from jobs.sources.postgresql_database import PostgresqlDatabase

        return functools.partial(PostgresqlDatabase, uri)
    raise ConfigError(
        f"source {settings.name}: no driver for {scheme!r}; expected sqlite:///PATH or postgresql://…, or "
        f"driver = the name of an ADBC driver in the settings"
    )
