"""Promote a compared backfill: publish what it rebuilt in the live lake, one whole partition after the other.

Each partition replaces exactly the one that the comparison saw; if anything was published meanwhile, nothing more is
promoted. Per date the build comes last: until then the date counts as unfinished, and no send starts from it. Dates
whose push was planned are refused. Killed half-way, it goes on where it was.

Reads:  staging/RUN_ID/
Writes: item_index; quarantine_catalog, catalog, backtests, correlations, product_correlations, recommendations and
        builds of the dates;
        backfills/RUN_ID.json (who asked for what, and what it changed)
Run:    python -m jobs.promote_backfill --lake LAKE --run-id new-catalog \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import finish_build
from jobs.backfill.promotion import (
    COMPARISON_PATH,
    check_index,
    digest,
    is_promoted,
    named,
    promote_index,
    replaced_partitions,
)
from jobs.backfill.request import Backfill, backfill_parser, planned_dates
from jobs.command_line import run
from jobs.lake.code_version import code_version
from jobs.lake.copy_partition import republish_partition
from jobs.lake.manifest import Manifest
from jobs.stage_backfill import describe_planned
from schemas.errors import EmptyPartitionError, GateError, PublishConflictError
from schemas.layout import Partition

RECORDS = "backfills"


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return backfill_parser(__doc__)


def main(*, lake: str, run_id: str, campaign: Path) -> dict[str, Any]:
    """Promote all dates; return how many partitions were published and how many items are new.

    Raises: PublishConflictError if the live lake is not what the comparison saw; GateError if a date's push was
    planned or the code changed since it was rebuilt; EmptyPartitionError if nothing was compared.
    """
    backfill = Backfill.open(lake=lake, run_id=run_id, campaign=campaign)
    data = backfill.staged.storage.read(COMPARISON_PATH)
    if data is None:
        raise EmptyPartitionError(f"{backfill.staged.uri} was not compared; run compare_backfill first")
    comparison = json.loads(data)
    # All checks come before the first write; each publish repeats its own.
    if planned := planned_dates(backfill.live, backfill.request):
        raise GateError(describe_planned(planned))
    check_index(backfill)
    for date in backfill.request.dates:
        _check_date(backfill, date, comparison["seen"])
    new_items = promote_index(backfill, run_id)
    published = sum(
        _promote_date(backfill, date, comparison["seen"], run_id, campaign) for date in backfill.request.dates
    )
    _record(backfill, comparison)
    return {**comparison["totals"], "rows": published, "new_items": new_items}


def _check_date(backfill: Backfill, date: dt.date, seen: Mapping[str, str | None]) -> None:
    profiles = Partition("profiles", date)
    if digest(backfill.live.find(profiles)) != digest(backfill.staged.manifest(profiles)):
        raise PublishConflictError(_conflict(profiles))
    for partition in replaced_partitions(backfill, date):
        _replaced(backfill, partition, backfill.staged.manifest(partition), seen)


def _replaced(
    backfill: Backfill, partition: Partition, staged: Manifest, seen: Mapping[str, str | None]
) -> Manifest | None:
    """Return what a partition replaces in the live lake.

    Raises: PublishConflictError if the comparison saw something else; GateError if other code made the staged one.
    """
    if staged.code_version != code_version():
        raise GateError(
            f"{partition} was rebuilt by code {staged.code_version}, this is {code_version()}; nothing more was "
            "promoted. Run the backfill again from its start"
        )
    current = backfill.live.find(partition)
    if not is_promoted(current, staged) and digest(current) != seen[str(partition)]:
        raise PublishConflictError(_conflict(partition))
    return current


def _promote_date(
    backfill: Backfill, date: dt.date, seen: Mapping[str, str | None], run_id: str, campaign: Path
) -> int:
    """Publish one date; return how many partitions were not there already."""
    live, published = backfill.live, 0
    there = {str(Partition("profiles", date)): live.manifest(Partition("profiles", date))}
    for partition in replaced_partitions(backfill, date):
        staged = backfill.staged.manifest(partition)
        current = _replaced(backfill, partition, staged, seen)
        if not is_promoted(current, staged):
            inputs = [there[name] if name in there else named(live, name) for name in staged.inputs]
            current = republish_partition(backfill.staged, staged, live, inputs=inputs, run_id=run_id, replaces=current)
            published += 1
        there[str(partition)] = current or live.manifest(partition)
    finish_build.main(lake=live.uri, date=date, run_id=run_id, campaign=campaign)
    recommendations = backfill.staged.manifest(Partition("recommendations", date, backfill.settings.name))
    built = finish_build.finished_recommendations(live, date, backfill.settings.name)
    if built.content_sha256 != recommendations.content_sha256:
        raise PublishConflictError(_conflict(built.partition))
    return published


def _record(backfill: Backfill, comparison: Mapping[str, Any]) -> None:
    """Keep who asked for what and what it changed, where it outlives the staged lake."""
    path = f"{RECORDS}/{backfill.id}.json"
    body = {"request": json.loads(backfill.request.to_bytes()), **{key: comparison[key] for key in ("totals", "dates")}}
    storage = backfill.live.storage
    storage.replace_if(path, (json.dumps(body, indent=1) + "\n").encode(), storage.read(path))


def _conflict(partition: Partition) -> str:
    return (
        f"{partition} of the live lake is not what the backfill was compared with: something was published meanwhile. "
        "Nothing more was promoted; run the backfill again from its start, while no build is running"
    )


if __name__ == "__main__":
    run(main, arg_parser())
