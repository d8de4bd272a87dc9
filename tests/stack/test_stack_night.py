"""A night as the launcher drives it, against an Airflow that answers as the real one does (httpx's transport)."""

import datetime as dt
import io
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from ryml_airflow.stack.airflow_api import AirflowApi, AirflowApiError
from ryml_airflow.stack.night import Night, NightFailedError
from ryml_airflow.stack.terminal import Terminal

DAY = dt.date(2026, 11, 2)
NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
TASKS = {
    "build_recommendations": ["export.export_events", "one.recommend_items"],
    "send_one": ["plan_push", "push.push_chunk", "schedule_send"],
    "send_two": ["plan_push", "push.push_chunk", "schedule_send"],
}


class FakeAirflow:
    """Each poll of a run ends its next task; tasks named in `fails` end as failed."""

    def __init__(self, *, fails: tuple[str, ...] = (), run_state: str | None = None) -> None:
        self.fails = fails
        self.run_state = run_state
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.lose_next_answers = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v2/")
        self.calls.append((request.method, path))
        response = self.answer(request, path.split("/"))
        if self.lose_next_answers and request.method == "POST":
            self.lose_next_answers -= 1
            raise httpx.ReadTimeout("lost", request=request)
        return response

    def answer(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        match [request.method, *parts]:
            case ["PATCH", "dags", _]:
                return httpx.Response(200, json={})
            case ["GET", "dags", dag_id, "tasks"]:
                tasks = TASKS[dag_id]
                following = [*zip(tasks, [[task] for task in tasks[1:]], strict=False), (tasks[-1], [])]
                return httpx.Response(
                    200, json={"tasks": [{"task_id": t, "downstream_task_ids": after} for t, after in following]}
                )
            case ["GET", "dags", dag_id, "dagRuns"]:
                prefix = request.url.params.get("run_id_pattern", "").rstrip("%")
                states = request.url.params.get_list("state")
                found = [
                    run
                    for (dag, run_id), run in self.runs.items()
                    if dag == dag_id and run_id.startswith(prefix) and (not states or run["state"] in states)
                ]
                return httpx.Response(200, json={"dag_runs": found, "total_entries": len(found)})
            case ["POST", "dags", dag_id, "dagRuns"]:
                key = (dag_id, body["dag_run_id"])
                if key in self.runs:
                    return httpx.Response(409, json={"detail": "exists"})
                assert body["logical_date"] is None
                self.runs[key] = {**body, "state": "running", "done": 0}
                return httpx.Response(200, json=self.runs[key])
            case ["PATCH", "dags", dag_id, "dagRuns", run_id]:
                self.runs[dag_id, run_id]["state"] = body["state"]
                return httpx.Response(200, json={})
            case ["GET", "dags", dag_id, "dagRuns", run_id]:
                run = self.runs[dag_id, run_id]
                if run["done"] == len(TASKS[dag_id]) and run["state"] == "running":
                    failed = any(task in self.fails for task in TASKS[dag_id])
                    run["state"] = self.run_state or ("failed" if failed else "success")
                run["done"] = min(run["done"] + 1, len(TASKS[dag_id]))
                return httpx.Response(200, json={"state": run["state"]})
            case ["GET", "dags", dag_id, "dagRuns", run_id, "taskInstances"]:
                instances = self.instances(dag_id, self.runs[dag_id, run_id]["done"])
                offset = int(request.url.params["offset"])
                page = instances[offset : offset + 2]
                return httpx.Response(200, json={"task_instances": page, "total_entries": len(instances)})
            case ["GET", "dags", _, "dagRuns", _, "taskInstances", task, "xcomEntries", "return_value"]:
                known = {
                    "export.export_events": {"rows": 41},
                    "schedule_send": {"rows": 1, "status": "triggered"},
                }
                if task not in known:
                    return httpx.Response(404, json={"detail": "none"})
                return httpx.Response(200, json={"value": known[task]})
            case ["GET", "dags", _, "dagRuns", _, "taskInstances", task, "logs", attempt]:
                map_index = request.url.params["map_index"]
                lines = [{"event": f"line {number} of {task}[{map_index}] {attempt}"} for number in range(50)]
                return httpx.Response(200, json={"content": lines})
        return httpx.Response(500, json={"detail": f"not played: {request.method} {parts}"})

    def instances(self, dag_id: str, done: int) -> list[dict[str, Any]]:
        moment = NOW.isoformat()
        return [
            {
                "task_id": task,
                "state": ("failed" if task in self.fails else "success") if position < done else None,
                "start_date": moment if position < done else None,
                "end_date": moment if position < done else None,
                "map_index": map_index,
                "try_number": 3,
            }
            for position, task in enumerate(TASKS[dag_id])
            for map_index in ((0, 1, 2) if task.startswith("push.") else (-1,))
        ]


def night(fake: FakeAirflow) -> tuple[Night, io.StringIO]:
    output = io.StringIO()
    api = AirflowApi("http://airflow.example.com", pause=lambda _: None, transport=httpx.MockTransport(fake))
    return Night(api, Terminal(Console(file=output, width=200)), lambda _: None, ("one", "two"), lambda: NOW), output


def test_a_night_builds_then_sends_and_sums_up() -> None:
    fake = FakeAirflow()
    runner, output = night(fake)
    summary = runner.run(DAY)
    assert list(fake.runs) == [
        ("build_recommendations", "make_run__2026-11-02__1"),
        ("send_one", "make_run__2026-11-02__1"),
        ("send_two", "make_run__2026-11-02__1"),
    ]
    confs = [run["conf"] for run in fake.runs.values()]
    assert confs == [{"date": "2026-11-02"}, *[{"date": "2026-11-02", "ramp_minutes": 0}] * 2]
    figures = [pair for pair in summary.figures if pair[1] not in ("", "-")]
    assert ("events", "41") in figures
    for figure in (("  chunks", "3"), ("  send", "triggered")):
        assert figures.count(figure) == 2
    lines = output.getvalue().splitlines()
    assert len(lines) == 3 + sum(map(len, TASKS.values()))  # a heading for each DAG, a line for each task
    assert "export_events" in lines[1]
    assert "41 rows" in lines[1]
    assert "push_chunk" in lines[-2]
    assert "3 instances" in lines[-2]


def test_the_same_date_again_is_a_new_run() -> None:
    fake = FakeAirflow()
    runner, _ = night(fake)
    runner.run(DAY)
    runner.run(DAY)
    assert [run_id for dag_id, run_id in fake.runs if dag_id == "build_recommendations"] == [
        "make_run__2026-11-02__1",
        "make_run__2026-11-02__2",
    ]


def test_a_lost_answer_does_not_start_a_second_run() -> None:
    fake = FakeAirflow()
    fake.lose_next_answers = 1
    runner, _ = night(fake)
    runner.run(DAY)
    assert len(fake.runs) == 3


@pytest.mark.parametrize("run_state", [None, "success"])
def test_a_failed_task_ends_the_night_with_its_log_and_address(run_state: str | None) -> None:
    """Also when Airflow calls the run a success because a last task runs whatever happened."""
    fake = FakeAirflow(fails=("push.push_chunk",), run_state=run_state)
    runner, _ = night(fake)
    if run_state:
        TASKS["build_recommendations"], kept = ["push.push_chunk"], TASKS["build_recommendations"]
    try:
        with pytest.raises(NightFailedError) as caught:
            runner.run(DAY)
    finally:
        if run_state:
            TASKS["build_recommendations"] = kept
    message = str(caught.value)
    assert "push.push_chunk[0] failed (2 more failed)" in message
    assert "line 49 of push.push_chunk[0] 3" in message
    assert message.count("    line ") == 20
    assert message.splitlines()[-1].endswith("/tasks/push.push_chunk/mapped/0")


def test_runs_that_an_interrupted_night_left_are_ended() -> None:
    fake = FakeAirflow()
    for run_id in ("make_run__2026-11-01__1", "scheduled__2026-11-01"):
        fake.runs["build_recommendations", run_id] = {"dag_run_id": run_id, "state": "running", "done": 0}
    runner, _ = night(fake)
    runner.end_abandoned_runs()
    assert [run["state"] for run in fake.runs.values()] == ["failed", "running"]


def test_health_needs_a_sign_of_life_of_this_stack() -> None:
    beats = {"scheduler": NOW, "triggerer": NOW, "dag_processor": NOW}

    def answer(_request: httpx.Request) -> httpx.Response:
        parts = {
            name: {"status": "healthy", f"latest_{name}_heartbeat": moment.isoformat()}
            for name, moment in beats.items()
        }
        return httpx.Response(200, json={"metadatabase": {"status": "healthy"}, **parts})

    api = AirflowApi("http://airflow.example.com", pause=lambda _: None, transport=httpx.MockTransport(answer))
    assert api.is_healthy(since=NOW)
    beats["triggerer"] = NOW - dt.timedelta(seconds=1)  # a killed predecessor's, not yet 30 s old
    assert not api.is_healthy(since=NOW)


def test_an_api_that_never_answers_is_given_up() -> None:
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    api = AirflowApi("http://airflow.example.com", pause=waited.append, transport=httpx.MockTransport(answer))
    assert not api.is_healthy(since=NOW)
    with pytest.raises(AirflowApiError, match="got no answer for 30 s"):
        api.import_errors()
    assert sum(waited) == 30
