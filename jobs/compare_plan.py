"""Hold a frozen plan against the one before it and against the clock, and write down the difference for a person.

What is past a limit of the campaign's [gates] stops the run before the first contact is touched, unless a named person
lets it pass; that is kept in the ledger.

Reads:  chunks of the date and of the newest date of the week before, recommendations and catalog of the date,
        item_index; the ledger
Writes: overrides in the ledger
Run:    python -m jobs.compare_plan --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import functools
import os
import re
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.override_book import note_override
from jobs.delivery.plan_diff import PlanDiff, compare_plans
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest, Window
from jobs.quality.override import GateOverride
from schemas.delivery_gates import DeliveryGates
from schemas.errors import GateError
from schemas.layout import Partition

BEFORE_DAYS: Final = 7
TOP_ITEMS: Final = 5
TOP_CATEGORIES: Final = 8
_CORRELATIONS: Final = re.compile(r"correlations/.*date=(\d{4}-\d{2}-\d{2})")


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return delivery_parser(__doc__)


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    ledger: str,
    provider: ProviderAddress,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Compare; return the counts and a text in Markdown for whoever approves the send.

    Raises: GateError if something is past its limit, and nobody lets it pass.
    """
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return compare(delivery, is_rehearsal=provider.is_rehearsal, override=override)


def compare(delivery: Delivery, *, is_rehearsal: bool, override: GateOverride | None = None) -> dict[str, Any]:
    """Compare the run's plan with the one before it."""
    lake, run_ = delivery.lake, delivery.run
    plan = lake.manifest(Partition("chunks", run_.send_date, run_.campaign))
    yesterday = run_.send_date - dt.timedelta(days=1)
    before = lake.latest("chunks", up_to=yesterday, campaign=run_.campaign, days=BEFORE_DAYS)
    index = read_index(lake)
    diff = compare_plans(lake, plan, before, len(index))
    catalog = lake.read(lake.manifest(Partition("catalog", run_.send_date)), columns=["item_id", "title", "category"])
    at = pc.index_in(index, value_set=catalog["item_id"].combine_chunks())
    titles, categories = (catalog[name].combine_chunks().take(at) for name in ("title", "category"))
    shift, shares = diff.category_shift(categories)

    found = strange_in_diff(diff, shift, delivery.campaign.gates) if before else {}
    found |= too_old(lake, plan, delivery, is_rehearsal=is_rehearsal)
    _pass_or_stop(delivery, found, override)
    passed = [f"{override.by}: {override.reason}"] if found and override else []
    return {
        "rows": diff.users["mailed"],
        "compared_with": before.partition.date.isoformat() if before else None,
        **{name: diff.users[name] for name in ("mailed_before", "gained", "lost", "cleared", "changed", "same")},
        "category_shift": round(shift, 4),
        "let_pass": {gate: text for gate, text in found.items() if override},
        "markdown": _markdown(diff, before, titles, index, shift, shares, [*found.values(), *passed]),
    }


def strange_in_diff(diff: PlanDiff, category_shift: float, gates: DeliveryGates) -> dict[str, str]:
    """Say by its gate's name what differs too much from the plan before; nothing where one of the two is small."""
    if min(diff.users["mailed"], diff.users["mailed_before"]) < gates.compared_users_least:
        return {}
    item, rise = diff.greatest_rise()
    checks = [
        ("changed_share_max", diff.changed_share, gates.changed_share_max, "of the lists differ from those before"),
        ("category_shift_max", category_shift, gates.category_shift_max, "of all places moved to another category"),
        ("top_item_rise_max", rise, gates.top_item_rise_max, f"more of the users than before get item {item}"),
    ]
    return {
        name: f"{value:.0%} {what}, limit {limit:.0%} ({name})" for name, value, limit, what in checks if value > limit
    }


def too_old(lake: Lake, plan: Manifest, delivery: Delivery, *, is_rehearsal: bool) -> dict[str, str]:
    """Say by its gate's name what the plan was made from and is too old for a send now."""
    gates, date, found = delivery.campaign.gates, delivery.run.send_date, {}
    hours = (delivery.timing.clock() - Window.of_days(date, date).end_at) / dt.timedelta(hours=1)
    if not is_rehearsal and hours > gates.data_age_hours_max:
        limit = gates.data_age_hours_max
        found["data_age_hours_max"] = f"the data ends {hours:.0f} hours ago, limit {limit:g} (data_age_hours_max)"
    recommendations = lake.find(Partition("recommendations", date, delivery.run.campaign))
    for name in recommendations.inputs if recommendations else ():
        if trained := _CORRELATIONS.search(name):
            days = (date - dt.date.fromisoformat(trained[1])).days
            if days > gates.model_age_days_max:
                limit_days = gates.model_age_days_max
                found["model_age_days_max"] = (
                    f"the correlations are {days} days old, limit {limit_days} (model_age_days_max)"
                )
    return found


def _pass_or_stop(delivery: Delivery, found: dict[str, str], override: GateOverride | None) -> None:
    if not found:
        return
    if override is None:
        raise GateError(
            f"{delivery.run.campaign} of {delivery.run.send_date}: {'; '.join(found.values())}. Nothing was pushed, "
            "nobody was cleared. If this is right, give override_gates_by and override_gates_reason"
        )
    for gate, text in found.items():
        note_override(delivery.ledger, delivery.run, gate, text, override)


def _markdown(
    diff: PlanDiff,
    before: Manifest | None,
    titles: pa.StringArray,
    index: pa.StringArray,
    shift: float,
    shares: dict[str, tuple[float, float]],
    passed: list[str],
) -> str:
    """Write the difference for a person, without anybody's data in it."""
    users = diff.users
    lines = [f"**{users['mailed']:,} users** would be mailed; {users['cleared']:,} are cleared."]
    if before is None:
        lines += ["", "There is no plan of the week before to compare with."]
    else:
        lines += [
            "",
            f"Beside {before.partition.date} ({users['mailed_before']:,} users): {users['gained']:,} gained, "
            f"{users['lost']:,} lost, {users['changed']:,} with another list, {users['same']:,} with the same.",
        ]
    lines += ["", "| top item | now | before |", "| --- | --- | --- |"]
    for item, now, then in diff.top_items(TOP_ITEMS):
        title = titles[item].as_py() or "(not in the catalog)"
        lines.append(f"| {plain(title)} (`{plain(index[item].as_py())}`) | {now:.1%} | {then:.1%} |")
    if shares:
        lines += ["", f"{shift:.1%} of the places moved to another category.", ""]
        lines += ["| category | now | before |", "| --- | --- | --- |"]
        moved = sorted(shares.items(), key=lambda pair: (-abs(pair[1][0] - pair[1][1]), pair[0]))[:TOP_CATEGORIES]
        lines += [f"| {plain(name)} | {now:.1%} | {then:.1%} |" for name, (now, then) in moved]
    if passed:
        lines += ["", "**Let pass:**", *(f"- {plain(text)}" for text in passed)]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Take out what Markdown, HTML or a template would take for more than a text, and cut it."""
    return re.sub(r"[^\w .,:;%()/+&'-]", " ", text)[:80].strip()


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
