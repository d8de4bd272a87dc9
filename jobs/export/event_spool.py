"""Events that have to wait for the end of the export, in an unnamed temporary file, to be taken up bucket by bucket.

Memory holds one bucket of them at a time, however many there are, and the file is gone with the process.
"""

import tempfile
from typing import IO, Final, Self

import pyarrow as pa

from jobs.export.bucket_queue import BucketQueue

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


class EventSpool:
    """Rows by the bucket of their user, in the order in which they came. A context manager."""

    def __init__(self, schema: pa.Schema, buckets: int) -> None:
        self._schema = schema
        self._queue = BucketQueue(schema, buckets, self._append)
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._blocks: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]

    def add(self, rows: pa.Table) -> None:
        """Take rows of the spool's schema."""
        self._queue.add(rows)

    def finish(self) -> None:
        """Take no more rows."""
        self._queue.flush()

    def bucket(self, bucket: int) -> pa.Table:
        """Give the rows of one bucket."""
        parts = [self._schema.empty_table()]
        for start, size in self._blocks[bucket]:
            self._file.seek(start)
            with pa.ipc.open_stream(self._file.read(size)) as block:
                parts.append(block.read_all())
        return pa.concat_tables(parts).combine_chunks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _append(self, bucket: int, rows: pa.Table) -> None:
        packed = pa.BufferOutputStream()
        with pa.ipc.new_stream(packed, self._schema, options=_OPTIONS) as block:
            block.write_table(rows)
        data = packed.getvalue()
        self._blocks[bucket].append((self._file.tell(), data.size))
        self._file.write(data)
