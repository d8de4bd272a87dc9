"""Where a DAG run stands: its stages in the order in which they run, told from its task instances."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

FINAL_STATES = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
_RUNNING_STATES = frozenset(
    {"running", "deferred", "up_for_retry", "up_for_reschedule", "restarting", "awaiting_input"}
)
# The worst instance speaks for a mapped task.
_WORST_FIRST = ("failed", "upstream_failed", "success", "skipped", "removed")


@dataclass(frozen=True)
class Stage:
    """One task of a run with all its mapped instances.

    `state` is waiting, running, retrying or one of Airflow's final states; `done` of `total` instances have ended;
    `seconds` from the first start to the last end, or to now while it runs.
    """

    task_id: str
    state: str
    done: int
    total: int
    seconds: float | None
    is_mapped: bool

    @property
    def name(self) -> str:
        """The task's own name, without the groups that it is in."""
        return self.task_id.rpartition(".")[2]

    @property
    def is_final(self) -> bool:
        """Nothing of this task is left to run."""
        return self.state in FINAL_STATES


def run_order(downstream: Mapping[str, Iterable[str]]) -> list[str]:
    """Put tasks into an order in which each comes after those that it follows; ties by name."""
    sorter = TopologicalSorter[str](dict.fromkeys(downstream, ()))
    for task, followers in downstream.items():
        for follower in followers:
            sorter.add(follower, task)
    order: list[str] = []
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def stages(order: Sequence[str], instances: Iterable[Mapping[str, Any]], now: datetime) -> list[Stage]:
    """Sum the task instances of a run up to one stage per task, in order; tasks without an instance wait."""
    by_task: dict[str, list[Mapping[str, Any]]] = {task: [] for task in order}
    for instance in instances:
        by_task.setdefault(instance["task_id"], []).append(instance)
    return [_stage(task, found, now) for task, found in by_task.items()]


def underway(all_stages: Sequence[Stage]) -> list[Stage]:
    """Give the stages that run now."""
    return [stage for stage in all_stages if stage.state in ("running", "retrying")]


def upcoming(all_stages: Sequence[Stage]) -> str | None:
    """Name the first stage that waits; None if none does."""
    return next((stage.name for stage in all_stages if stage.state == "waiting"), None)


def following(all_stages: Sequence[Stage]) -> str | None:
    """Say what comes after a stage that just ended: what runs by now, else the first that waits."""
    return ", ".join(stage.name for stage in underway(all_stages)) or upcoming(all_stages)


def _stage(task_id: str, instances: Sequence[Mapping[str, Any]], now: datetime) -> Stage:
    states = [instance["state"] for instance in instances]
    done = sum(state in FINAL_STATES for state in states)
    if states and done == len(states):
        state = next(worst for worst in _WORST_FIRST if worst in states)
    elif "up_for_retry" in states:
        state = "retrying"
    elif done or any(state in _RUNNING_STATES for state in states):
        state = "running"
    else:
        state = "waiting"
    starts = [datetime.fromisoformat(instance["start_date"]) for instance in instances if instance["start_date"]]
    ends = [datetime.fromisoformat(instance["end_date"]) for instance in instances if instance["end_date"]]
    seconds = None
    if starts:
        end = max(ends) if state in FINAL_STATES and ends else now
        seconds = max(0.0, (end - min(starts)).total_seconds())
    is_mapped = any(instance["map_index"] >= 0 for instance in instances)
    return Stage(task_id, state, done, len(instances), seconds, is_mapped)
