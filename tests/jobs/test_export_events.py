"""Events that come late, twice or from the future, over many nights, against an oracle that knows each event's fate."""

import contextlib
import datetime as dt
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from small_shop import Export

from jobs.lake.lake import Lake
from jobs.quality.override import GateOverride
from schemas.errors import ConfigError, SchemaError
from schemas.layout import Partition
from schemas.tables import TABLES

FIRST = dt.date(2026, 3, 2)
HISTORY_DAYS = 3
OTHERS = """
[catalog]
query = "SELECT 1 AS item_id ORDER BY 1"
[users]
query = "SELECT 1 AS user_id ORDER BY 1"
"""
Event = tuple[str, str, str, str, int, float | None]


def at(date: dt.date, seconds: int) -> str:
    return (dt.datetime.combine(date, dt.time(), dt.UTC) + dt.timedelta(seconds=seconds)).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )


class Shop:
    """A shop whose events become visible as days go by."""

    def __init__(self, folder: Path, said: str = "", columns: str = "") -> None:
        self.path = folder / "shop.sqlite"
        with self.database() as database:
            database.execute(
                "CREATE TABLE events (n INTEGER PRIMARY KEY, user_id, item_id, event_type, occurred_at, quantity,"
                " price, event_id, received_at)"
            )
        (folder / "shop.toml").write_text(
            f"""
kind = "sql"
name = "shop"
history_days = {HISTORY_DAYS}
uri = "sqlite:///{self.path}"
[events]
{said}
query = "SELECT user_id, item_id, event_type, occurred_at, quantity, price {columns} FROM events WHERE occurred_at >= \
:window_start AND occurred_at < :window_end ORDER BY n"
{OTHERS}"""  # noqa: S608
        )
        # A handful of rows, each to prove a rule, is no day that the gates would take for a shop's.
        override = GateOverride(by="the tests", reason="few rows, chosen to prove one rule each")
        self.export = Export(folder / "lake", folder / "shop.toml", override=override)

    @contextlib.contextmanager
    def database(self):
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            yield database

    def add(self, events: list[Event], ids: list[str | None] | None = None) -> None:
        with self.database() as database:
            rows = [(*event, number) for event, number in zip(events, ids or [None] * len(events), strict=True)]
            database.executemany(
                "INSERT INTO events (user_id, item_id, event_type, occurred_at, quantity, price, event_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)", rows,
            )  # fmt: skip

    def night(self, date: dt.date) -> dict[str, object]:
        """Export the day and take it as folded."""
        result = self.export.run("events", date)
        lake = Lake.open(str(self.export.lake))
        attempt = lake.attempt(Partition("profiles", date), "r")
        empty = TABLES["profiles"].schema.empty_table()
        attempt.publish([attempt.write(empty, bucket=n) for n in range(4)], inputs=[], parameters={})
        return result

    def events(self, *dates: dt.date) -> Counter[tuple[object, ...]]:
        found: Counter[tuple[object, ...]] = Counter()
        for date in dates:
            for row in self.export.read("events", date).to_pylist():
                found[(*list(row.values())[:3], row["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"))] += 1
        return found


def drawn(draws: random.Random, date: dt.date, count: int) -> list[Event]:
    """Few users, items and seconds: many events are the same in every column."""
    return [
        (f"u{draws.randrange(6)}", f"i{draws.randrange(3)}", draws.choice(["view", "purchase"]),
         at(date, 3600 * draws.randrange(24)), 1, draws.choice([None, 1.5]))
        for _ in range(count)
    ]  # fmt: skip


def expected(events: list[Event]) -> Counter[tuple[object, ...]]:
    return Counter(event[:4] for event in events)


@pytest.mark.parametrize("late_days", [1, 3])
def test_late_events_are_exported_exactly_once(tmp_path, late_days):
    shop = Shop(tmp_path, f"late_days = {late_days}")
    draws = random.Random(late_days)
    in_time: list[Event] = []
    dates = [FIRST + dt.timedelta(days=day) for day in range(7)]
    too_late = late_used = 0
    for night, date in enumerate(dates):
        arriving = drawn(draws, date, 150)
        in_time += arriving
        for lateness in range(1, 6):
            # Late ones come on any night, copies of what is there already among them.
            day = date - dt.timedelta(days=lateness)
            late = drawn(draws, day, 20)
            arriving += late
            if night == 0 or (lateness <= late_days and day > FIRST - dt.timedelta(days=HISTORY_DAYS)):
                within = night > 0 or day > FIRST - dt.timedelta(days=HISTORY_DAYS)
                in_time += late if within else []
                late_used += len(late) if night > 0 else 0
            else:
                too_late += len(late)
        draws.shuffle(arriving)
        shop.add(arriving)
        result = shop.night(date)
        # Running a night again finds what it found.
        assert shop.export.run("events", date)["content"] == result["content"]
        if night:
            assert sum(result["late_by_day"].values()) > 0
            assert len(result["late_by_day"]) <= late_days
        assert result["read"] == result["rows"] + result["already_exported"]
    assert too_late > 0 < late_used
    assert shop.events(*dates) == expected(in_time)
    assert max(expected(in_time).values()) > 2


def test_what_was_never_exported_is_not_taken_for_late(tmp_path):
    shop = Shop(tmp_path, "late_days = 10")
    draws = random.Random(1)
    shop.add([event for day in range(-10, 2) for event in drawn(draws, FIRST + dt.timedelta(days=day), 30)])
    shop.night(FIRST)
    second = shop.night(FIRST + dt.timedelta(days=1))
    # The first export took three days; those before it stay out, however far the second may look back.
    assert (second["rows"], second["already_exported"], second["late_by_day"]) == (30, 90, {})
    assert len(Lake.open(str(shop.export.lake)).manifest(Partition("events", FIRST + dt.timedelta(days=1))).inputs) == 1


def test_a_missed_night_is_covered_with_the_late_days_before_it(tmp_path):
    shop = Shop(tmp_path, "late_days = 1")
    draws = random.Random(2)
    first, third = drawn(draws, FIRST, 40), FIRST + dt.timedelta(days=2)
    shop.add(first)
    shop.night(FIRST)
    rest = [event for day in (0, 1, 2) for event in drawn(draws, FIRST + dt.timedelta(days=day), 40)]
    shop.add(rest)
    assert shop.night(third)["late_by_day"] == {"2026-03-02": 40}
    assert shop.events(FIRST, third) == expected([*first, *rest])


def test_an_event_that_the_shop_sent_twice_counts_once(tmp_path):
    shop = Shop(tmp_path, "late_days = 1", ", event_id")
    draws = random.Random(3)
    events = drawn(draws, FIRST, 200)
    ids = [str(n) for n in range(180)] + [None] * 10 + [""] * 10
    again = [3, 3, 50, 7]
    shop.add([*events, *(events[n] for n in again)], [*ids, *(ids[n] for n in again)])
    result = shop.night(FIRST)
    assert result["quarantined_by_reason"] == {"duplicate_event": 4}
    assert shop.events(FIRST) == expected(events)
    # The next night, one of them comes again, and something new of that day.
    later = drawn(draws, FIRST + dt.timedelta(days=1), 50)
    shop.add(
        [events[9], ("new", "i", "view", at(FIRST, 5), 1, None), *later], ["9", "new", *(f"x{n}" for n in range(50))]
    )
    second = shop.night(FIRST + dt.timedelta(days=1))
    assert (second["rows"], second["late_by_day"]) == (51, {"2026-03-02": 1})


@pytest.mark.parametrize(("said", "duplicates"), [("", 0), ('duplicates = "quarantine"', 30)])
def test_the_same_row_twice_is_two_events_unless_the_shop_says_otherwise(tmp_path, said, duplicates):
    shop = Shop(tmp_path, said)
    events = [(f"u{n}", "i", "view", at(FIRST, n), 1, None) for n in range(50)]
    shop.add([*events, *events[:30]])
    result = shop.night(FIRST)
    assert (result["rows"], result["quarantined"]) == (80 - duplicates, duplicates)
    assert max(shop.events(FIRST).values()) == (1 if duplicates else 2)


def test_rows_that_waited_are_the_same_bytes_for_any_batches(tmp_path, monkeypatch):
    contents = set()
    for batch_rows in (7, 100, 65_536):
        folder = tmp_path / str(batch_rows)
        folder.mkdir()
        monkeypatch.setattr("jobs.sources.sqlite_database._BATCH_ROWS", batch_rows)
        monkeypatch.setattr("jobs.export.bucket_queue._BLOCK_BYTES", 90 * 120)
        monkeypatch.setattr("jobs.export.bucket_queue._GROUP_BYTES", 1)
        shop = Shop(folder, 'late_days = 2\nduplicates = "quarantine"')
        draws = random.Random(4)
        shop.add(drawn(draws, FIRST, 300))
        shop.night(FIRST)
        shop.add([event for day in (0, 1) for event in drawn(draws, FIRST + dt.timedelta(days=day), 300)])
        contents.add(str(shop.night(FIRST + dt.timedelta(days=1))["content"]))
    assert len(contents) == 1


def test_late_days_and_received_at_exclude_each_other(tmp_path):
    shop = Shop(tmp_path, "late_days = 1", ", received_at")
    shop.add(drawn(random.Random(5), FIRST, 5))
    with pytest.raises(SchemaError, match="received_at, which tells late events already"):
        shop.night(FIRST)
    shop = tmp_path / "files.toml"
    shop.write_text(
        """
kind = "files"
name = "s"
default_date = 2026-03-02
history_days = 1
data_folder = "."
events = { path = "e.csv", late_days = 1, columns = { user_id = "u", item_id = "i", event_type = "e", \
occurred_at = "t", quantity = "q", received_at = "r" } }
catalog = { path = "x.csv", columns = { item_id = "i", title = "t", url = "u", image_url = "m", price = "p", \
currency = "c", stock = "s" } }
users = { path = "x.csv", columns = { user_id = "u", is_subscribed = "s" } }
"""
    )
    with pytest.raises(ConfigError, match="late_days is for sources without received_at"):
        Export(tmp_path / "lake", shop).run("events")


def test_a_clock_that_runs_ahead_is_not_the_newest_thing_about_its_user(tmp_path):
    shop = Shop(tmp_path, "", ", received_at")
    text = shop.export.settings.read_text()
    shop.export.settings.write_text(
        text.replace("WHERE occurred_at >=", "WHERE received_at >=").replace("AND occurred_at <", "AND received_at <")
    )
    noon = 12 * 3600
    cases = [(noon, noon), (noon + 900, noon), (noon + 901, noon), (86_400 * 3, noon), (86_401, 86_399)]
    with shop.database() as database:
        for number, (occurred, received) in enumerate(cases):
            database.execute(
                "INSERT INTO events (user_id, item_id, event_type, occurred_at, quantity, received_at)"
                " VALUES (?, 'i', 'view', ?, 1, ?)", (str(number), at(FIRST, occurred), at(FIRST, received)),
            )  # fmt: skip
    result = shop.export.run("events", FIRST)
    assert sorted(shop.export.read("events", FIRST).column("user_id").to_pylist()) == ["0", "1"]
    assert result["quarantined_by_reason"] == {"future_timestamp": 3}
