"""Stage a backfill: a lake of its own with the live profiles, and the catalog exported anew for every date.

The dates' profiles and the item index are copied as they are; events and users are not (nothing is folded again, and
the fewer copies of a person's data the better). Nothing in the live lake's tables changes.

Reads:  the shop's catalog; profiles, builds and recommendations of the dates, item_index
Writes: staging/RUN_ID/: profiles, catalog and quarantine_catalog of the dates, item_index, the last good correlations
Run:    python -m jobs.stage_backfill --lake LAKE --run-id new-catalog --first-date 2026-11-02 --last-date 2026-11-04 \
            --reason "the shop sorted its items into new categories" --source docs/examples/demo_shop.toml \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import os
from pathlib import Path
from typing import Any

from jobs import export_table
from jobs.backfill.request import Backfill, BackfillRequest, backfill_parser, planned_dates
from jobs.backtest.training_outcome import last_good, last_shown
from jobs.command_line import run
from jobs.finish_build import finished_recommendations
from jobs.lake.copy_partition import mirror_partition
from jobs.lake.item_index import append_items
from jobs.lake.lake import Lake
from jobs.ranking.quota_inputs import catalog_before, receipts_before
from schemas.campaign import load_campaign
from schemas.errors import GateError
from schemas.layout import UNDATED, Partition

# What is known without history is taken as it was: a new catalog changes what is recommended, not what was in demand.
_COLD_START = ("hybrid_features", "hybrid_items", "hybrid_users", "trending")


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = backfill_parser(__doc__)
    parser.add_argument("--first-date", required=True, type=dt.date.fromisoformat, help="first UTC day, YYYY-MM-DD")
    parser.add_argument("--last-date", required=True, type=dt.date.fromisoformat, help="last UTC day, included")
    parser.add_argument("--reason", required=True, help="why the dates are built again; kept with what comes of it")
    parser.add_argument("--source", required=True, type=Path, help="the source's settings file (TOML)")
    parser.add_argument("--data", help="where the data is, instead of the place that the settings name")
    parser.add_argument(
        "--compare-only",
        dest="promote",
        action="store_false",
        help="never to be promoted: dates whose push was planned may be among them",
    )
    return parser


def main(
    *,
    lake: str,
    run_id: str,
    campaign: Path,
    first_date: dt.date,
    last_date: dt.date,
    reason: str,
    source: Path,
    data: str | None,
    promote: bool = True,
    source_uri: str | None = None,
) -> dict[str, Any]:
    """Stage all dates; return how many, with the catalogs' rows and the items that the index did not know.

    Raises: ConfigError for a request that makes no sense; EmptyPartitionError if a date was never built or its users
    expired; GateError if it is to be promoted and a date's push was planned.
    """
    request = BackfillRequest(load_campaign(campaign).name, first_date, last_date, reason)
    _check_live(Lake.open(lake), request, promote=promote)
    backfill = Backfill.begin(lake=lake, run_id=run_id, campaign=campaign, request=request)
    live, staged = backfill.live, backfill.staged
    if staged.find(Partition("item_index", UNDATED)) is None:
        mirror_partition(live, staged, Partition("item_index", UNDATED))
    # What the first date's training is held against, and its lists are kept steady by.
    for before in (last_good(live, backfill.settings, first_date), last_shown(live, backfill.settings, first_date)):
        if before is not None:
            mirror_partition(live, staged, before.partition)
    known, rows = live.manifest(Partition("item_index", UNDATED)).rows, 0
    index = known
    for date in request.dates:
        mirror_partition(live, staged, Partition("profiles", date))
        for partition in (Partition(table, date, backfill.settings.name) for table in _COLD_START):
            if live.find(partition) is not None:
                mirror_partition(live, staged, partition)
        for partition in _quota_partitions(backfill, date):
            if staged.find(partition) is None and live.find(partition) is not None:
                mirror_partition(live, staged, partition)
        export_table.main(
            lake=staged.uri,
            table="catalog",
            date=date,
            source=source,
            data=data,
            run_id=run_id,
            source_uri=source_uri,
        )
        catalog = staged.manifest(Partition("catalog", date))
        index = append_items(staged, [staged.read(catalog, columns=["item_id"])["item_id"]], run_id).rows
        rows += catalog.rows
    return {"rows": rows, "dates": len(request.dates), "new_items": index - known, "staged": staged.uri}


def _quota_partitions(backfill: Backfill, date: dt.date) -> list[Partition]:
    """Name what says which items were new and what mails they were in: as it was, too."""
    settings = backfill.settings
    if not settings.has_quota:
        return []
    # A catalog of a date that is built again is the new one: it was exported before, as dates come in order.
    receipts = receipts_before(date, settings.name, settings.exposure)
    return [*receipts, catalog_before(date, settings.exposure)]


def _check_live(live: Lake, request: BackfillRequest, *, promote: bool) -> None:
    """Refuse what cannot be compared or promoted later, before anything is staged."""
    for date in request.dates:
        finished_recommendations(live, date, request.campaign)
        for table in ("events", "users"):  # the new build will name them
            live.manifest(Partition(table, date))
    if promote and (planned := planned_dates(live, request)):
        raise GateError(describe_planned(planned))


def describe_planned(dates: list[dt.date]) -> str:
    """Say why dates whose push was planned are not replaced."""
    return (
        f"the push of {', '.join(map(str, dates))} was planned from the recommendations there are; expected dates that "
        "were not, so that the lake goes on saying what its mails were made from. Leave them out, or only compare"
    )


if __name__ == "__main__":
    run(functools.partial(main, source_uri=os.environ.get(export_table.SOURCE_URI_VARIABLE)), arg_parser())
