"""What the export needs of a source, whatever it is."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from jobs.lake.manifest import Window
from schemas.tables import Table


@dataclass(frozen=True)
class Reading:
    """One table of a source, opened.

    `columns`: the source's own columns and of which kind each is (column_kinds.kind_of), in their order.
    `used`: those of them that the table is made from.
    `batches`: the table's columns, loosely typed, and `source_position` (rows count from 1), in the same order each
    time.
    `holds_all_days`: the source could not be asked for exactly the window and gives events of other days too.
    """

    columns: Mapping[str, str]
    used: frozenset[str]
    batches: Iterator[pa.RecordBatch]
    holds_all_days: bool


class Source(Protocol):
    """A shop's data."""

    name: str

    def reading(
        self, table: Table, window: Window, *, known_columns: frozenset[str] | None = None
    ) -> AbstractContextManager[Reading]:
        """Open a table. Catalog and users are snapshots as of the window's end.

        `known_columns`: the columns that an earlier export with the same settings found; a column that is not among
        them is new, and does no harm where the table has no place for it. None: nothing is known.
        Raises: ConfigError or SchemaError if what the settings name is not there.
        """
