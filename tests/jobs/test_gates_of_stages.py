"""The gates of what Spark makes, through the jobs: a shop that is right, and one thing wrong at a time."""

import dataclasses
import datetime as dt
import functools
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_shop import make_csv, shop_rows

from jobs import (
    backtest_models,
    export_table,
    finish_build,
    fold_profiles,
    index_items,
    recommend_items,
    train_correlations,
)
from jobs.lake.lake import Lake
from jobs.quality.kept_checks import KeptChecks, read_passed, read_stopped
from jobs.quality.override import GateOverride
from jobs.ranking import inputs
from jobs.ranking.item_facts import NO_FILTER
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import CORRELATIONS, PROFILES, RECOMMENDATIONS, TABLES

DATES = [dt.date(2026, 3, 1), dt.date(2026, 3, 2)]
CAMPAIGN = """
title = "Spring"
min_items = 1
[exclude]
seen_days = 0
[training]
allow_less = true
[mail]
subject = "Hi"
suppression_group = "Recommendations"
"""
OVERRIDE = GateOverride.of(by="on-call data engineer", reason="the shop opened a second country")

pytestmark = pytest.mark.spark


@dataclass
class Shop:
    """A lake with one finished date; the second one is exported and indexed.

    `kept_in` has the lakes that `until` made, by table, for all shops of one module.
    """

    folder: Path
    kept_in: Path

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"))

    @property
    def campaign(self) -> Path:
        return self.folder / "spring.toml"

    def export(self, date: dt.date, run_id: str = "night") -> None:
        source = self.folder / "files.toml"
        for table in ("events", "catalog", "users"):
            export_table.main(
                lake=self.lake_uri, date=date, run_id=run_id, table=table, source=source, data=str(self.folder),
                buckets=3,
            )  # fmt: skip
        index_items.main(lake=self.lake_uri, date=date, run_id=run_id)

    @property
    def lake_uri(self) -> str:
        return str(self.folder / "lake")

    def stage(self, job: object, date: dt.date = DATES[1], **options: object) -> dict[str, object]:
        if job in (backtest_models, recommend_items, train_correlations):
            options["campaign"] = self.campaign
        return job.main(lake=self.lake_uri, date=date, run_id="night", **options)

    def partition(self, table: str, date: dt.date = DATES[1]) -> Partition:
        return Partition(table, date, "spring" if TABLES[table].per_campaign else None)

    def stopped(self, table: str) -> KeptChecks | None:
        return read_stopped(self.lake, self.partition(table))


JOBS = {
    "profiles": fold_profiles,
    "backtests": backtest_models,
    "correlations": train_correlations,
    "recommendations": recommend_items,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, spark):
    shop = Shop(tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("kept"))
    make_csv(shop.folder, shop_rows())
    shop.campaign.write_text(CAMPAIGN)
    shop.export(DATES[0])
    for job in JOBS.values():
        shop.stage(job, DATES[0])
    shop.export(DATES[1])
    return shop


@pytest.fixture
def shop(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "shop")
    return Shop(tmp_path / "shop", built.kept_in)


def until(shop, table):
    """Run the stages before a table's own, on a shop that is as it was built; each module runs them once."""
    kept = shop.kept_in / table
    if kept.exists():
        shutil.rmtree(shop.lake_uri)
        shutil.copytree(kept, shop.lake_uri)
        return
    for name, job in JOBS.items():
        if name == table:
            break
        shop.stage(job)
    shutil.copytree(shop.lake_uri, kept)


def replaced(rows, name, change):
    """Change one column of rows, given and taken as Python values."""
    place = rows.schema.get_field_index(name)
    return rows.set_column(
        place, rows.schema.field(place), pa.array(change(rows[name].to_pylist()), rows.schema.types[place])
    )


def each_list(change):
    return lambda lists: [change(items) for items in lists]


def every_element(value):
    return each_list(lambda items: [value for _ in items])


def later(days):
    return each_list(lambda instants: [one + dt.timedelta(days=days) for one in instants])


def own_neighbours(lists):
    return [[number] * len(items) for number, items in enumerate(lists)]


# What a broken stage would write: the table, the column, the change, and the check that stops it.
BROKEN = {
    "users twice": ("profiles", "user_id", lambda ids: [ids[0]] * len(ids), "user_id_repeats"),
    "ragged lists": ("profiles", "count", each_list(lambda items: items[1:]), "rows_with_ragged_item_lists"),
    "unknown items": ("profiles", "item", every_element(9999), "items_not_in_index"),
    "the future": ("profiles", "last_at", later(3), "newest_hours_before_end"),
    "the past": ("profiles", "last_at", later(-3), "newest_hours_before_end"),
    "counts of zero": ("profiles", "count", every_element(0), "count_least"),
    "scores that are no numbers": ("correlations", "score", every_element(math.nan), "score_not_finite"),
    "scores without a bound": ("correlations", "score", every_element(math.inf), "score_not_finite"),
    "neighbours of their own": ("correlations", "other_item", own_neighbours, "self_neighbours"),
    "unknown neighbours": ("correlations", "other_item", every_element(9999), "items_not_in_index"),
    "items of no catalog": ("recommendations", "item", every_element(9998), "items_in_catalog_share"),
    "one list": ("recommendations", "item", each_list(lambda i: [1, 2, 3, 4, 5, 6][: len(i)]), "top_list_share"),
    "one item": ("recommendations", "item", every_element(1), "repeats_in_lists"),
    "another outcome": ("recommendations", "outcome", lambda names: ["perhaps", *names[1:]], "outcome_unknown"),
}
WRITERS = {
    "profiles": (fold_profiles, "fold"),
    "correlations": (train_correlations, "rows_of_block"),
    "recommendations": (recommend_items, "recommend"),
}
SCHEMAS = {"profiles": PROFILES.schema, "correlations": CORRELATIONS.schema, "recommendations": RECOMMENDATIONS.schema}


def in_process(spark, work, parts, what, *, partitions=None):
    """Stands for Spark's map, so that a part that is replaced in this process is replaced in its tasks."""
    return [work(part) for part in parts]


@pytest.mark.parametrize("name", BROKEN)
def test_a_stage_that_went_wrong_publishes_nothing(shop, monkeypatch, name):
    table, column, change, check = BROKEN[name]
    until(shop, table)
    job, function = WRITERS[table]
    right = getattr(job, function)

    def wrong(*args, **options):
        return replaced(right(*args, **options), column, change).cast(SCHEMAS[table])

    monkeypatch.setattr(job, function, wrong)
    monkeypatch.setattr("jobs.spark_session.map_parts", in_process)
    before = {path: path.read_bytes() for path in Path(shop.lake_uri).rglob("_manifest.json")}
    if table == "correlations":
        # Training alone does not stop the night: the last good correlations stay, and it says so.
        kept = shop.stage(job)
        assert (kept["partition"], kept["status"]) == (
            f"correlations/campaign=spring/date={DATES[0]}", f"kept those of {DATES[0]}: refused",
        )  # fmt: skip
        assert check in kept["why"]
    else:
        with pytest.raises(GateError, match=check):
            shop.stage(job)
    assert {path: path.read_bytes() for path in Path(shop.lake_uri).rglob("_manifest.json")} == before
    assert shop.lake.find(shop.partition(table)) is None
    kept = shop.stopped(table)
    assert check in {result.figure for result in kept.checks if result.verdict == "failed"}
    assert not list((Path(shop.lake_uri) / str(shop.partition(table))).rglob("*.parquet"))
    # The stage as it is goes through, and the note goes away.
    monkeypatch.undo()
    shop.stage(job)
    assert shop.stopped(table) is None


def test_what_is_recommended_is_held_against_the_catalog_and_not_against_the_rule_under_test(shop, monkeypatch):
    """Mutant: eligibility without its stock rule. The gate counts from the catalog itself."""
    until(shop, "recommendations")

    def everything(*args, real=inputs.item_facts, **options):
        facts = real(*args, **options)
        return dataclasses.replace(facts, dropped_by=np.full(len(facts.dropped_by), NO_FILTER, np.int8))

    monkeypatch.setattr(inputs, "item_facts", everything)
    with pytest.raises(GateError, match=r"items_in_stock_share is 0\.\d+, expected at least 1"):
        shop.stage(recommend_items, override=OVERRIDE)
    monkeypatch.undo()
    shop.stage(recommend_items)
    passed = read_passed(shop.lake, shop.lake.manifest(shop.partition("recommendations")))
    figures = {check.figure: check for check in passed.checks}
    assert figures["items_in_stock_share"].observed == 1.0
    # A campaign that recommends what is sold out has that check skipped, and says why.
    shop.campaign.write_text(CAMPAIGN + "[catalog]\nin_stock = false\n")
    shop.stage(recommend_items)
    passed = read_passed(shop.lake, shop.lake.manifest(shop.partition("recommendations")))
    skipped = {check.figure: check.skipped_because for check in passed.checks if check.verdict == "skipped"}
    assert "out of stock" in skipped["items_in_stock_share"]


def test_events_are_held_against_the_catalog_and_the_users_of_their_date(shop):
    shop.stage(fold_profiles)
    passed = read_passed(shop.lake, shop.lake.manifest(shop.partition("profiles")))
    figures = {check.figure: check.observed for check in passed.checks}
    assert figures["event_items_in_catalog_share"] == figures["event_users_in_users_share"] == 1.0
    rows = shop_rows()
    rows["events"] = [(f"guest-{n}", f"gone-{n}", *row[2:]) for n, row in enumerate(rows["events"])]
    make_csv(shop.folder, rows)
    shop.export(DATES[1], run_id="again")
    with pytest.raises(GateError) as caught:
        shop.stage(fold_profiles)
    assert "event_items_in_catalog_share is 0" in str(caught.value)
    assert "event_users_in_users_share is 0" in str(caught.value)
    shop.stage(fold_profiles, override=OVERRIDE)
    passed = read_passed(shop.lake, shop.lake.manifest(shop.partition("profiles")))
    assert passed.verdict == "overridden"
    assert passed.override["by"] == "on-call data engineer"


def test_a_night_on_which_far_fewer_get_a_list_stops(shop, monkeypatch):
    until(shop, "recommendations")
    right = recommend_items.recommend

    def few(*args, **options):
        rows = right(*args, **options)
        none = [n % 3 == 0 for n in range(len(rows))]
        for name, empty in (("item", []), ("score", []), ("source", []), ("outcome", "too_few")):
            rows = replaced(rows, name, functools.partial(_where, none, empty))
        return rows.cast(RECOMMENDATIONS.schema)

    monkeypatch.setattr(recommend_items, "recommend", few)
    monkeypatch.setattr("jobs.spark_session.map_parts", in_process)
    with pytest.raises(GateError, match=r"recommended_share_of_last_good is 0\.6"):
        shop.stage(recommend_items)


def _where(none, empty, values):
    return [empty if gone else value for gone, value in zip(none, values, strict=True)]


def test_a_build_of_what_no_gate_saw_is_not_finished(shop):
    for job in JOBS.values():
        shop.stage(job)
    partition = shop.partition("users")
    manifest = shop.lake.manifest(partition)
    attempt = shop.lake.attempt(partition, "past the gate")
    entries = [attempt.write(shop.lake.read_file(manifest, entry), bucket=entry.bucket) for entry in manifest.files]
    finish_build.main(lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign)
    attempt.publish(entries, inputs=[], parameters={"made": "by hand"})
    with pytest.raises(GateError, match=r"users/date=2026-03-02 never went through a gate"):
        finish_build.main(lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign)
