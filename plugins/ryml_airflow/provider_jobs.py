"""Operators of jobs that change something at the e-mail provider: a live one is for the day's own scheduled run."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context

from ryml_airflow.deployment import provider_address
from ryml_airflow.launch import JobOperator
from ryml_airflow.live_fence import refuse_wrong_run


class FencedJobOperator(JobOperator):
    """Run a job that writes to the provider, unless that is live and this run is not its own day's scheduled one.

    A run that is `max_lateness_minutes` past its hour will not send, so it changes nothing any more either.
    """

    def __init__(self, *, max_lateness_minutes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_lateness_minutes = max_lateness_minutes

    def execute(self, context: Context) -> Any:
        """Check the fence, then run the job."""
        dag_run = context["dag_run"]
        refuse_wrong_run(
            is_rehearsal=self.is_rehearsal,
            run_type=getattr(dag_run.run_type, "value", str(dag_run.run_type)),
            due_at=dag_run.data_interval_end,
            now=dt.datetime.now(dt.UTC),
            max_lateness_minutes=self.max_lateness_minutes,
        )
        return super().execute(context)

    @property
    def is_rehearsal(self) -> bool:
        """Whether the connection is this machine's rehearsal provider."""
        return bool(provider_address(self.provider_conn_id or "").is_rehearsal)


class PushChunkOperator(FencedJobOperator):
    """Push one chunk of the plan; `chunk` is the plan's description of it."""

    template_fields: Sequence[str] = (*JobOperator.template_fields, "chunk")

    def __init__(self, *, chunk: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(job="push_chunk", **kwargs)
        self.chunk = chunk

    def execute(self, context: Context) -> Any:
        """Push the chunk that this map index stands for."""
        self.arguments = {"chunk": int(self.chunk["chunk"])}
        return super().execute(context)


class SendOperator(FencedJobOperator):
    """Schedule the send; a live one that meets an outage gives up when its time is over."""

    def execute(self, context: Context) -> Any:
        """Say how long the send may be tried, and run the job."""
        due_at = context["dag_run"].data_interval_end
        if not self.is_rehearsal and due_at is not None:
            latest = due_at + dt.timedelta(minutes=self.max_lateness_minutes)
            self.arguments = {**self.arguments, "not_after": latest}
        return super().execute(context)
