"""The gates of the exports, through the job: what is broken publishes nothing, and what is good replaces whole."""

import datetime as dt
import gzip
import json
import logging

import pytest
from small_shop import DATE, Export, make_csv, make_json, make_parquet, shop_rows

from jobs.delivery.chunk_rows import newest_catalog, read_chunk
from jobs.delivery.ledger import ChunkPlan
from jobs.export import partition_writer
from jobs.export_table import main
from jobs.lake.item_index import append_items
from jobs.lake.lake import Lake
from jobs.quality import checked_publish
from jobs.quality.checked_publish import OVERRIDDEN
from jobs.quality.history import FIGURES, relative_figures
from jobs.quality.kept_checks import read_passed, read_stopped
from jobs.quality.override import BY_VARIABLE, REASON_VARIABLE, GateOverride
from schemas.contracts import CONTRACTS
from schemas.errors import ConfigError, EmptyPartitionError, GateError, RymlError
from schemas.layout import Partition
from schemas.tables import CHUNKS

TODAY = DATE + dt.timedelta(days=1)
CATALOG = ("item_id", "title", "url", "image_url", "category", "price", "currency", "stock", "rating", "color")
OVERRIDE = GateOverride.of(by="Dana, data team", reason="the shop merged two user bases on purpose")


@pytest.fixture
def shop(tmp_path):
    """A shop whose catalog and users are published for yesterday."""
    export = Export(tmp_path / "lake", make_csv(tmp_path, shop_rows()))
    export.run("catalog")
    export.run("users")
    return export


def changed(export, table, change):
    """Write the shop's files anew, with one table changed."""
    rows = shop_rows()
    rows[table] = change(rows[table])
    make_csv(export.settings.parent, rows)


def with_column(name, value):
    place = CATALOG.index(name)

    def change(rows):
        return [(*row[:place], value(row[place]) if callable(value) else value, *row[place + 1 :]) for row in rows]

    return change


def halved(rows):
    return rows[::2]


def lake_of(export):
    return Lake.open(str(export.lake))


def stopped(export, table, date=TODAY):
    return read_stopped(lake_of(export), Partition(table, date))


BROKEN = {
    "half the items": ("catalog", halved, GateError, "rows_of_last_good is 0.5, expected at least 0.8"),
    "no items": ("catalog", lambda rows: [], EmptyPartitionError, "no usable catalog"),
    "all prices zero": ("catalog", with_column("price", 0), EmptyPartitionError, "40 bad_price"),
    "prices in cents": ("catalog", with_column("price", lambda p: p * 100), GateError, "price_median_of_last_good is"),
    "nothing in stock": ("catalog", with_column("stock", 0), GateError, "in_stock_share is 0"),
    "other ids": ("catalog", with_column("item_id", lambda i: f"sku-{i}"), GateError, "ids_kept_share is 0"),
    "paths for addresses": ("catalog", with_column("url", lambda u: u[8:]), GateError, "url_malformed_share is 1"),
    "half the users": ("users", halved, GateError, "rows_of_last_good is 0.5"),
    "no addresses": (
        "users", lambda rows: [(row[0], None, *row[2:]) for row in rows], GateError, "email_share_of_last_good is 0",
    ),
    "all unsubscribed": (
        "users", lambda rows: [(*row[:2], False, *row[3:]) for row in rows], GateError, "subscribed_share is 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("date", [DATE, TODAY], ids=["uploaded again", "the next day"])
def test_what_is_broken_publishes_nothing_and_what_was_there_stays(shop, name, date):
    table, change, error, message = BROKEN[name]
    before = {part: shop.content(part) for part in ("catalog", "users", f"quarantine_{table}")}
    attempts = shop.attempts()
    changed(shop, table, change)
    with pytest.raises(error) as caught:
        shop.run(table, date, run_id="broken")
    assert message in str(caught.value)
    assert "othing was published" in str(caught.value)
    assert {part: shop.content(part) for part in before} == before
    assert shop.content(table, TODAY) is None
    assert shop.content(f"quarantine_{table}", TODAY) is None
    assert shop.attempts() == attempts


@pytest.mark.parametrize("form", ["a table cut short", "a packed file cut short"])
def test_a_half_written_file_stops(tmp_path, form):
    make = make_parquet if form == "a table cut short" else make_json
    export = Export(tmp_path / "lake", make(tmp_path, shop_rows()))
    export.run("catalog")
    before = export.content("catalog")
    path = next(tmp_path.glob("catalog.*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RymlError):
        export.run("catalog")
    with pytest.raises(RymlError):
        export.run("catalog", TODAY)
    assert export.content("catalog") == before
    assert export.content("catalog", TODAY) is None


def test_half_the_lines_of_a_packed_file_are_half_a_catalog(tmp_path):
    export = Export(tmp_path / "lake", make_json(tmp_path, shop_rows()))
    export.run("catalog")
    path = tmp_path / "catalog.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))
    with pytest.raises(GateError, match=r"rows_of_last_good is 0\.5"):
        export.run("catalog", TODAY)


def test_everything_that_was_found_is_kept_beside_the_partition(shop):
    lake = lake_of(shop)
    passed = read_passed(lake, lake.manifest(Partition("catalog", DATE)))
    assert (passed.verdict, passed.override, passed.message) == ("passed", None, None)
    verdicts = {check.figure: check.verdict for check in passed.checks}
    assert verdicts.pop("rows_of_last_good") == "skipped"
    assert set(verdicts.values()) == {"passed", "skipped"}
    skipped = [check for check in passed.checks if check.verdict == "skipped"]
    assert len(skipped) == 4
    for check in skipped:
        assert check.observed is None
        assert check.skipped_because.startswith("no catalog")
    changed(shop, "catalog", halved)
    with pytest.raises(GateError) as caught:
        shop.run("catalog", TODAY, run_id="scheduled__2026")
    kept = stopped(shop, "catalog")
    assert (kept.verdict, kept.run_id, kept.message) == ("stopped", "scheduled__2026", str(caught.value))
    failed = {check.figure: (check.observed, check.expected) for check in kept.checks if check.verdict == "failed"}
    assert failed == {"rows_of_last_good": (0.5, "at least 0.8 and at most 2.0")}
    # What passes next takes the note away.
    make_csv(shop.settings.parent, shop_rows())
    shop.run("catalog", TODAY)
    assert stopped(shop, "catalog") is None


def test_rows_are_held_against_the_median_of_the_same_weekday(shop):
    lake, weeks = lake_of(shop), [DATE + dt.timedelta(weeks=week) for week in range(5)]
    for date in weeks[1:4]:
        shop.run("catalog", date)
    contract, monday = CONTRACTS["catalog"], Partition("catalog", weeks[4])
    ratios, missing = relative_figures(lake, contract, monday, {"rows": 10})
    assert ratios["rows_of_weekday_median"] == 10 / 40
    assert set(missing) == {"price_median_of_last_good"}
    tuesday = Partition("catalog", weeks[4] + dt.timedelta(days=1))
    ratios, missing = relative_figures(lake, contract, tuesday, {"rows": 10, "price_median": 1})
    assert "rows_of_weekday_median" not in ratios
    assert missing["rows_of_weekday_median"] == "no catalog of a Tuesday with this figure in the 4 weeks before"


def in_a_week(row):
    at = dt.datetime.fromisoformat(row[3]) + dt.timedelta(weeks=1)
    return (*row[:3], at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), *row[4:])


@pytest.mark.parametrize("lost_hours", [range(12), range(12, 24)], ids=["the morning", "the evening"])
def test_half_a_day_of_events_is_noticed_though_a_slow_day_may_have_as_few(shop, lost_hours):
    shop.run("events")
    next_week = DATE + dt.timedelta(weeks=1)

    def without_hours(rows):
        events = [in_a_week(row) for row in rows]
        days = [row for row in events if row[3] >= next_week.isoformat()]
        assert len({row[3][11:13] for row in days}) == 24
        return [row for row in events if row not in days or int(row[3][11:13]) not in lost_hours]

    changed(shop, "events", without_hours)
    with pytest.raises(GateError, match=r"hours_of_last_day_of_weekday_median is 0\.5, expected at least 0\.6"):
        shop.run("events", next_week)
    assert shop.content("events", next_week) is None
    assert {check.figure for check in stopped(shop, "events", next_week).checks if check.verdict == "failed"} == {
        "hours_of_last_day_of_weekday_median"
    }
    changed(shop, "events", lambda rows: [in_a_week(row) for row in rows[::2]])
    assert shop.run("events", next_week)["rows"] > 100


def test_only_a_person_with_a_name_and_a_reason_lets_a_judgement_pass(shop):
    changed(shop, "users", halved)
    options = {
        "lake": str(shop.lake), "table": "users", "date": TODAY, "source": shop.settings, "data": None, "run_id": "r",
    }  # fmt: skip
    with pytest.raises(GateError, match="run again with override_gates_by and override_gates_reason"):
        main(**options)
    result = main(**options, override=OVERRIDE)
    assert result["rows"] == 35
    manifest = lake_of(shop).manifest(Partition("users", TODAY))
    assert manifest.metrics[OVERRIDDEN] == 1
    kept = read_passed(lake_of(shop), manifest)
    assert kept.verdict == "overridden"
    assert kept.override == {"by": OVERRIDE.by, "reason": OVERRIDE.reason}
    assert [check.figure for check in kept.checks if check.verdict == "overridden"] == ["rows_of_last_good"]


def test_what_no_night_may_break_is_not_for_anybody_to_let_pass(shop):
    changed(shop, "catalog", with_column("stock", 0))
    with pytest.raises(GateError, match="in_stock_share is 0") as caught:
        main(
            lake=str(shop.lake), table="catalog", date=TODAY, source=shop.settings, data=None, run_id="r",
            override=OVERRIDE,
        )  # fmt: skip
    assert "override" not in str(caught.value)
    assert stopped(shop, "catalog").override is None


def test_an_override_that_nothing_needs_leaves_no_trace(shop):
    main(lake=str(shop.lake), table="users", date=TODAY, source=shop.settings, data=None, run_id="r", override=OVERRIDE)
    manifest = lake_of(shop).manifest(Partition("users", TODAY))
    assert OVERRIDDEN not in manifest.metrics
    assert read_passed(lake_of(shop), manifest).override is None


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("Dana", ""),
        ("", "the shop merged two user bases"),
        ("Dana", "test test test"),
        ("d@example.com", "a real one!"),
    ],
)
def test_half_an_override_is_none(by, reason):
    with pytest.raises(ConfigError):
        GateOverride.from_environment({BY_VARIABLE: by, REASON_VARIABLE: reason})
    assert GateOverride.from_environment({}) is None
    assert GateOverride.from_environment(OVERRIDE.as_environment()) == OVERRIDE


def test_an_error_inside_an_expectation_stops_even_what_was_let_pass(shop, monkeypatch):
    """A figure that is not counted any more is no figure that holds."""
    whole = checked_publish.evaluate

    def without_a_figure(table, frame, **options):
        return whole(table, {name: value for name, value in frame.items() if name != "used_share"}, **options)

    monkeypatch.setattr(checked_publish, "evaluate", without_a_figure)
    with pytest.raises(GateError, match="used_share could not be evaluated"):
        main(
            lake=str(shop.lake), table="users", date=TODAY, source=shop.settings, data=None, run_id="r",
            override=OVERRIDE,
        )  # fmt: skip
    assert shop.content("users", TODAY) is None
    assert {check.figure: check.verdict for check in stopped(shop, "users").checks}["used_share"] == "error"


def test_without_its_gate_a_halved_table_would_be_published(shop, monkeypatch):
    """Mutant: a gate whose outcomes all hold. Readers would see half the users."""
    changed(shop, "users", halved)
    monkeypatch.setattr(checked_publish, "_verdict", lambda check, outcome, override: "passed")
    shop.run("users", TODAY)
    assert shop.read("users", TODAY).num_rows == 35


def test_the_gate_comes_before_anything_is_published(shop, monkeypatch):
    published = []
    real = partition_writer.check_export

    def judged(attempt, *rest):
        published.extend(path for path in shop.lake.rglob("_manifest.json") if str(TODAY) in str(path))
        return real(attempt, *rest)

    monkeypatch.setattr(partition_writer, "check_export", judged)
    shop.run("catalog", TODAY)
    assert published == []
    assert shop.content("catalog", TODAY)


CANARY = "kanarienvogel"


def test_no_value_of_a_row_is_in_anything_that_a_gate_says(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    rows = shop_rows()
    rows["users"] = [
        (f"{CANARY}-{n}", f"{CANARY}.{n}@example.com" if n % 2 else f"{CANARY} no address", True, CANARY, CANARY)
        for n in range(20)
    ]
    rows["catalog"] = [(f"{CANARY}{n}", CANARY, CANARY, CANARY, CANARY, 1 + n, CANARY, 0, 1, CANARY) for n in range(9)]
    export = Export(tmp_path / "lake", make_csv(tmp_path, rows))
    with pytest.raises(GateError) as caught:
        export.run("catalog")
    assert "url_malformed_share is 1" in str(caught.value)
    assert "currency_malformed_share is 1" in str(caught.value)
    said = [str(caught.value), json.dumps(export.run("users"))]
    rows["users"] = rows["users"][:5]
    make_csv(tmp_path, rows)
    with pytest.raises(GateError) as caught:
        export.run("users", TODAY)
    output = capfd.readouterr()
    said += [str(caught.value), output.out, output.err, caplog.text]
    files = [path for path in export.lake.rglob("*.json") if path.name != "_lake.json"]
    assert {path.name for path in files} >= {"_checks.json", "_stopped_checks.json", "_manifest.json"}
    said += [path.read_text() for path in files]
    assert len(said) >= 8
    for text in said:
        assert CANARY not in text


def test_a_catalog_uploaded_again_is_a_new_snapshot_and_the_push_uses_it(shop):
    lake = lake_of(shop)
    first = lake.manifest(Partition("catalog", DATE))
    append_items(lake, [lake.read(first)["item_id"]], "r")
    plan = lake.attempt(Partition("chunks", DATE, "spring"), "r")
    users = lake.manifest(Partition("users", DATE))
    bucket, user = next(
        (entry.bucket, lake.read_file(users, entry, ["user_id"])["user_id"][0].as_py())
        for entry in users.files
        if entry.rows
    )
    row = {
        "user_id": user,
        "action": "upsert",
        "reason": "has_recommendations",
        "item": [1, 2, 3],
        "part": 0,
        "variant": "",
    }
    rows = [CHUNKS.schema.empty_table().from_pylist([row] if n == bucket else [], CHUNKS.schema) for n in range(4)]
    entries = [plan.write(part, bucket=n) for n, part in enumerate(rows)]
    planned = plan.publish(entries, inputs=[], parameters={})

    def pushed():
        chunk = read_chunk(
            lake, planned, users, newest_catalog(lake, DATE), ChunkPlan(0, bucket, 0, 1, 0), slots=3, min_items=1
        )
        return {row["item_id"]: str(row["price"]) for row in chunk.catalog.to_pylist()}, chunk.items.tolist()

    prices, items = pushed()
    assert items == [1, 2, 3]
    assert prices["001"] == "1.3500"
    # Item 1 costs more, item 2 is sold out, and there is a new one that no index knows yet.
    changed(
        shop,
        "catalog",
        lambda rows: [
            *((*row[:5], 7.5, *row[6:]) if row[0] == "001" else (*row[:7], 0, *row[8:]) if row[0] == "002" else row
              for row in rows),
            ("brand-new", *rows[-1][1:]),
        ],
    )  # fmt: skip
    shop.run("catalog", run_id="uploaded-again")
    second = lake.manifest(Partition("catalog", DATE))
    assert (second.sequence, second.rows) == (first.sequence + 1, 41)
    assert newest_catalog(lake, DATE) == second
    prices, items = pushed()
    assert prices["001"] == "7.5000"
    assert items == [1, 3]
    # A broken upload later that day changes nothing.
    changed(shop, "catalog", halved)
    with pytest.raises(GateError):
        shop.run("catalog", run_id="broken")
    assert newest_catalog(lake, DATE) == second
    # The morning after, a newer snapshot wins.
    make_csv(shop.settings.parent, shop_rows())
    shop.run("catalog", TODAY)
    assert newest_catalog(lake, DATE).partition.date == TODAY
    assert FIGURES in newest_catalog(lake, DATE).metrics
