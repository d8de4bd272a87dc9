"""The part of Airflow's REST API that the launcher uses."""

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from schemas.errors import RymlError

UNFINISHED = ("queued", "running")
_COMPONENTS = ("scheduler", "triggerer", "dag_processor")
_RETRY_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0  # for an API server that is up but too busy to answer


class AirflowApiError(RymlError):
    """Airflow's REST API refused a request or did not answer."""


class AirflowApi:
    """A logged-in client; `pause` waits and looks after the stack meanwhile, so a dead API server is named as such."""

    def __init__(
        self, url: str, *, pause: Callable[[float], None], transport: httpx.BaseTransport | None = None
    ) -> None:
        """Prepare for the API at this URL; nothing is sent yet."""
        self.url = url
        self._pause = pause
        # trust_env: a proxy from the environment can not reach 127.0.0.1
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10.0, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def is_healthy(self, *, since: datetime) -> bool:
        """Tell whether every component works and gave a sign of life after `since`.

        A heartbeat younger than 30 s counts as healthy for Airflow, even if a killed predecessor gave it.
        """
        try:
            health = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(
            part["status"] == "healthy"
            and (name == "metadatabase" or datetime.fromisoformat(part[f"latest_{name}_heartbeat"]) >= since)
            for name, part in health.items()
            if name == "metadatabase" or name in _COMPONENTS
        )

    def log_in(self, user: str, password: str) -> None:
        """Get a token, which is good for a day."""
        answer = self._call("POST", "/auth/token", json={"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool; one that exists stays as somebody may have set it."""
        body = {"name": name, "slots": slots, "description": description}
        self._call("POST", "/api/v2/pools", json=body, also_fine=(HTTPStatus.CONFLICT,))

    def parsed_at(self, dag_id: str) -> datetime | None:
        """Say when the DAG's file was last read; None if the DAG is not known."""
        answer = self._call("GET", f"/api/v2/dags/{dag_id}", also_fine=(HTTPStatus.NOT_FOUND,))
        parsed_at = answer.get("last_parsed_time")
        return datetime.fromisoformat(parsed_at) if parsed_at else None

    def import_errors(self) -> list[str]:
        """Give file and traceback of each DAG file that can not be read."""
        answer = self._call("GET", "/api/v2/importErrors")
        return [f"{error['filename']}:\n{error['stack_trace'].rstrip()}" for error in answer["import_errors"]]

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, *, run_prefix: str, conf: Mapping[str, object]) -> str:
        """Start a run called `<run_prefix>__<n>`, n being the first number that is free; give the run's id."""
        runs = f"/api/v2/dags/{dag_id}/dagRuns"
        number = 1 + self._call("GET", runs, params={"run_id_pattern": f"{run_prefix}__%", "limit": 1})["total_entries"]
        while True:
            run_id = f"{run_prefix}__{number}"
            body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
            answer = self._call("POST", runs, json=body, also_fine=(HTTPStatus.CONFLICT,))
            # A conflict with an unfinished run is our own first try, whose answer was lost: only this launcher triggers
            # runs of this prefix, and it has ended the unfinished ones of its predecessors.
            if answer.get("dag_run_id") == run_id or self.run_state(dag_id, run_id) in UNFINISHED:
                return run_id
            number += 1

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Give the state of a run: queued, running, success or failed."""
        return str(self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def unfinished_runs(self, dag_id: str, run_prefix: str) -> list[str]:
        """List the runs of this prefix that are queued or running."""
        answer = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns", params={"state": UNFINISHED, "limit": 100})
        return [run["dag_run_id"] for run in answer["dag_runs"] if run["dag_run_id"].startswith(run_prefix)]

    def fail_run(self, dag_id: str, run_id: str) -> None:
        """End a run whose processes are gone."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}", json={"state": "failed"})

    def downstream(self, dag_id: str) -> dict[str, list[str]]:
        """Map each task of the DAG to the tasks that follow it directly."""
        tasks = self._call("GET", f"/api/v2/dags/{dag_id}/tasks")["tasks"]
        return {task["task_id"]: task["downstream_task_ids"] for task in tasks}

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Give every task instance of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={"limit": 100, "offset": len(found), "order_by": "id"})
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def returned(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Give what an unmapped task returned; empty if that was nothing, or no mapping."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        value = self._call("GET", path, also_fine=(HTTPStatus.NOT_FOUND,)).get("value")
        return value if isinstance(value, dict) else {}

    def log_tail(self, dag_id: str, run_id: str, task_id: str, *, attempt: int, map_index: int, lines: int) -> str:
        """Give the last lines of a task's log, with the exception that ended it."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{attempt}"
        answer = self._call(
            "GET",
            path,
            params={"map_index": map_index, "full_content": True},
            headers={"Accept": "application/json"},
            also_fine=(HTTPStatus.NOT_FOUND,),
        )
        return "\n".join(log_lines(answer.get("content", ()))[-lines:])

    def task_url(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Give the address of a task instance in the UI."""
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        return f"{self.url}/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}{mapped}"

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        also_fine: tuple[HTTPStatus, ...] = (),
    ) -> dict[str, Any]:
        waited_seconds = 0.0
        while True:
            try:
                answer = self._client.request(method, path, json=json, params=params, headers=headers)
                break
            except httpx.TransportError as error:
                self._pause(_RETRY_SECONDS)
                waited_seconds += _RETRY_SECONDS
                if waited_seconds >= _PATIENCE_SECONDS:
                    raise AirflowApiError(
                        f"{method} {self.url}{path} got no answer for {_PATIENCE_SECONDS:.0f} s ({error!r}); expected "
                        "one within seconds. Read .airflow/logs/stack/api-server.log"
                    ) from error
        if answer.is_success or answer.status_code in also_fine:
            content = answer.json() if answer.content else {}
            return content if isinstance(content, dict) else {}
        raise AirflowApiError(
            f"{method} {self.url}{path} was answered with {answer.status_code}: {answer.text[:500]}; expected success. "
            "Read .airflow/logs/stack/api-server.log"
        )


def log_lines(content: Any) -> list[str]:
    """Turn a structured task log into lines, without Airflow's grouping marks."""
    lines: list[str] = []
    for entry in content:
        if isinstance(entry, str):
            lines.append(entry)
            continue
        event = str(entry.get("event", ""))
        if not event.startswith(("::group::", "::endgroup::")):
            lines += event.splitlines()
        for error in entry.get("error_detail") or ():
            lines += f"{error.get('exc_type', 'error')}: {error.get('exc_value', '')}".splitlines()
    return lines
