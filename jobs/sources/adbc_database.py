"""Any other database that has an ADBC driver: Flight SQL, Snowflake, BigQuery, DuckDB, … by the driver's name.

The driver is no part of ryml: it is installed beside it. What differs between drivers is said in the settings
(`[driver]`): how it is found, its options, and how the instants of a window are bound.
"""

import contextlib
import datetime as dt
import importlib
from collections.abc import Iterator
from types import ModuleType
from urllib.parse import unquote, urlsplit, urlunsplit

import adbc_driver_manager
import adbc_driver_manager.dbapi as adbc
import pyarrow as pa

from jobs.sources.column_kinds import kind_of
from jobs.sources.database import Columns, Parameters
from schemas.errors import ConfigError
from schemas.source import Driver
from schemas.sql_parameters import bind_names, parameter_names


class AdbcDatabase:
    """A database behind a driver that ryml knows by name alone."""

    def __init__(self, driver: Driver, uri: str) -> None:
        self._driver = driver
        options = dict(driver.options)
        if driver.login_as_options:
            uri, login = _without_login(uri)
            options |= login
        options |= {"uri": uri}
        try:
            self._connection = _connect(driver, options)
        except adbc.Error as error:
            # A driver's message may quote the URI, password and all.
            raise ConfigError(
                f"the driver {driver.name} cannot be loaded or does not reach the database ({_status(error)}); check "
                f"that it is installed, and host, user and password of the source's connection"
            ) from None

    @contextlib.contextmanager
    def stream(self, query: str, parameters: Parameters) -> Iterator[tuple[Columns, Iterator[pa.RecordBatch]]]:
        # Question marks are bound in the order in which they stand, so a name that comes twice is bound twice.
        order: list[str] = []
        bound = bind_names(query, lambda name: order.append(name) or "?")  # type: ignore[func-returns-value]
        values = [self._value(parameters[name]) for name in order]
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(bound, values if parameter_names(query) else None)
                rows = cursor.fetch_record_batch()
            except adbc.Error as error:
                raise ConfigError(
                    f"the driver {self._driver.name} refused the query ({_status(error)}); try it with the database's "
                    f"own client, and see whether bind = 'text' or 'timestamp' is what the driver takes"
                ) from None
            with rows:
                yield [(field.name, kind_of(field.type)) for field in rows.schema], self._batches(rows)

    def close(self) -> None:
        self._connection.close()

    def _value(self, instant: dt.datetime) -> object:
        return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self._driver.bind == "text" else instant

    def _batches(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = rows.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException, adbc.Error) as error:
                raise ConfigError(
                    f"the driver {self._driver.name} broke off while it was read ({_status(error)}); nothing was "
                    f"exported: try again"
                ) from None
            yield batch


def _connect(driver: Driver, options: dict[str, str]) -> adbc.Connection:
    """Load the driver: a Python package that brings one (`adbc_driver_flightsql`), or a shared library."""
    package = _package(driver.name)
    name = driver.name if package is None else package._driver_path()
    return adbc.connect(driver=name, entrypoint=driver.entrypoint, db_kwargs=options, autocommit=True)


def _package(name: str) -> ModuleType | None:
    if not name.isidentifier():
        return None
    try:
        package = importlib.import_module(name)
    except ImportError:
        return None
    return package if hasattr(package, "_driver_path") else None


def _without_login(uri: str) -> tuple[str, dict[str, str]]:
    """Take user and password out of a URI: some drivers (Flight SQL) want them as options of their own."""
    parts = urlsplit(uri)
    place = parts.netloc.rpartition("@")[2]
    login = {"username": parts.username, "password": parts.password}
    return urlunsplit(parts._replace(netloc=place)), {name: unquote(value) for name, value in login.items() if value}


def _status(error: Exception) -> str:
    """Name the kind of error; never its message, which may hold a password or a row's values."""
    if not isinstance(error, adbc.Error):
        return type(error).__name__
    code = error.status_code
    status = code.name if isinstance(code, adbc_driver_manager.AdbcStatusCode) else str(code)
    return f"{type(error).__name__}, {status}" + (f", SQLSTATE {error.sqlstate}" if error.sqlstate else "")
