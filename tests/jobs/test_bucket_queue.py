import random

import pyarrow as pa
import pytest

from jobs.export.bucket_queue import BucketQueue, row_bytes
from jobs.lake.buckets import bucket_of
from schemas.tables import PROPERTIES

SCHEMA = pa.schema([("user_id", pa.string()), ("number", pa.int64()), ("properties", PROPERTIES)])
BUCKETS = 5
BLOCK_BYTES = 20_000


def some_rows(count):
    draws = random.Random(8)
    return pa.table(
        {
            "user_id": [f"u{draws.randrange(count // 3)}{'x' * draws.choice([0, 0, 200])}" for _ in range(count)],
            "number": range(count),
            "properties": [draws.choice([None, [], [("colour", "é" * draws.randrange(90))]]) for _ in range(count)],
        },
        schema=SCHEMA,
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("jobs.export.bucket_queue._BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr("jobs.export.bucket_queue._GROUP_BYTES", 1)


def groups_of(rows, batch_rows, buckets=BUCKETS):
    groups = []
    queue = BucketQueue(SCHEMA, buckets, lambda bucket, group: groups.append((bucket, group.to_pylist())))
    for start in range(0, rows.num_rows, batch_rows):
        queue.add(rows.slice(start, batch_rows))
    queue.flush()
    return groups


def test_every_row_comes_to_its_bucket_once_and_in_order():
    rows = some_rows(3_000)
    expected = bucket_of(rows["user_id"], BUCKETS).tolist()
    found = [(bucket, row) for bucket, group in groups_of(rows, 700) for row in group]
    assert len(found) == 3_000
    for bucket in range(BUCKETS):
        own = [row for place, row in zip(expected, rows.to_pylist(), strict=True) if place == bucket]
        assert len(own) > 100
        assert [row for place, row in found if place == bucket] == own


def test_groups_are_the_same_for_any_batches():
    rows = some_rows(2_000)
    whole = groups_of(rows, 2_000)
    assert len(whole) > 10 * BUCKETS
    for batch_rows in (1, 37, 999):
        assert groups_of(rows, batch_rows) == whole


def test_a_block_ends_with_the_row_that_fills_it(monkeypatch):
    # One bucket, so that each block is one group.
    monkeypatch.setattr("jobs.export.bucket_queue._MAX_GROUP_ROWS", BLOCK_BYTES // 96)
    rows = some_rows(2_000)
    sizes = row_bytes(rows).tolist()
    assert sizes == [
        96 + len(row["user_id"]) + sum(len(f"{key}{value}".encode()) for key, value in row["properties"] or [])
        for row in rows.to_pylist()
    ]
    groups = groups_of(rows, 100, buckets=1)
    assert [row for _, group in groups for row in group] == rows.to_pylist()
    assert len(groups) > 10
    limit = BLOCK_BYTES // 96 * 96
    for _, group in groups[:-1]:
        first, last = group[0]["number"], group[-1]["number"]
        assert sum(sizes[first:last]) < limit <= sum(sizes[first : last + 1])
