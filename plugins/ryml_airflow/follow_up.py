"""Measuring a send for a second time, once the days after it are over."""

import datetime as dt
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from ryml_airflow.launch import JobOperator


def days_before(date: str, days: int) -> str:
    """Count days back from a date, YYYY-MM-DD."""
    return (dt.date.fromisoformat(date) - dt.timedelta(days=days)).isoformat()


class FollowUpOperator(JobOperator):
    """Run `measure_campaign` for the date that is `days_after` days before the run's; skip it if nothing was sent then.

    Needs the macro `days_before`.
    """

    def __init__(self, *, days_after: int, **kwargs: Any) -> None:
        super().__init__(job="measure_campaign", **kwargs)
        self.job_date = f"{{{{ days_before(run_date(dag_run, params), {days_after}) }}}}"

    def execute(self, context: Context) -> Any:
        """Measure, or skip: a new shop has no send of a week ago, and a night may have been given up."""
        from schemas.errors import EmptyPartitionError

        try:
            return super().execute(context)
        except EmptyPartitionError as error:
            raise AirflowSkipException(str(error)) from error
