"""Rows that wait, bucket by bucket, until enough of them have come to be written as one group.

Groups are cut at a fixed number of rows, so that what is written does not depend on the batches that the rows came in.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.lake.buckets import bucket_of

# Rows that wait over all buckets: at 100 to 300 bytes each, 50 to 150 MB at most, however many buckets there are.
_WAITING_ROWS: Final = 2**19
_MAX_GROUP_ROWS: Final = 65_536
_MIN_GROUP_ROWS: Final = 1_024


class BucketQueue:
    """Splits rows by the bucket of their user and hands them on in groups, in the order of the source."""

    def __init__(self, schema: pa.Schema, buckets: int, write: Callable[[int, pa.Table], None]) -> None:
        self._buckets = buckets
        self._write = write
        self._group_rows = min(_MAX_GROUP_ROWS, max(_MIN_GROUP_ROWS, _WAITING_ROWS // buckets))
        self._empty = schema.empty_table()
        self._waiting: list[list[pa.Table]] = [[] for _ in range(buckets)]
        self._waiting_rows = [0] * buckets

    def add(self, rows: pa.Table) -> None:
        """Append rows to their buckets."""
        if rows.num_rows == 0:
            return
        if self._buckets == 1:
            self._append(0, rows)
            return
        # Users come back within a batch; each distinct id is hashed once.
        ids = rows.column("user_id").combine_chunks().dictionary_encode()
        buckets = bucket_of(ids.dictionary, self._buckets)[ids.indices.to_numpy(zero_copy_only=False)]
        # Numbers of 16 bits are sorted by their digits, five times as fast as wider ones.
        order = np.argsort(buckets.astype(np.uint16) if self._buckets < 2**16 else buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=self._buckets)).tolist()
        for bucket, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                # Copied: a slice would keep the whole batch in memory for as long as its bucket waits.
                self._append(bucket, rows.take(pa.array(order[start:end])))

    def flush(self) -> None:
        """Hand on what waits, the last groups shorter than the others."""
        for bucket in range(self._buckets):
            if self._waiting_rows[bucket]:
                self._hand_on(bucket)

    def _append(self, bucket: int, rows: pa.Table) -> None:
        self._waiting[bucket].append(rows)
        self._waiting_rows[bucket] += rows.num_rows
        if self._waiting_rows[bucket] >= self._group_rows:
            self._hand_on(bucket)

    def _hand_on(self, bucket: int) -> None:
        """Hand on whole groups; at the end (`flush`) also the last, shorter one."""
        waiting = pa.concat_tables([self._empty, *self._waiting[bucket]])
        done = 0
        while waiting.num_rows - done >= self._group_rows:
            self._write_group(bucket, waiting.slice(done, self._group_rows))
            done += self._group_rows
        if done == 0:  # only `flush` hands on less than a group
            self._write_group(bucket, waiting)
            done = waiting.num_rows
        rest = waiting.take(pa.array(np.arange(done, waiting.num_rows)))  # copied, for the same reason
        self._waiting[bucket] = [rest] if rest.num_rows else []
        self._waiting_rows[bucket] = rest.num_rows

    def _write_group(self, bucket: int, rows: pa.Table) -> None:
        # One chunk: where Parquet's pages end depends on the chunks that the writer is handed.
        self._write(bucket, rows.combine_chunks())
