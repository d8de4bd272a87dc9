"""Compare a rebuilt backfill with the live lake: who gains or loses a list, which items come and go.

Reads:  staging/RUN_ID/ and the live lake: recommendations of the dates
Writes: staging/RUN_ID/_comparison.json (the figures, and exactly which live partitions they were compared with)
Run:    python -m jobs.compare_backfill --lake LAKE --run-id new-catalog \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import Any

from jobs.backfill.comparison import DateComparison, Shown, UserChanges, compare_users
from jobs.backfill.promotion import COMPARISON_PATH, seen_in
from jobs.backfill.request import Backfill, backfill_parser
from jobs.command_line import run
from jobs.lake.item_index import read_index
from schemas.errors import GateError
from schemas.layout import Partition

MAX_LOST_PERCENT = 5  # of the users that had a list; more looks like a broken catalog


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = backfill_parser(__doc__)
    parser.add_argument(
        "--max-lost-percent",
        type=int,
        default=MAX_LOST_PERCENT,
        help="stop if more of the users with a list would have none (%(default)s)",
    )
    return parser


def main(*, lake: str, run_id: str, campaign: Path, max_lost_percent: int = MAX_LOST_PERCENT) -> dict[str, Any]:
    """Compare all dates and write it down; return the totals (users are counted once per date).

    Raises: GateError if too many would lose their list.
    """
    backfill = Backfill.open(lake=lake, run_id=run_id, campaign=campaign)
    seen = seen_in(backfill.live, backfill)
    items = max(len(read_index(backfill.live)), len(read_index(backfill.staged)))
    dates = [_compare_date(backfill, date, items) for date in backfill.request.dates]
    totals = _totals(dates)
    body = {"seen": seen, "totals": totals, "dates": [date.as_json() for date in dates]}
    storage = backfill.staged.storage
    data = (json.dumps(body, indent=1) + "\n").encode()
    storage.replace_if(COMPARISON_PATH, data, storage.read(COMPARISON_PATH))
    users = sum((date.users for date in dates), UserChanges())
    if users.lost * 100 > users.before * max_lost_percent:
        raise GateError(
            f"{users.lost} of {users.before} users would lose their recommendations, expected at most "
            f"{max_lost_percent} %; nothing was promoted. Look at the new catalog's stock and items, or raise the limit"
        )
    return totals


def _compare_date(backfill: Backfill, date: dt.date, items: int) -> DateComparison:
    partition = Partition("recommendations", date, backfill.settings.name)
    before, after = backfill.live.manifest(partition), backfill.staged.manifest(partition)
    users, shown = UserChanges(), Shown(items)
    for bucket in range(backfill.live.buckets):
        old = backfill.live.read(before, bucket=bucket, columns=["user_id", "item"])
        new = backfill.staged.read(after, bucket=bucket, columns=["user_id", "item"])
        users += compare_users(old, new)
        shown.add(old, new)
    eligible = [int(manifest.metrics["eligible_items"]) for manifest in (before, after)]
    return shown.compared(date.isoformat(), users, *eligible)


def _totals(dates: list[DateComparison]) -> dict[str, Any]:
    users = sum((date.users for date in dates), UserChanges())
    return {
        "rows": users.before + users.gained,
        "dates": len(dates),
        **{f"users_{name}": count for name, count in vars(users).items()},
        "items_entered": sum(date.items_entered for date in dates),
        "items_left": sum(date.items_left for date in dates),
        # Text, because counts beside an asset are whole numbers or text.
        "coverage_before": f"{sum(date.coverage_before for date in dates) / len(dates):.4f}",
        "coverage_after": f"{sum(date.coverage_after for date in dates) / len(dates):.4f}",
    }


if __name__ == "__main__":
    run(main, arg_parser())
