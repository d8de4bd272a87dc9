"""When a campaign's mail leaves: an hour in a zone of the IANA database, and which date's recommendations it carries.

A date is a UTC day, a send belongs to a local day. The mail of a local day carries the last UTC day that is over by
then on every day of the year, also where summer time moves the hour over midnight UTC: each local day has one send,
each send another date, and no date is skipped.
"""

import datetime as dt
import functools
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from schemas.ranking_rules import Settings


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not there, not a name, a folder of zones
        raise ValueError("expected a zone of the IANA database, such as Europe/Berlin or UTC") from error
    return name


Hour = Annotated[int, Field(ge=0, le=23)]
Zone = Annotated[str, AfterValidator(_known_zone)]


class SendTime(Settings):
    """An hour of every local day."""

    hour: Hour
    zone: Zone

    def days_after(self, year: int) -> int:
        """Say how many days the send's local day lies after the date that it carries: 1, or 2 far east of UTC."""
        return _days_after(self.hour, self.zone, year)

    def due_at(self, date: dt.date) -> dt.datetime:
        """The instant at which the mail of a date is due, in UTC."""
        return _instant(self.hour, self.zone, date + dt.timedelta(days=self.days_after(date.year)))

    def date_of(self, due_at: dt.datetime) -> dt.date:
        """The date that the send due at an instant carries."""
        local = due_at.astimezone(ZoneInfo(self.zone)).date()
        return local - dt.timedelta(days=self.days_after(local.year))

    def minutes_later(self, minutes: int) -> tuple[int, int]:
        """Hour and minute of the same local day that come so much later, or the day's last half hour."""
        late = min(self.hour * 60 + minutes, 23 * 60 + 30)
        return late // 60, late % 60


def _instant(hour: int, zone: str, day: dt.date) -> dt.datetime:
    # In the hour that summer time leaves out, zoneinfo counts on with the offset from before it: an hour later.
    return dt.datetime.combine(day, dt.time(hour), ZoneInfo(zone)).astimezone(dt.UTC)


@functools.lru_cache(maxsize=64)
def _days_after(hour: int, zone: str, year: int) -> int:
    days = (dt.date(year, 1, 1) + dt.timedelta(days=day) for day in range(365))
    return max((day - _instant(hour, zone, day).date()).days for day in days) + 1
