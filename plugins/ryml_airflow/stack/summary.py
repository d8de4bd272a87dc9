"""The figures of one night, read from what its tasks returned."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

Returned = Mapping[str, Any]

INSTANCES = "instances"  # what stands for the return values of a mapped task: how many instances it had
# label, task, key in what the task returned
_OF_THE_SHOP = (
    ("events", "export_events", "rows"),
    ("users", "export_users", "rows"),
    ("items in the catalog", "export_catalog", "rows"),
    ("profiles", "fold_profiles", "rows"),
)
_OF_A_CAMPAIGN = (
    ("model", "backtest_models", "chosen"),
    ("training", "train_correlations", "status"),
    ("items with correlations", "train_correlations", "rows"),
    ("correlations", "train_correlations", "pairs"),
    ("users with recommendations", "recommend_items", "recommended"),
    ("planned: to recommend", "plan_push", "upsert"),
    ("planned: to clear", "plan_push", "clear"),
    ("planned: unchanged", "plan_push", "unchanged"),
    ("planned: withheld", "plan_push", "withheld"),
    ("chunks", "push_chunk", INSTANCES),
    ("recommended", "reconcile_push", "delivered"),
    ("cleared", "reconcile_push", "cleared"),
    ("rejected by the provider", "reconcile_push", "quarantined"),
    ("unknown", "reconcile_push", "unknown"),  # of Mail Send alone
    ("requests", "reconcile_push", "requests"),
    ("recipients", "schedule_send", "recipients"),
    ("send", "schedule_send", "status"),
)
_MISSING = "-"


@dataclass(frozen=True)
class DaySummary:
    """One column of the summary: (label, value) in a fixed order, and a line for each table with unused rows.

    `leave_at` is when the last mail of Mail Send leaves; None if none waits.
    """

    date: date
    figures: tuple[tuple[str, str], ...]
    quarantine: tuple[str, ...]
    leave_at: datetime | None = None


def summarize_day(day: date, built: Mapping[str, Returned], sent: Mapping[str, Mapping[str, Returned]]) -> DaySummary:
    """Collect the figures of a date from what its tasks returned, by task id; what is missing shows as such.

    `sent` has what the send of each campaign returned; a campaign's figures stand below its name. Tasks are known by
    the last part of their id, so that they can be moved into groups; what a campaign built, by the group of its name.
    """
    by_name = _by_name(built)
    figures = [(label, _shown(by_name.get(task, {}).get(key))) for label, task, key in _OF_THE_SHOP]
    for campaign, returned in sent.items():
        group = f"{campaign}."
        own = {**_by_name(returned), **_by_name({k: v for k, v in built.items() if k.startswith(group)})}
        figures.append((campaign, ""))
        figures += [(f"  {label}", _shown(own.get(task, {}).get(key))) for label, task, key in _OF_A_CAMPAIGN]
    quarantine = tuple(
        account_of_rows(name.removeprefix("export_"), values)
        for name, values in sorted(by_name.items())
        if name.startswith("export_") and _count(values.get("quarantined"))
    )
    texts = [_by_name(returned).get("schedule_send", {}).get("send_at") for returned in sent.values()]
    leave_at = max((datetime.fromisoformat(text) for text in texts if text), default=None)
    return DaySummary(day, tuple(figures), quarantine, leave_at)


def _by_name(returned: Mapping[str, Returned]) -> dict[str, Returned]:
    return {task_id.rpartition(".")[2]: values for task_id, values in returned.items()}


def account_of_rows(table: str, values: Returned) -> str:
    """Account for every row that was read: used, quarantined by reason, or of days that this export does not take.

    Says so where it does not add up.
    """
    used, quarantined = _count(values.get("rows")), _count(values.get("quarantined"))
    outside = _count(values.get("outside_window"))
    read = _count(values.get("read", used + quarantined + outside))
    reasons = values.get("quarantined_by_reason")
    by_reason = {str(reason): _count(rows) for reason, rows in reasons.items()} if isinstance(reasons, Mapping) else {}
    text = f"{table}: {read:,} read = {used:,} used + {quarantined:,} quarantined"
    if by_reason:
        listed = sorted(by_reason.items(), key=lambda pair: (-pair[1], pair[0]))
        text += f" ({', '.join(f'{reason} {rows:,}' for reason, rows in listed if rows)})"
    if outside:
        text += f" + {outside:,} of other days"
    if read != used + quarantined + outside or (by_reason and sum(by_reason.values()) != quarantined):
        text += " - THIS DOES NOT ADD UP"
    return text


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _shown(value: object) -> str:
    if value is None:
        return _MISSING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
