"""The hour and zone of a send: one send each local day, each with another date that is over by then."""

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pendulum
import pytest
from pydantic import ValidationError

from schemas.send_time import SendTime

ZONES = ["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Auckland", "Asia/Kolkata", "Australia/Lord_Howe"]
HOURS = [0, 2, 8, 16, 23]
MIDNIGHT_CROSSERS = [("America/Los_Angeles", 16), ("Europe/Berlin", 1), ("Pacific/Auckland", 12)]


def dues(time, *, days=420):
    """When Airflow's own timetable ends the intervals of so many days: the instants at which runs are due."""
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable(f"0 {time.hour} * * *", timezone=time.zone)
    at, found = pendulum.datetime(2026, 1, 1), []
    while len(found) < days:
        at = timetable._get_next(at)
        found.append(at)
    return found


@pytest.mark.airflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Airflow's own, at import
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", HOURS)
def test_each_local_day_has_one_send_and_each_send_the_next_date(zone, hour):
    time = SendTime(hour=hour, zone=zone)
    due = dues(time)
    local = [instant.astimezone(ZoneInfo(zone)) for instant in due]
    assert all(second.date() - first.date() == dt.timedelta(days=1) for first, second in pairwise(local))
    dates = [time.date_of(instant) for instant in due]
    assert len(dates) == 420
    assert all(second - first == dt.timedelta(days=1) for first, second in pairwise(dates))
    for instant, date in zip(due, dates, strict=True):
        over_at = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)
        assert over_at <= instant, "a date that is not over has no build"
        assert instant - over_at <= dt.timedelta(hours=25), "an older date than needed"
        # In the night in which the hour does not exist the clocks of zoneinfo and of cron may differ by one.
        assert abs(time.due_at(date) - instant) <= dt.timedelta(hours=1)


@pytest.mark.airflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Airflow's own, at import
@pytest.mark.parametrize(("zone", "hour"), MIDNIGHT_CROSSERS)
def test_the_day_before_in_utc_would_skip_a_date_or_take_one_twice(zone, hour):
    """Planted bug: the rule for UTC, used in a zone whose summer time moves the hour over midnight UTC."""
    time = SendTime(hour=hour, zone=zone)
    naive = [(instant.astimezone(dt.UTC) - dt.timedelta(days=1)).date() for instant in dues(time)]
    steps = {(second - first).days for first, second in pairwise(naive)}
    assert steps == {0, 1, 2}


def test_summer_time_is_followed():
    time = SendTime(hour=8, zone="Europe/Berlin")
    assert time.due_at(dt.date(2026, 1, 14)) == dt.datetime(2026, 1, 15, 7, tzinfo=dt.UTC)
    assert time.due_at(dt.date(2026, 7, 14)) == dt.datetime(2026, 7, 15, 6, tzinfo=dt.UTC)
    assert time.due_at(dt.date(2026, 3, 28)) == dt.datetime(2026, 3, 29, 6, tzinfo=dt.UTC)  # the clocks' own morning
    assert SendTime(hour=8, zone="Pacific/Auckland").days_after(2026) == 2


@pytest.mark.parametrize("wrong", [{"hour": 24}, {"zone": "Europe/Atlantis"}, {"zone": "CEST"}, {"minute": 1}])
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(ValidationError):
        SendTime(**{"hour": 8, "zone": "UTC", **wrong})
