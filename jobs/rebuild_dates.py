"""Train and recommend anew for every date of a staged backfill, in one Spark session.

Reads:  staging/RUN_ID/: profiles and catalog of the dates, item_index
Writes: staging/RUN_ID/: backtests, correlations, product_correlations and recommendations of the dates
Run:    python -m jobs.rebuild_dates --lake LAKE --run-id new-catalog \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
from pathlib import Path
from typing import Any

from jobs import backtest_models, recommend_items, train_correlations
from jobs.backfill.request import Backfill, backfill_parser
from jobs.backtest.training_outcome import outcome
from jobs.command_line import run
from schemas.layout import Partition


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return backfill_parser(__doc__)


def main(*, lake: str, run_id: str, campaign: Path) -> dict[str, Any]:
    """Rebuild; return what was rebuilt. A date that is done already costs nothing when it is run again."""
    backfill = Backfill.open(lake=lake, run_id=run_id, campaign=campaign)
    uri = backfill.staged.uri
    for date in backfill.request.dates:
        backtest_models.main(lake=uri, date=date, run_id=run_id, campaign=campaign)
        train_correlations.main(lake=uri, date=date, run_id=run_id, campaign=campaign)
        recommend_items.main(lake=uri, date=date, run_id=run_id, campaign=campaign)
    return rebuilt(backfill)


def rebuilt(backfill: Backfill) -> dict[str, Any]:
    """Sum up what was rebuilt.

    Raises: EmptyPartitionError if a date is missing.
    """
    dates, staged = backfill.request.dates, backfill.staged
    recommendations = [staged.manifest(Partition("recommendations", day, backfill.settings.name)) for day in dates]
    correlations = [outcome(staged, backfill.settings, day) for day in dates]
    return {
        "rows": sum(manifest.rows for manifest in recommendations),
        "dates": len(dates),
        "recommended": sum(int(manifest.metrics["recommended"]) for manifest in recommendations),
        "pairs": sum(int(trained["pairs"]) for trained in correlations),
    }


if __name__ == "__main__":
    run(main, arg_parser())
