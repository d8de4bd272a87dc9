"""What differs between the databases that a SQL source can read."""

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

# The instants of a query by parameter name; always in UTC.
Parameters = Mapping[str, dt.datetime]
# The columns of a result, in its order: the name of each, which may come twice, and its kind (column_kinds.kind_of).
Columns = list[tuple[str, str]]


class Database(Protocol):
    """One open database."""

    def stream(
        self, query: str, parameters: Parameters
    ) -> AbstractContextManager[tuple[Columns, Iterator[pa.RecordBatch]]]:
        """Run a query; give its columns, and its rows in batches that are small beside memory.

        Raises: ConfigError if the database refuses the query.
        """

    def close(self) -> None: ...
