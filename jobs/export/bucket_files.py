"""The files of one partition, written side by side: rows stay in the order of the source within each bucket.

Row groups are cut at a fixed number of rows, so that the bytes do not depend on the batches that the rows came in.
"""

import contextlib
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa

from jobs.lake.buckets import bucket_of
from jobs.lake.lake import Attempt
from jobs.lake.manifest import FileEntry
from schemas.tables import TABLES

# Rows that wait over all buckets: at 100 to 300 bytes each, 50 to 150 MB at most, however many buckets there are.
_WAITING_ROWS: Final = 2**19
_MAX_GROUP_ROWS: Final = 65_536
_MIN_GROUP_ROWS: Final = 1_024


class BucketFiles:
    """One file per user bucket (or one in all, for a table without buckets). A context manager."""

    def __init__(self, attempt: Attempt) -> None:
        table = TABLES[attempt.partition.table]
        self._buckets = attempt.lake.buckets if table.bucketed else 1
        self._group_rows = min(_MAX_GROUP_ROWS, max(_MIN_GROUP_ROWS, _WAITING_ROWS // self._buckets))
        self._empty = table.schema.empty_table()
        self._waiting: list[list[pa.Table]] = [[] for _ in range(self._buckets)]
        self._waiting_rows = [0] * self._buckets
        self._open_files = contextlib.ExitStack()
        self._writers = []
        with contextlib.ExitStack() as opened:
            for bucket in range(self._buckets):
                self._writers.append(opened.enter_context(attempt.writer(bucket=bucket)))
            self._open_files = opened.pop_all()

    def write(self, rows: pa.Table) -> None:
        """Append rows to the files of their buckets."""
        if rows.num_rows == 0:
            return
        if self._buckets == 1:
            self._append(0, rows)
            return
        # Users come back within a batch; each distinct id is hashed once.
        ids = rows.column("user_id").combine_chunks().dictionary_encode()
        buckets = bucket_of(ids.dictionary, self._buckets)[ids.indices.to_numpy(zero_copy_only=False)]
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=self._buckets)).tolist()
        for bucket, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                # Copied: a slice would keep the whole batch in memory for as long as its bucket waits.
                self._append(bucket, rows.take(pa.array(order[start:end])))

    def finish(self) -> list[FileEntry]:
        """Write what waits, close the files and describe them."""
        for bucket in range(self._buckets):
            if self._waiting_rows[bucket]:
                self._flush(bucket)
        self._open_files.close()
        return [writer.entry for writer in self._writers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._open_files.close()
        else:
            # The disk may be full: closing then fails again, and the first error is the one that says why.
            with contextlib.suppress(Exception):
                self._open_files.close()

    def _append(self, bucket: int, rows: pa.Table) -> None:
        self._waiting[bucket].append(rows)
        self._waiting_rows[bucket] += rows.num_rows
        if self._waiting_rows[bucket] >= self._group_rows:
            self._flush(bucket)

    def _flush(self, bucket: int) -> None:
        """Write whole row groups; at the end (`finish`) also the last, shorter one."""
        waiting = pa.concat_tables([self._empty, *self._waiting[bucket]])
        done = 0
        while waiting.num_rows - done >= self._group_rows:
            self._write_group(bucket, waiting.slice(done, self._group_rows))
            done += self._group_rows
        if done == 0:  # only `finish` flushes less than a group
            self._write_group(bucket, waiting)
            done = waiting.num_rows
        rest = waiting.take(pa.array(np.arange(done, waiting.num_rows)))  # copied, for the same reason
        self._waiting[bucket] = [rest] if rest.num_rows else []
        self._waiting_rows[bucket] = rest.num_rows

    def _write_group(self, bucket: int, rows: pa.Table) -> None:
        # One chunk: where pages end depends on the chunks that the writer is handed.
        self._writers[bucket].write(rows.combine_chunks())
