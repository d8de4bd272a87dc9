"""The files of one partition, written side by side: rows stay in the order of the source within each bucket.

A thread of its own encodes, packs and writes, which leaves the interpreter's lock to whoever prepares the next rows.
"""

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import pyarrow as pa

from jobs.export.bucket_queue import BucketQueue
from jobs.lake.lake import Attempt
from jobs.lake.manifest import FileEntry
from schemas.tables import TABLES


class BucketFiles:
    """One file per user bucket (or one in all, for a table without buckets). A context manager."""

    def __init__(self, attempt: Attempt) -> None:
        table = TABLES[attempt.partition.table]
        buckets = attempt.lake.buckets if table.bucketed else 1
        self._queue = BucketQueue(table.schema, buckets, self._write_group)
        self._open_files = contextlib.ExitStack()
        self._writers = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        self._most_waiting = buckets  # the groups of one block, so that the next one is prepared meanwhile
        with contextlib.ExitStack() as opened:
            for bucket in range(buckets):
                self._writers.append(opened.enter_context(attempt.writer(bucket=bucket)))
            self._open_files = opened.pop_all()

    def write(self, rows: pa.Table) -> None:
        """Append rows to the files of their buckets."""
        self._queue.add(rows)

    def finish(self) -> list[FileEntry]:
        """Write what waits, close the files and describe them."""
        self._queue.flush()
        while self._waiting:
            self._waiting.popleft().result()
        self._open_files.close()
        return [writer.entry for writer in self._writers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        if error is None:
            self._open_files.close()
        else:
            # The disk may be full: closing then fails again, and the first error is the one that says why.
            with contextlib.suppress(Exception):
                self._open_files.close()

    def _write_group(self, bucket: int, rows: pa.Table) -> None:
        self._waiting.append(self._thread.submit(self._writers[bucket].write, rows))
        if len(self._waiting) > self._most_waiting:
            self._waiting.popleft().result()
