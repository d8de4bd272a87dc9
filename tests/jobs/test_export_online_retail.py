"""The shipped example on the real data it was written for."""

import datetime as dt
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small_shop import Export

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "docs" / "examples" / "online_retail.toml"
DATA = ROOT.parent / "shared" / "data" / "online-retail"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the Online Retail data is not in {DATA}")


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Export:
    return Export(tmp_path_factory.mktemp("online-retail") / "lake", SETTINGS)


def test_every_row_of_the_whole_span_is_accounted_for(export):
    last = dt.date(2011, 12, 9)
    settings = export.settings.read_text().replace("history_days = 365", "history_days = 400")
    path = export.lake.parent / "whole.toml"
    path.write_text(settings)
    result = Export(export.lake.parent / "whole", path).run("events", last, data=str(DATA))
    source = pq.read_table(DATA / "events.parquet")
    assert result["read"] == source.num_rows == 541_909
    assert result["outside_window"] == 0
    assert result["quarantined_by_reason"] == {"null_user": source.column("user_id").null_count}
    assert result["rows"] + result["quarantined"] == 541_909


def test_the_default_date_takes_the_year_up_to_it(export):
    result = export.run("events", dt.date(2011, 11, 30))
    source = pq.read_table(DATA / "events.parquet")
    inside = source.filter(pc.less(source.column("ts"), dt.datetime.fromisoformat("2011-12-01")))
    assert result["outside_window"] == source.num_rows - inside.num_rows > 0
    assert result["quarantined_by_reason"] == {"null_user": inside.column("user_id").null_count}
    assert result["rows"] == inside.num_rows - inside.column("user_id").null_count
    events = export.read("events", dt.date(2011, 11, 30))
    kinds = {row["values"]: row["counts"] for row in pc.value_counts(events.column("event_type")).to_pylist()}
    cancelled = inside.filter(
        pc.and_(pc.equal(inside.column("event_type"), "cancellation"), inside.column("user_id").is_valid())
    )
    assert kinds == {"purchase": result["rows"] - cancelled.num_rows, "refund": cancelled.num_rows}
    assert pc.min(events.column("quantity")).as_py() == 1


def test_the_catalog_holds_what_can_be_mailed(export):
    result = export.run("catalog", dt.date(2011, 11, 30))
    items = pq.read_table(DATA / "items.parquet")
    untitled = items.column("description").null_count
    unpriced = items.filter(
        pc.and_(items.column("description").is_valid(), pc.less_equal(items.column("median_price"), 0))
    )
    assert result["quarantined_by_reason"] == {"bad_price": unpriced.num_rows, "missing_field": untitled}
    assert result["rows"] == items.num_rows - untitled - unpriced.num_rows
    catalog = {row["item_id"]: row for row in export.read("catalog", dt.date(2011, 11, 30)).to_pylist()}
    assert catalog["POST"]["stock"] == 0
    assert catalog["BANK CHARGES"]["image_url"] == "http://127.0.0.1:8085/images/BANK%20CHARGES.svg"
    assert catalog["22423"]["stock"] > 0


def test_every_user_has_an_address_made_up_of_the_id(export):
    result = export.run("users", dt.date(2011, 11, 30))
    assert result["rows"] == result["read"] == 4_372
    users = export.read("users", dt.date(2011, 11, 30)).to_pylist()
    assert all(row["email"] == f"user-{row['user_id']}@example.com" for row in users)
    assert {row["properties"][0][0] for row in users} == {"country"}
