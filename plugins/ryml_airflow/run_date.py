"""The one place that decides which UTC day a run works on.

Asset-triggered runs and runs triggered with an empty logical date have neither `ds` nor a data interval, and the
default cron timetable has an interval of no length; so nobody uses those directly.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import ConfigError
from schemas.send_time import SendTime

# What DAGs write into templated fields; `run_date` is given to each DAG as a macro.
RUN_DATE = "{{ run_date(dag_run, params) }}"


def run_date(
    dag_run: Any, params: Mapping[str, Any], *, date_of: Callable[[dt.datetime], dt.date] | None = None
) -> str:
    """Return the run's date, YYYY-MM-DD: the param `date` where given, else the last whole UTC day when it is due.

    `date_of` gives the date for an instant that a run is due at, for DAGs of a zone in which that would skip a date or
    take one twice where summer time begins or ends.
    Raises: ConfigError if the run has neither, or the date lies in the future of the run.
    """
    given = params.get("date")
    if given:
        try:
            return dt.date.fromisoformat(str(given)).isoformat()
        except ValueError as error:
            raise ConfigError(f"param date is {given!r}; expected YYYY-MM-DD, the UTC day of the events") from error
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    if start is None or end is None or not start < end:
        raise ConfigError(
            f"no run date: run {dag_run.run_id} has no data interval (it was not started by the schedule); trigger it "
            "with the param date=YYYY-MM-DD"
        )
    # The interval ends at the schedule's hour; the last whole UTC day before that is the day of the events.
    day: dt.date = date_of(end) if date_of else end.astimezone(dt.UTC).date() - dt.timedelta(days=1)
    return day.isoformat()


def run_date_of(send_time: SendTime) -> Callable[[Any, Mapping[str, Any]], str]:
    """Make the macro `run_date` for the DAGs of a campaign."""

    def campaign_run_date(dag_run: Any, params: Mapping[str, Any]) -> str:
        return run_date(dag_run, params, date_of=send_time.date_of)

    return campaign_run_date
