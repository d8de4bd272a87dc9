"""Which items are new, and how many mails they were in: against rows that are written out."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from catalogs import catalog_of

from jobs.lake.lake import Lake
from jobs.ranking.new_items import new_items, new_since, past_sends
from schemas.cold_start import ExposureSettings
from schemas.layout import Partition
from schemas.tables import RECEIPTS

DATE = dt.date(2026, 3, 10)
SETTINGS = ExposureSettings(within_days=3, new_within_days=7)


def at(day):
    return dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC)


def test_an_item_is_new_for_so_many_days_or_if_the_earlier_catalog_lacks_it():
    catalog = catalog_of(
        [
            {"item_id": "old", "created_at": at(3)},
            {"item_id": "first day", "created_at": at(4)},
            {"item_id": "today", "created_at": at(10)},
            {"item_id": "sold out", "created_at": at(10), "stock": 0},
            {"item_id": "unsaid"},
            {"item_id": "unsaid but there"},
        ]
    )
    index = pa.array(["x", *catalog["item_id"].to_pylist()])
    earlier = catalog_of([{"item_id": "old"}, {"item_id": "unsaid but there"}, {"item_id": "today"}])
    since = new_since(DATE, SETTINGS)
    assert since == dt.datetime(2026, 3, 4, tzinfo=dt.UTC)
    assert new_items(catalog, earlier, index, since=since).tolist() == [2, 3, 5]
    assert new_items(catalog, None, index, since=since).tolist() == [2, 3]


def publish(lake, date, parts):
    """Receipts of a date, one file a chunk."""
    attempt = lake.attempt(Partition("receipts", date, "spring"), "r")
    files = []
    for chunk, rows in enumerate(parts):
        table = pa.Table.from_pylist(
            [
                {"user_id": f"{n}", "chunk": chunk, "item": items, "outcome": what}
                for n, (items, what) in enumerate(rows)
            ],
            schema=RECEIPTS.schema,
        )
        files.append(attempt.write(table, bucket=chunk))
    attempt.publish(files, inputs=[], parameters={})


@pytest.mark.parametrize("days", [1, 2, 3])
def test_sends_are_those_that_were_delivered_on_the_days_before(tmp_path, days):
    lake = Lake.open(str(tmp_path), buckets=2)
    publish(lake, DATE, [[([5, 9], "delivered")]])  # the date's own do not count
    publish(lake, DATE - dt.timedelta(days=1), [[([5, 1], "delivered"), ([5], "quarantined")], [([7, 5], "delivered")]])
    publish(lake, DATE - dt.timedelta(days=3), [[([9], "delivered"), ([], "cleared"), ([9, 99], "delivered")]])
    publish(lake, DATE - dt.timedelta(days=4), [[([5], "delivered")]])
    settings = ExposureSettings(within_days=days, new_within_days=7)
    found = past_sends(lake, "spring", DATE, settings, np.array([5, 8, 9]))
    assert found.tolist() == ([2, 0, 2] if days == 3 else [2, 0, 0])
    assert past_sends(lake, "spring", DATE, settings, np.empty(0, np.int64)).tolist() == []


def test_a_quota_cannot_outlast_newness():
    with pytest.raises(ValueError, match="within_days 9 is more than new_within_days 7"):
        ExposureSettings(within_days=9, new_within_days=7)
