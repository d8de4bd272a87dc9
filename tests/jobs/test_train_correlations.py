"""Training through its jobs: the same bytes however it is spread, the gate, the cadence, and what is said of them."""

import datetime as dt
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from small_shop import make_csv, shop_rows

from jobs import backtest_models, export_table, fold_profiles, index_items, train_correlations
from jobs.backtest.contest import measured_popularity
from jobs.backtest.training_outcome import read_report
from jobs.lake.lake import Lake
from jobs.lake.list_columns import lengths
from schemas.campaign import load_campaign
from schemas.errors import EmptyPartitionError, GateError
from schemas.layout import Partition
from schemas.tables import BACKTEST_ROLES

DATES = [dt.date(2026, 3, 1), dt.date(2026, 3, 2)]  # a Sunday and a Monday
CAMPAIGN = """
title = "Spring"
min_items = 1
[mail]
subject = "Hi"
suppression_group = "Recommendations"
[training]
allow_less = true
half_life_days = 3.0
weights = {{ view = 1.0, cart_add = 2.0, purchase = 3.0 }}
{training}
[training.backtest]
holdout_days = 1
min_test_users = {min_test_users}
"""
TABLES = ("backtests", "correlations", "product_correlations")

pytestmark = pytest.mark.spark


@dataclass(frozen=True)
class Shop:
    """`kept_in` has lakes as `prepare` left them, for all tests of this file: no campaign takes part in them."""

    folder: Path
    kept_in: Path
    buckets: int = 3

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / f"lake-{self.buckets}"))

    @property
    def campaign(self) -> Path:
        return self.folder / "spring.toml"

    def settle(self, training: str = "", min_test_users: int = 10) -> "Shop":
        self.campaign.write_text(CAMPAIGN.format(training=training, min_test_users=min_test_users))
        return self

    def prepare(self, *dates: dt.date) -> "Shop":
        """Everything up to the profiles."""
        lake = str(self.folder / f"lake-{self.buckets}")
        kept = self.kept_in / f"{len(dates)}-dates-{self.buckets}-buckets"
        if kept.exists():
            shutil.copytree(kept, lake)
            return self
        for date in dates:
            for table in ("events", "catalog", "users"):
                export_table.main(
                    lake=lake, date=date, run_id="night", table=table, source=self.folder / "files.toml",
                    data=str(self.folder), buckets=self.buckets,
                )  # fmt: skip
            index_items.main(lake=lake, date=date, run_id="night")
            fold_profiles.main(lake=lake, date=date, run_id="night")
        shutil.copytree(lake, kept)
        return self

    def backtest(self, date: dt.date, run_id: str = "night"):
        return backtest_models.main(lake=self.lake.uri, date=date, run_id=run_id, campaign=self.campaign)

    def train(self, date: dt.date, run_id: str = "night", **options):
        return train_correlations.main(
            lake=self.lake.uri, date=date, run_id=run_id, campaign=self.campaign, **options
        )  # fmt: skip

    def find(self, table: str, date: dt.date):
        return self.lake.find(Partition(table, date, "spring"))

    def digests(self, date: dt.date):
        return {table: [entry.sha256 for entry in self.find(table, date).files] for table in TABLES}

    def forget(self, *dates: dt.date) -> None:
        for table in TABLES:
            for date in dates:
                (self.folder / f"lake-{self.buckets}" / f"{Partition(table, date, 'spring')}/_manifest.json").unlink()


@pytest.fixture(scope="module")
def kept_in(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def shop(tmp_path, kept_in, spark):
    make_csv(tmp_path, shop_rows())
    return Shop(tmp_path, kept_in).settle()


def test_the_tables_are_the_same_bytes_with_any_number_of_partitions_and_buckets(shop):
    found = []
    for buckets in (1, 4, 16):
        one = replace(shop, buckets=buckets).prepare(*DATES)
        for partitions in (1, 4, 16) if buckets == 4 else (None,):
            for date in DATES:
                one.backtest(date)
                trained = one.train(date, partitions=partitions)
                assert trained["status"] == "trained"
                assert trained["pairs"] > 100
            found.append(one.digests(DATES[1]))
            one.forget(*DATES)
    assert len(found) == 5
    assert all(digests == found[0] for digests in found)


def test_a_second_run_makes_nothing_and_a_second_day_with_the_same_lists_has_no_churn(shop):
    shop.prepare(*DATES)
    for date in DATES:
        shop.backtest(date)
        shop.train(date)
    before = {(table, date): shop.find(table, date) for table in TABLES for date in DATES}
    for date in DATES:
        shop.backtest(date, "again")
        shop.train(date, "again")
    assert before == {(table, date): shop.find(table, date) for table in TABLES for date in DATES}
    shown = shop.find("product_correlations", DATES[1])
    assert 0 <= shown.metrics["churn"] < 1
    assert str(Partition("product_correlations", DATES[0], "spring")) in shown.inputs
    deep = shop.find("correlations", DATES[1])
    assert shown.rows == deep.rows
    assert lengths(shop.lake.read(shown)["other_item_id"]).max() <= 20


def test_training_waits_for_its_backtest(shop):
    shop.prepare(DATES[0])
    with pytest.raises(EmptyPartitionError, match="run backtest_models for 2026-03-01 first"):
        shop.train(DATES[0])


def test_a_weekly_campaign_trains_on_its_weekday_and_whenever_there_is_nothing(shop, monkeypatch):
    shop.settle('cadence = "weekly"\nweekday = "wednesday"').prepare(*DATES)
    assert shop.backtest(DATES[0])["status"] == "accepted"  # a Sunday, but there are no correlations yet
    first = shop.train(DATES[0])
    assert first["status"] == "trained"
    monkeypatch.setattr("jobs.spark_session.open_session", lambda name: pytest.fail("Spark was started for nothing"))
    assert shop.backtest(DATES[1]) == {"status": "not due"}
    second = shop.train(DATES[1])
    assert second["status"] == "kept those of 2026-03-01: not due"
    assert (second["partition"], second["content"]) == (first["partition"], first["content"])
    assert shop.find("correlations", DATES[1]) is None
    shop.settle('cadence = "weekly"\nweekday = "monday"')
    assert shop.backtest(DATES[1])["status"] != "not due"


def test_a_model_below_popularity_does_not_ship_and_the_last_good_one_stays(shop, monkeypatch):
    shop.prepare(*DATES)
    shop.backtest(DATES[0])
    first = shop.train(DATES[0])
    monkeypatch.setattr(
        backtest_models, "measured_popularity", lambda split: replace(measured_popularity(split), ndcg=2.0)
    )
    monkeypatch.setattr("jobs.spark_session.open_session", lambda name: pytest.fail("Spark was started for nothing"))
    refused = shop.backtest(DATES[1])
    assert (refused["status"], refused["split"]) == ("refused", "by time")
    kept = shop.train(DATES[1])
    assert kept["status"] == "kept those of 2026-03-01: refused"
    assert "the most popular items have 2.0000" in kept["why"]
    assert kept["content"] == first["content"]
    assert shop.find("correlations", DATES[1]) is None
    # Without a last good one there is nothing to go on with: the night stops.
    shop.forget(DATES[0])
    shop.backtest(DATES[1], "again")
    with pytest.raises(GateError, match=r"refused by its backtest: .*no correlations of the 14 days"):
        shop.train(DATES[1])


def test_too_few_users_to_judge_by_are_said(shop):
    shop.settle(min_test_users=1_000).prepare(DATES[0])
    done = shop.backtest(DATES[0])
    assert done["status"] == "not judged"
    assert "1000 are needed" in done["why"]
    assert shop.train(DATES[0])["status"] == "trained"


def test_the_backtest_keeps_every_model_and_measure_and_a_report(shop):
    shop.prepare(DATES[0])
    done = shop.backtest(DATES[0])
    manifest = shop.find("backtests", DATES[0])
    rows = shop.lake.read(manifest).to_pylist()
    candidates = load_campaign(shop.campaign).training.candidates
    models = {row["model"]: row["role"] for row in rows}
    assert set(models.values()) <= set(BACKTEST_ROLES)
    assert sorted(models.values()) == sorted(["popularity", "short_lists", *["candidate"] * len(candidates)])
    assert len({(row["model"], row["measure"]) for row in rows}) == len(rows) == 7 * len(models)
    assert {row["model"] for row in rows if row["is_chosen"]} == {done["chosen"]}
    assert json.loads(json.dumps(manifest.metrics))["test_users"] >= 10
    report = read_report(shop.lake, "spring", DATES[0])
    assert read_report(shop.lake, "spring", DATES[1]) is None
    assert report.count("<svg") == 2
    for text in (done["chosen"], "popularity", "Accepted", "% less"):
        assert text in report
    assert "user-1" not in report
