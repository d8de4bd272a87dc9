"""When a campaign's mail leaves: an hour in a zone of the IANA database, and which date's recommendations it carries.

A date is a UTC day, a send belongs to a local day. The mail of a local day carries the last UTC day that is over by then
on every day of the year, also where summer time moves the hour over midnight UTC: each local day has one send, each send
another date, and no date is skipped.
"""

import datetime as dt
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("expected a zone of the IANA database, such as Europe/Berlin or UTC")
    return name


Hour = Annotated[int, Field(ge=0, le=23)]
Zone = Annotated[str, AfterValidator(_known_zone)]


class SendTime(BaseModel):
    """An hour of every local day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hour: Hour
    zone: Zone

    def days_after(self, year: int) -> int:
        """Say how many days the send's local day lies after the date that it carries: 1, or 2 far east of UTC."""
        days = (dt.date(year, 1, 1) + dt.timedelta(days=day) for day in range(365))
        return max((day - self._instant(day).date()).days for day in days) + 1

    def due_at(self, date: dt.date) -> dt.datetime:
        """The instant at which the mail of a date is due, in UTC."""
        return self._instant(date + dt.timedelta(days=self.days_after(date.year)))

    def date_of(self, due_at: dt.datetime) -> dt.date:
        """The date that the send due at an instant carries."""
        local = due_at.astimezone(ZoneInfo(self.zone)).date()
        return local - dt.timedelta(days=self.days_after(local.year))

    def minutes_later(self, minutes: int) -> tuple[int, int]:
        """Hour and minute of the same local day that come so much later, or the day's last half hour."""
        late = min(self.hour * 60 + minutes, 23 * 60 + 30)
        return late // 60, late % 60

    def _instant(self, day: dt.date) -> dt.datetime:
        # In the hour that summer time leaves out, zoneinfo counts on with the offset from before it: an hour later.
        return dt.datetime.combine(day, dt.time(self.hour), ZoneInfo(self.zone)).astimezone(dt.UTC)
