"""A person's yes before the send: Airflow's own approval, answered under *Required Actions* in its UI."""

import datetime as dt
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context

from schemas.errors import GateError


class ApproveSendOperator(ApprovalOperator):
    """Ask whether to send, with the diff that `compare_plan` wrote.

    *Approve* sends, *Reject* skips the send and leaves the run green: somebody decided. Silence for `approval_minutes`
    counts as no and is red: nobody looked. No slot of a worker is held meanwhile.
    """

    ui_color = "#fff4ce"

    def __init__(self, *, approval_minutes: int, title: str, **kwargs: Any) -> None:
        self.approval_minutes = approval_minutes
        super().__init__(
            subject=f"Send “{title}” of {{{{ run_date(dag_run, params) }}}}?",
            body="{{ ti.xcom_pull(task_ids='compare_plan')['markdown'] }}",
            defaults=self.REJECT,
            response_timeout=dt.timedelta(minutes=approval_minutes),
            **kwargs,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on as was answered.

        Raises: GateError, which no retry cures, if nobody answered.
        """
        if "error" in event or event.get("timedout"):
            raise GateError(f"nobody approved the send within {self.approval_minutes} minutes; nothing was sent")
        return super().execute_complete(context, event)
