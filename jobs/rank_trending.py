"""Rank what is in demand: for everybody, and in every category.

Reads:  profiles and catalog of the date, item_index, the campaign's [trending] settings
Writes: trending of the campaign and date
Run:    python -m jobs.rank_trending --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from jobs.backtest.split import micros
from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import Window
from jobs.lake.summary import summarise
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import observe
from jobs.quality.override import GateOverride
from jobs.ranking.trending import EVERYTHING, demand_of_profiles, trending_lists
from schemas.campaign import load_campaign
from schemas.contracts import CONTRACTS
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.tables import TRENDING


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__, campaign=True)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, override: GateOverride | None = None
) -> dict[str, Any]:
    """Publish what is in demand; return how many categories have a list.

    Raises: EmptyPartitionError if nothing of the catalog is in demand; GateError if the table's contract does not hold.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    partition = Partition(TRENDING.name, date, settings.name)
    profiles, catalog = opened.manifest(Partition("profiles", date)), opened.manifest(Partition("catalog", date))
    inputs, parameters = [profiles, catalog], {"trending": settings.trending.model_dump(mode="json")}
    if found := opened.reusable(partition, inputs=inputs, parameters=parameters):
        return summarise(found)

    index, now = read_index(opened), micros(Window.of_days(date, date).end_at)
    demand = np.zeros(len(index), np.int64)
    # One bucket at a time, in this task: adding up takes less than starting Spark does, up to millions of users.
    for bucket in range(opened.buckets):
        rows = opened.read(profiles, bucket=bucket)
        demand += demand_of_profiles(rows, settings.trending, now=now, items=len(index))
    goods = opened.read(catalog, columns=["item_id", "category"])
    item = to_items(index, goods["item_id"]).to_numpy().astype(np.int64)
    rows = trending_lists(demand, item, goods["category"], depth=settings.trending.list_items)
    if len(rows) == 0:
        raise EmptyPartitionError(
            f"none of the {len(item):,} items of the catalog of {date} was of interest to anybody in the "
            f"{settings.trending.max_age_days} days before; check that catalog and events name items by the same ids"
        )
    attempt = opened.attempt(partition, run_id)
    manifest = publish_checked(
        attempt,
        [attempt.write(rows)],
        observe(CONTRACTS[TRENDING.name], rows),
        inputs=inputs,
        parameters=parameters,
        metrics={"categories": len(rows) - 1, "items_in_demand": int((demand[item] > 0).sum())},
        figures={
            "rows_of_everything": sum(key == EVERYTHING for key in rows["key"].to_pylist()),
            "items_not_in_catalog": int((~np.isin(flat(rows["item"]), item)).sum()),
        },
        override=override,
    )
    return summarise(manifest)


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
