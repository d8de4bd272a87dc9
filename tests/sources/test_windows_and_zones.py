"""Two years of events in six time zones: every event is in exactly one window, whatever the clocks did."""

import contextlib
import datetime as dt
import random
import sqlite3
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from jobs.lake.manifest import Window
from jobs.quality.casts import instants
from jobs.quality.row_rules import check_rows
from jobs.sources.open_source import open_source
from schemas.errors import SchemaError
from schemas.source import load_source
from schemas.tables import EVENTS

# Half an hour's change, none, changes in the other half of the year, and offsets of quarters of an hour among them.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago")
START = dt.datetime(2027, 7, 1, tzinfo=dt.UTC)  # two ends of a year, 29 February 2028
DAYS = 731
SETTINGS = """
kind = "sql"
name = "shop"
history_days = 1
uri = "sqlite:///{path}"
[events]
timezone = "{zone}"
query = "SELECT user_id, 'i' AS item_id, 'view' AS event_type, occurred_at, 1 AS quantity FROM events WHERE \
occurred_at >= replace(substr(:window_start, 1, 19), 'T', ' ') AND \
occurred_at < replace(substr(:window_end, 1, 19), 'T', ' ') ORDER BY n"
[catalog]
query = "SELECT 1 ORDER BY 1"
[users]
query = "SELECT 1 ORDER BY 1"
"""


def wall_time(instant: dt.datetime, zone: str) -> str:
    return instant.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def two_years(zone: str) -> list[dt.datetime]:
    """Random instants, and many around every change of the clocks, every midnight of the year's ends and a leap day."""
    draws = random.Random(zone)
    seconds = [draws.randrange(DAYS * 86_400) for _ in range(4_000)]
    local = ZoneInfo(zone)
    for hour in range(DAYS * 24):
        at = START + dt.timedelta(hours=hour)
        changes = at.astimezone(local).utcoffset() != (at + dt.timedelta(hours=1)).astimezone(local).utcoffset()
        special = at.strftime("%m-%d %H") in ("12-31 23", "02-28 23", "02-29 23")
        if changes or special:
            seconds += [hour * 3600 + draws.randrange(-7_200, 10_800) for _ in range(200)]
            seconds += [hour * 3600 + 3600 + edge for edge in (-1, 0, 1)]
    return [START + dt.timedelta(seconds=second) for second in seconds if 0 <= second < DAYS * 86_400]


def windows() -> list[Window]:
    """Every day, and now and then several at once, as after a missed night."""
    draws, days, found = random.Random(1), 0, []
    while days < DAYS:
        length = min(draws.choice([1, 1, 1, 1, 1, 1, 3]), DAYS - days)
        first = (START + dt.timedelta(days=days)).date()
        found.append(Window.of_days(first, first + dt.timedelta(days=length - 1)))
        days += length
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_each_event_is_exported_exactly_once(tmp_path, zone):
    instants_ = two_years(zone)
    assert len(instants_) > 4_000
    path = tmp_path / "shop.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE events (n INTEGER PRIMARY KEY, user_id, occurred_at)")
        database.execute("CREATE INDEX at ON events (occurred_at)")
        rows = [(str(n), wall_time(instant, zone)) for n, instant in enumerate(instants_)]
        database.executemany("INSERT INTO events (user_id, occurred_at) VALUES (?, ?)", rows)
    (tmp_path / "shop.toml").write_text(SETTINGS.format(path=path, zone=zone))
    settings = load_source(tmp_path / "shop.toml")
    source = open_source(settings, settings_path=tmp_path / "shop.toml", data=None, source_uri=None)
    seen: list[int] = []
    moved = 0
    whole = Window.of_days(START.date() - dt.timedelta(days=1), (START + dt.timedelta(days=DAYS)).date())
    for window in [*windows(), Window(whole.start_at, START), Window(START + dt.timedelta(days=DAYS), whole.end_at)]:
        with source.reading(EVENTS, window) as reading:
            for batch in reading.batches:
                checked = check_rows(EVENTS, batch, window, holds_all_days=reading.holds_all_days, zone=zone)
                assert checked.quarantined.num_rows == 0
                for row in checked.good.to_pylist():
                    number = int(row["user_id"])
                    seen.append(number)
                    assert window.start_at <= row["occurred_at"] < window.end_at
                    # The hour that comes twice is read as the first of the two: an hour or half of one too early.
                    if row["occurred_at"] != instants_[number].replace(microsecond=0):
                        moved += 1
                        assert instants_[number] - row["occurred_at"] in (
                            dt.timedelta(hours=1),
                            dt.timedelta(minutes=30),
                        )
    assert sorted(seen) == list(range(len(instants_)))
    assert (moved > 0) == (zone not in ("UTC", "Asia/Kathmandu"))


def test_a_clock_that_is_put_back_at_midnight_utc_loses_nothing(tmp_path):
    """As in Cairo in 1975: the hour before the window's end is, on the wall, behind it."""
    change = dt.datetime(1975, 10, 1, tzinfo=dt.UTC)
    events = [change + dt.timedelta(minutes=minutes) for minutes in range(-300, 300, 10)]
    path = tmp_path / "shop.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE events (n INTEGER PRIMARY KEY, user_id, occurred_at)")
        rows = [(str(n), wall_time(instant, "Africa/Cairo")) for n, instant in enumerate(events)]
        database.executemany("INSERT INTO events (user_id, occurred_at) VALUES (?, ?)", rows)
    (tmp_path / "shop.toml").write_text(SETTINGS.format(path=path, zone="Africa/Cairo"))
    settings = load_source(tmp_path / "shop.toml")
    source = open_source(settings, settings_path=tmp_path / "shop.toml", data=None, source_uri=None)
    seen = []
    for day in (-1, 0):
        date = (change + dt.timedelta(days=day)).date()
        window = Window.of_days(date, date)
        with source.reading(EVENTS, window) as reading:
            for batch in reading.batches:
                good = check_rows(EVENTS, batch, window, holds_all_days=True, zone="Africa/Cairo").good
                seen += [int(user_id) for user_id in good.column("user_id").to_pylist()]
    assert sorted(seen) == list(range(60))


@pytest.mark.parametrize(
    ("wall", "instant"),
    [
        ("2026-03-29 01:59:59", "2026-03-29T00:59:59"),
        ("2026-03-29 02:00:00", "2026-03-29T01:00:00"),  # skipped: the moment of the change
        ("2026-03-29 02:59:59.9", "2026-03-29T01:00:00"),
        ("2026-03-29 03:00:00", "2026-03-29T01:00:00"),
        ("2026-10-25 02:30:00", "2026-10-25T00:30:00"),  # twice: the first
        ("2026-10-25 03:00:00", "2026-10-25T02:00:00"),
        ("2026-07-01", "2026-06-30T22:00:00"),
        ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00"),  # its own zone counts
        ("2026-07-01T12:00:00-05:00", "2026-07-01T17:00:00"),
    ],
)
def test_the_rule_for_hours_that_the_clock_skips_or_repeats(wall, instant):
    expected = dt.datetime.fromisoformat(instant).replace(tzinfo=dt.UTC)
    assert instants(pa.array([wall, None]), "at", "Europe/Berlin").to_pylist() == [expected, None]
    if not wall.endswith(("Z", "-05:00")):
        stamp = pa.array([dt.datetime.fromisoformat(wall.ljust(10))], pa.timestamp("ns"))
        assert instants(stamp, "at", "Europe/Berlin").to_pylist() == [expected]


def test_a_window_in_local_time_refuses_instants_that_have_zones(tmp_path):
    path = tmp_path / "shop.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE events (n INTEGER PRIMARY KEY, user_id, occurred_at)")
        database.execute("INSERT INTO events (user_id, occurred_at) VALUES ('u', '2026-01-01 12:00:00+01:00')")
    (tmp_path / "shop.toml").write_text(SETTINGS.format(path=path, zone="Europe/Berlin"))
    source = open_source(
        load_source(tmp_path / "shop.toml"), settings_path=Path(tmp_path / "shop.toml"), data=None, source_uri=None
    )
    window = Window.of_days(dt.date(2026, 1, 1), dt.date(2026, 1, 1))
    with source.reading(EVENTS, window) as reading, pytest.raises(SchemaError, match="time zones of its own"):
        list(reading.batches)
