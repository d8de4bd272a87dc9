import datetime as dt
import random

import pyarrow as pa

from jobs.export.bucket_files import BucketFiles
from jobs.lake.lake import Lake
from schemas.layout import Partition
from schemas.tables import EVENTS

ROWS = 40_000


def many_events() -> pa.Table:
    draws = random.Random(3)
    at = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    columns = {
        "user_id": [f"user-{draws.randrange(ROWS)}" for _ in range(ROWS)],
        # More text than one dictionary page holds (1 MB): from there on, pages end where the writer was handed chunks.
        "item_id": [f"{draws.random():0200}" for _ in range(ROWS)],
        "event_type": [draws.choice(["view", "purchase"]) for _ in range(ROWS)],
        "occurred_at": [at + dt.timedelta(seconds=draws.randrange(86_400)) for _ in range(ROWS)],
        "quantity": [1] * ROWS,
        "price": [None] * ROWS,
    }
    return pa.table(columns, schema=EVENTS.schema)


def test_row_groups_pages_and_bytes_are_the_same_for_any_batches(tmp_path):
    events = many_events()
    contents = []
    for number, batch_rows in enumerate((ROWS, 777)):
        lake = Lake.open(str(tmp_path / str(number)), buckets=2)
        with BucketFiles(lake.attempt(Partition("events", dt.date(2026, 3, 2)), "r")) as files:
            for start in range(0, ROWS, batch_rows):
                files.write(events.slice(start, batch_rows))
            contents.append(files.finish())
    assert sum(entry.rows for entry in contents[0]) == ROWS
    assert contents[0] == contents[1]


def test_a_bucket_without_rows_has_a_file_too(tmp_path):
    lake = Lake.open(str(tmp_path), buckets=8)
    with BucketFiles(lake.attempt(Partition("events", dt.date(2026, 3, 2)), "r")) as files:
        files.write(many_events().slice(0, 1))
        entries = files.finish()
    assert sorted(entry.rows for entry in entries) == [0] * 7 + [1]
    assert [entry.bucket for entry in entries] == list(range(8))
