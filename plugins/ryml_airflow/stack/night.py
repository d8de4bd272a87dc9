"""Runs one date through Airflow: builds, then sends each campaign, following each run to its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from ryml_airflow.campaigns import send_dag
from ryml_airflow.stack.airflow_api import UNFINISHED, AirflowApi
from ryml_airflow.stack.run_progress import Stage, following, run_order, stages, underway, upcoming
from ryml_airflow.stack.summary import INSTANCES, DaySummary, summarize_day
from ryml_airflow.stack.terminal import Terminal, returned_rows
from schemas.errors import RymlError

RUN_PREFIX = "make_run"
BUILD_DAG = "build_recommendations"
_SEND_CONF: Mapping[str, object] = {"ramp_minutes": 0}  # the demo does not spread its few chunks over hours
_POLL_SECONDS = 0.5
_LOG_LINES = 20
_PARSE_SECONDS = 90.0  # reading two DAG files takes 1 to 10 s after the start


class NightFailedError(RymlError):
    """A DAG run did not succeed; the message has the failed task, its last log lines and its address in the UI."""


@dataclass(frozen=True)
class Night:
    """Runs dates; `pause` waits and looks after the stack, `clock` gives UTC."""

    api: AirflowApi
    terminal: Terminal
    pause: Callable[[float], None]
    campaigns: tuple[str, ...]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def dags(self) -> list[str]:
        """The DAGs of a night, in the order in which they run."""
        return [BUILD_DAG, *(send_dag(name) for name in self.campaigns)]

    def wait_until_parsed(self, *, since: datetime) -> None:
        """Wait until Airflow has read all of them after `since`, so that no run has the shape of an older checkout.

        Raises: NightFailedError with the traceback if a file can not be read.
        """
        waited_seconds = 0.0
        waiting = self.dags
        while waiting := [dag_id for dag_id in waiting if not _is_after(self.api.parsed_at(dag_id), since)]:
            errors = [error for error in self.api.import_errors() if any(dag_id in error for dag_id in waiting)]
            if errors:
                raise NightFailedError("A DAG file can not be read; expected it to load.\n" + "\n".join(errors))
            if waited_seconds > _PARSE_SECONDS:
                raise NightFailedError(
                    f"Airflow did not read {', '.join(waiting)} within {_PARSE_SECONDS:.0f} s; expected them in the "
                    "files of dags/. Read .airflow/logs/stack/dag-processor.log"
                )
            self.pause(_POLL_SECONDS)
            waited_seconds += _POLL_SECONDS

    def end_abandoned_runs(self) -> None:
        """End the runs that an interrupted `make run` left: their processes are gone, they would hold up the new."""
        for dag_id in self.dags:
            for run_id in self.api.unfinished_runs(dag_id, f"{RUN_PREFIX}__"):
                self.api.fail_run(dag_id, run_id)

    def run(self, day: date) -> DaySummary:
        """Run a date: the build, then each campaign's send.

        Raises: NightFailedError at the first run that fails.
        """
        built = self._run(BUILD_DAG, day, {})
        sent = {name: self._run(send_dag(name), day, _SEND_CONF) for name in self.campaigns}
        return summarize_day(day, built, sent)

    def _run(self, dag_id: str, day: date, extra: Mapping[str, object]) -> dict[str, Mapping[str, Any]]:
        self.terminal.marked_up(f"[bold]{dag_id}[/] {day}")
        conf = {"date": day.isoformat(), **extra}
        run_id = self.api.trigger(dag_id, run_prefix=f"{RUN_PREFIX}__{day}", conf=conf)
        self.api.unpause(dag_id)  # after the trigger: a DAG that runs one at a time runs this one first
        return self._follow(dag_id, run_id)

    def _follow(self, dag_id: str, run_id: str) -> dict[str, Mapping[str, Any]]:
        order = run_order(self.api.downstream(dag_id))
        returned: dict[str, Mapping[str, Any]] = {}
        shown: set[str] = set()
        warned: set[str] = set()
        while True:
            # The state first: what it says is final is final for the instances that are read after it.
            state = self.api.run_state(dag_id, run_id)
            current = stages(order, self.api.task_instances(dag_id, run_id), self.clock())
            for stage in current:
                if stage.is_final and stage.task_id not in shown:
                    shown.add(stage.task_id)
                    values = (
                        {INSTANCES: stage.total}
                        if stage.is_mapped
                        else self.api.returned(dag_id, run_id, stage.task_id)
                    )
                    returned[stage.task_id] = values
                    self.terminal.stage_ended(
                        stage,
                        number=len(shown),
                        total=len(current),
                        rows=returned_rows(values),
                        following=following(current),
                    )
            for stage in current:
                if stage.state == "retrying" and stage.task_id not in warned:
                    warned.add(stage.task_id)
                    url = self.api.task_url(dag_id, run_id, stage.task_id, -1)
                    self.terminal.line(f"  !       {stage.name} failed and will be tried again; why: {url}")
            self.terminal.stages_running(underway(current), upcoming(current))
            if state not in UNFINISHED:
                # A leaf that runs whatever happened before it makes Airflow call a run with failed tasks a success.
                failed = [stage for stage in current if stage.state == "failed"]
                if state != "success" or failed:
                    raise NightFailedError(self._post_mortem(dag_id, run_id, state, failed))
                return returned
            self.pause(_POLL_SECONDS)

    def _post_mortem(self, dag_id: str, run_id: str, state: str, failed: list[Stage]) -> str:
        if not failed:
            url = f"{self.api.url}/dags/{dag_id}/runs/{run_id}"
            return f"{dag_id}, run {run_id}, ended as {state} without a failed task; expected success. See {url}"
        names = {stage.task_id for stage in failed}
        instances = [
            instance
            for instance in self.api.task_instances(dag_id, run_id)
            if instance["task_id"] in names and instance["state"] == "failed"
        ]
        first = min(instances, key=lambda instance: (instance["end_date"] or "", instance["map_index"]))
        task_id, map_index = first["task_id"], first["map_index"]
        log = self.api.log_tail(
            dag_id, run_id, task_id, attempt=first["try_number"], map_index=map_index, lines=_LOG_LINES
        )
        indented = "\n".join(f"    {line}" for line in log.splitlines()) or "    (no log)"
        which = f"{task_id}[{map_index}]" if map_index >= 0 else task_id
        more = f" ({len(instances) - 1} more failed)" if len(instances) > 1 else ""
        return (
            f"{dag_id}: {which} failed{more}; expected success. The last lines of its log:\n{indented}\n"
            f"See {self.api.task_url(dag_id, run_id, task_id, map_index)}"
        )


def _is_after(moment: datetime | None, since: datetime) -> bool:
    return moment is not None and moment >= since
