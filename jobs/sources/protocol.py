"""What the export needs of a source, whatever it is."""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from jobs.lake.manifest import Window
from schemas.tables import Table


class Source(Protocol):
    """A shop's data.

    `holds_all_days`: it cannot be asked for a window and gives the events of every day it has.
    """

    name: str
    holds_all_days: bool

    def batches(self, table: Table, window: Window) -> Iterator[pa.RecordBatch]:
        """Stream the table's columns, loosely typed, and `source_position` (rows count from 1).

        The order of the rows is the same each time. Catalog and users are snapshots as of the window's end.
        Raises: ConfigError or SchemaError if what the settings name is not there.
        """
