"""A backfill: the same as building the dates anew, in the live lake only after it was compared, and never a mail."""

import ast
import csv
import datetime as dt
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import make_csv, shop_rows

from jobs import (
    backtest_models,
    compare_backfill,
    export_table,
    finish_build,
    fold_profiles,
    index_items,
    promote_backfill,
    rebuild_dates,
    recommend_items,
    stage_backfill,
    train_correlations,
)
from jobs.backfill.comparison import UserChanges, compare_users
from jobs.backfill.promotion import COMPARISON_PATH
from jobs.backfill.request import MAX_DATES, BackfillRequest
from jobs.finish_build import finished_recommendations
from jobs.lake.item_index import append_items, read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.storage import LocalStorage
from schemas.errors import ConfigError, EmptyPartitionError, GateError, PublishConflictError
from schemas.layout import UNDATED, Partition
from schemas.tables import CHUNKS, RECOMMENDATIONS, TABLES

ROOT = Path(__file__).resolve().parents[2]
DATES = [dt.date(2026, 3, 1), dt.date(2026, 3, 2)]
RUN = "manual__2026-03-09T10:00:00+00:00"
REASON = "half of the shop's items were sold out and nobody noticed"
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


@dataclass
class Shop:
    """A lake with two finished dates, the files that the catalog comes from, and the steps of a backfill."""

    folder: Path

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"))

    @property
    def campaign(self) -> Path:
        return self.folder / "spring.toml"

    def copy(self, folder: Path) -> "Shop":
        shutil.copytree(self.folder, folder)
        return Shop(folder)

    def build(self, tables: tuple[str, ...] = ("events", "catalog", "users")) -> None:
        for date in DATES:
            common = {"lake": str(self.folder / "lake"), "date": date, "run_id": "night"}
            for table in tables:
                source = self.folder / "files.toml"
                export_table.main(**common, table=table, source=source, data=str(self.folder), buckets=3)
            index_items.main(**common)
            fold_profiles.main(**common)
            backtest_models.main(**common, campaign=self.campaign)
            train_correlations.main(**common, campaign=self.campaign)
            recommend_items.main(**common, campaign=self.campaign)
            finish_build.main(**common, campaign=self.campaign)

    def new_catalog(self, sold_out: int) -> None:
        """Sell out the first items and bring a new one in."""
        path = self.folder / "catalog.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows[:sold_out]:
            row["stock"] = "0"
        for row in rows[sold_out:]:
            row["stock"] = "5"
        rows.append({**rows[-1], "item_id": "brand-new"})
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    @property
    def steps(self) -> dict[str, object]:
        return {"lake": str(self.folder / "lake"), "run_id": RUN, "campaign": self.campaign}

    def stage(self, **options: object) -> dict[str, object]:
        asked = {"first_date": DATES[0], "last_date": DATES[1], "reason": REASON, **options}
        return stage_backfill.main(
            **self.steps, **asked, source=self.folder / "files.toml", data=str(self.folder)
        )  # type: ignore[arg-type]  # fmt: skip

    def rebuild(self) -> dict[str, object]:
        return rebuild_dates.main(**self.steps)  # type: ignore[arg-type]

    def compare(self, **options: object) -> dict[str, object]:
        return compare_backfill.main(**self.steps, **{"max_lost_percent": 100, **options})  # type: ignore[arg-type]

    def promote(self) -> dict[str, object]:
        return promote_backfill.main(**self.steps)  # type: ignore[arg-type]

    def live_files(self) -> dict[str, bytes]:
        """Every file of the live lake by its path, without the staged one, attempts and locks."""
        lake = self.folder / "lake"
        return {
            path.relative_to(lake).as_posix(): path.read_bytes()
            for path in lake.rglob("_manifest.json")
            if "staging" not in path.relative_to(lake).parts
        }

    def contents(self) -> dict[str, str]:
        names = [Partition("catalog", date) for date in DATES]
        names += [Partition(table, date, "spring") for table in ("correlations", "recommendations") for date in DATES]
        return {str(name): self.lake.manifest(name).content_sha256 for name in names}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, spark: object) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    make_csv(shop.folder, shop_rows())
    shop.campaign.write_text(CAMPAIGN)
    shop.build()
    return shop


@pytest.fixture(scope="module")
def compared_once(built: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = built.copy(tmp_path_factory.mktemp("compared") / "shop")
    shop.new_catalog(sold_out=20)
    before = shop.live_files()
    assert shop.stage()["new_items"] == 1
    shop.rebuild()
    shop.compare()
    assert shop.live_files() == before, "the live lake changed before the promotion"
    return shop


@pytest.fixture
def shop(built: Shop, tmp_path: Path) -> Shop:
    return built.copy(tmp_path / "shop")


@pytest.fixture
def compared(compared_once: Shop, tmp_path: Path) -> Shop:
    return compared_once.copy(tmp_path / "compared")


needs_spark = pytest.mark.spark
# Great Expectations imports modules that Python has deprecated, and leaves a folder to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]


@needs_spark
def test_promoted_dates_are_what_building_them_anew_gives(compared: Shop, built: Shop, tmp_path: Path) -> None:
    other = built.copy(tmp_path / "anew")
    shutil.copy(compared.folder / "catalog.csv", other.folder)
    other.build(tables=("catalog",))
    before = compared.contents()
    # The profiles are the same, and so are the correlations: they are not published again.
    assert compared.promote()["rows"] == 4
    assert compared.contents() == other.contents() != before
    assert read_index(compared.lake).to_pylist() == read_index(other.lake).to_pylist()
    assert read_index(compared.lake)[-1].as_py() == "brand-new"
    sold_out = set(to_items(read_index(compared.lake), pa.chunked_array([[f"{n:03}" for n in range(20)]])).to_pylist())
    for date in DATES:
        recommendations = finished_recommendations(compared.lake, date, "spring")
        items = {item for items in compared.lake.read(recommendations)["item"].to_pylist() for item in items}
        assert len(items) >= 5
        assert not items & sold_out
    record = json.loads((compared.folder / "lake" / "backfills" / "manual__2026-03-09T10-00-00-00-00.json").read_text())
    assert record["request"]["reason"] == REASON
    # Again: everything is there, and nothing is published twice.
    after = compared.live_files()
    assert compared.promote()["rows"] == 0
    assert compared.live_files() == after


@needs_spark
def test_the_comparison_says_what_two_tables_read_by_hand_say(compared: Shop) -> None:
    totals = compared.compare()
    staged = Lake.open(f"{compared.lake.uri}/staging/manual__2026-03-09T10-00-00-00-00")
    lost = changed = entered = 0
    for date in DATES:
        lists = []
        for lake in (compared.lake, staged):
            rows = lake.read(lake.manifest(Partition("recommendations", date, "spring")))
            lists.append(dict(zip(rows["user_id"].to_pylist(), rows["item"].to_pylist(), strict=True)))
        before, after = lists
        lost += sum(bool(before[user]) and not after[user] for user in before)
        changed += sum(bool(before[user]) and bool(after[user]) and before[user] != after[user] for user in before)
        entered += len({i for items in after.values() for i in items} - {i for items in before.values() for i in items})
    assert changed > 20
    assert (totals["users_lost"], totals["users_changed"], totals["items_entered"]) == (lost, changed, entered)
    assert 0 < float(totals["coverage_after"]) <= 1


@needs_spark
def test_too_many_users_without_a_list_stop_it_and_the_figures_are_kept(compared: Shop) -> None:
    comparison = compared.folder / "lake/staging/manual__2026-03-09T10-00-00-00-00" / COMPARISON_PATH
    users = json.loads(comparison.read_text())["totals"]
    comparison.unlink()
    if users["users_lost"] == 0:  # lose some: the rebuilt lists become the live ones, and the live ones empty
        staged = Lake.open(f"{compared.lake.uri}/staging/manual__2026-03-09T10-00-00-00-00")
        empty_lists(staged, DATES[0])
    with pytest.raises(GateError, match=r"would lose their recommendations, expected at most 0 %"):
        compared.compare(max_lost_percent=0)
    assert json.loads(comparison.read_text())["totals"]["users_lost"] > 0


def empty_lists(lake: Lake, date: dt.date) -> None:
    manifest = lake.manifest(Partition("recommendations", date, "spring"))
    attempt = lake.attempt(manifest.partition, "emptied")
    files = []
    for bucket in range(lake.buckets):
        rows = lake.read(manifest, bucket=bucket).to_pylist()
        emptied = [{**row, "item": [], "score": [], "outcome": "too_few"} for row in rows]
        files.append(attempt.write(pa.Table.from_pylist(emptied, schema=RECOMMENDATIONS.schema), bucket=bucket))
    attempt.publish(files, inputs=[], parameters={}, metrics=manifest.metrics)


@needs_spark
@pytest.mark.parametrize("table", ["catalog", "correlations", "recommendations", "profiles"])
def test_what_was_published_since_the_comparison_is_never_replaced(compared: Shop, table: str) -> None:
    lake = compared.lake
    manifest = lake.manifest(Partition(table, DATES[1], "spring" if TABLES[table].per_campaign else None))
    attempt = lake.attempt(manifest.partition, "meanwhile")
    count = len(manifest.files)
    files = [attempt.write(lake.read(manifest, bucket=bucket), bucket=bucket) for bucket in range(count)]
    attempt.publish(files, inputs=[], parameters={"made": "meanwhile"}, metrics=manifest.metrics)
    before = compared.live_files()
    with pytest.raises(PublishConflictError, match=f"{table}/.*2026-03-02 of the live lake is not what"):
        compared.promote()
    assert compared.live_files() == before


@needs_spark
def test_an_index_that_grew_otherwise_is_refused_and_one_that_agrees_is_not(compared: Shop) -> None:
    agrees = compared.copy(compared.folder.parent / "agrees")
    append_items(compared.lake, [pa.chunked_array([["another"]])], "night")
    before = compared.live_files()
    with pytest.raises(PublishConflictError, match="some stand where the backfill's"):
        compared.promote()
    assert compared.live_files() == before
    append_items(agrees.lake, [pa.chunked_array([["brand-new"]])], "night")
    append_items(agrees.lake, [pa.chunked_array([["another"]])], "night")
    agrees.promote()
    assert read_index(agrees.lake).to_pylist()[-2:] == ["brand-new", "another"]


@needs_spark
def test_other_code_than_that_which_rebuilt_it_is_refused(compared: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promote_backfill, "code_version", lambda: "deployed")
    with pytest.raises(GateError, match="was rebuilt by code"):
        compared.promote()


class KilledError(Exception):
    pass


@needs_spark
@pytest.mark.parametrize("survives", range(8))
def test_killed_between_two_partitions_each_date_is_old_new_or_unfinished(
    compared: Shop, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    old = {date: finished_recommendations(compared.lake, date, "spring").content_sha256 for date in DATES}
    real, published = LocalStorage.replace_if, []

    def replace_if(self: LocalStorage, path: str, data: bytes, expected: bytes | None) -> None:
        if len(published) == survives:
            raise KilledError
        real(self, path, data, expected)
        published.append(path)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "replace_if", replace_if)
        with pytest.raises(KilledError):
            compared.promote()
    staged = Lake.open(f"{compared.lake.uri}/staging/manual__2026-03-09T10-00-00-00-00")
    for date in DATES:
        new = staged.manifest(Partition("recommendations", date, "spring")).content_sha256
        try:
            found = finished_recommendations(compared.lake, date, "spring").content_sha256
        except GateError:
            continue  # no send starts from it
        assert found in (old[date], new)
        if found == new:
            catalog = Partition("catalog", date)
            assert compared.lake.manifest(catalog).content_sha256 == staged.manifest(catalog).content_sha256
    compared.promote()
    for date in DATES:
        new = staged.manifest(Partition("recommendations", date, "spring")).content_sha256
        assert finished_recommendations(compared.lake, date, "spring").content_sha256 == new != old[date]


def plan(lake: Lake, date: dt.date) -> None:
    attempt = lake.attempt(Partition("chunks", date, "spring"), "night")
    attempt.publish([attempt.write(CHUNKS.schema.empty_table())], inputs=[], parameters={})


@needs_spark
def test_planned_dates_are_refused_at_both_ends_but_can_be_compared(shop: Shop, compared: Shop) -> None:
    for lake in (shop.lake, compared.lake):
        plan(lake, DATES[1])
    with pytest.raises(GateError, match="the push of 2026-03-02 was planned"):
        shop.stage()
    assert shop.stage(promote=False)["dates"] == 2
    with pytest.raises(GateError, match="the push of 2026-03-02 was planned"):
        compared.promote()


@needs_spark
def test_staging_is_resumed_and_bound_to_its_request(shop: Shop) -> None:
    assert shop.stage() == shop.stage()
    with pytest.raises(ConfigError, match="was begun for another request"):
        shop.stage(last_date=DATES[0])
    staged = shop.folder / "lake/staging/manual__2026-03-09T10-00-00-00-00"
    # Nobody's address and no single event is copied.
    assert {path.name for path in staged.iterdir() if path.is_dir()} == {
        "profiles", "catalog", "quarantine_catalog", "item_index",
    }  # fmt: skip
    with pytest.raises(EmptyPartitionError, match="run compare_backfill first"):
        shop.promote()


@needs_spark
def test_dates_that_were_never_built_are_named(shop: Shop) -> None:
    with pytest.raises(EmptyPartitionError, match="the build of spring 2026-03-03 is not finished"):
        shop.stage(last_date=dt.date(2026, 3, 3))
    (shop.folder / "lake" / Partition("users", DATES[0]).manifest_path).unlink()
    with pytest.raises(EmptyPartitionError, match="users/date=2026-03-01 was never published"):
        shop.stage()


@needs_spark
def test_an_empty_catalog_stages_nothing(shop: Shop) -> None:
    path = shop.folder / "catalog.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    before = shop.live_files()
    with pytest.raises(EmptyPartitionError):
        shop.stage()
    assert shop.live_files() == before


@needs_spark
def test_steps_out_of_order_say_which_comes_first(shop: Shop) -> None:
    for step in (shop.rebuild, shop.compare, shop.promote):
        with pytest.raises(EmptyPartitionError, match="run stage_backfill with this run id first"):
            step()
    assert shop.lake.find(Partition("item_index", UNDATED)) is not None


@pytest.mark.parametrize(
    "reason", ["", "test", "short one", "test test test", "Backfill the catalog", "aaaaaaaaaaaaaaaa", "xx, yy, zz, qq!"]
)
def test_reasons_that_say_nothing_are_refused(reason: str) -> None:
    with pytest.raises(ConfigError, match="says nothing"):
        BackfillRequest("spring", DATES[0], DATES[1], reason)


def test_spans_that_nobody_can_mean_are_refused() -> None:
    longest = DATES[0] + dt.timedelta(days=MAX_DATES - 1)
    assert len(BackfillRequest("spring", DATES[0], longest, REASON).dates) == MAX_DATES
    for last in (DATES[0] - dt.timedelta(days=1), longest + dt.timedelta(days=1)):
        with pytest.raises(ConfigError, match="expected 1 to 31"):
            BackfillRequest("spring", DATES[0], last, REASON)
    request = BackfillRequest("spring", DATES[0], DATES[1], REASON)
    assert BackfillRequest.from_bytes(request.to_bytes()) == request


lists = st.dictionaries(st.sampled_from(["a", "b", "ü", "d", "e", "f"]), st.lists(st.integers(0, 3), max_size=3))


@given(lists, lists)
def test_users_are_compared_as_a_loop_would(before: dict[str, list[int]], after: dict[str, list[int]]) -> None:
    def table(rows: dict[str, list[int]]) -> pa.Table:
        kind = RECOMMENDATIONS.schema.field("item").type
        return pa.table({"user_id": pa.array(list(rows), pa.string()), "item": pa.array(list(rows.values()), kind)})

    pairs = [(before.get(user, []), after.get(user, [])) for user in before | after]
    assert compare_users(table(before), table(after)) == UserChanges(
        gained=sum(not old and bool(new) for old, new in pairs),
        lost=sum(bool(old) and not new for old, new in pairs),
        changed=sum(bool(old) and bool(new) and old != new for old, new in pairs),
        same=sum(bool(old) and old == new for old, new in pairs),
    )


def modules_behind(*names: str) -> set[str]:
    """Every module of the repository that these import, at whatever depth and wherever the import stands."""
    todo, found = list(names), set()
    while todo:
        name = todo.pop()
        places = [ROOT / f"{name.replace('.', '/')}.py", ROOT / name.replace(".", "/") / "__init__.py"]
        path = next((place for place in places if place.exists()), None)
        if path is None or name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_nothing_that_mails_is_imported_by_a_backfill() -> None:
    steps = [f"jobs.{name}" for name in ("stage_backfill", "rebuild_dates", "compare_backfill", "promote_backfill")]
    behind = modules_behind(*steps)
    assert len(behind) > 30
    assert {"jobs.recommend_items", "jobs.spark_session", "jobs.quality.gates"} <= behind
    work = {name for name in behind if name.startswith("jobs.")}
    assert not {name for name in work if name.startswith("jobs.delivery") or "send" in name or "push" in name}
    assert "jobs.delivery.client" in modules_behind("jobs.push_chunk")  # the search sees what there is to see
