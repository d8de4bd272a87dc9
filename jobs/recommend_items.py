"""Recommend items to every user of a campaign.

Reads:  profiles and catalog of the date, the newest correlations up to it, item_index, the campaign's settings
Writes: recommendations of the campaign and date
Run:    python -m jobs.recommend_items --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import FileEntry, Manifest, Window
from jobs.lake.scratch import Scratch
from jobs.lake.summary import summarise
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import Observed
from jobs.quality.list_figures import list_figures, observe_lists
from jobs.quality.override import GateOverride
from jobs.ranking.recommend import correlation_matrix, recommend
from schemas.campaign import Campaign, load_campaign
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.tables import RECOMMEND_OUTCOMES

_CATALOG_FLAGS = "catalog_flags.npy"

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__, campaign=True)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, override: GateOverride | None = None
) -> dict[str, Any]:
    """Publish the campaign's recommendations; return users by outcome.

    Raises: EmptyPartitionError if there are no correlations of the last 14 days, or nobody gets anything; GateError if
    the contract of the recommendations does not hold.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    partition = Partition("recommendations", date, settings.name)
    profiles, catalog = opened.manifest(Partition("profiles", date)), opened.manifest(Partition("catalog", date))
    correlations = opened.latest("correlations", up_to=date, campaign=settings.name, days=CORRELATIONS_MAX_AGE_DAYS)
    if correlations is None:
        raise EmptyPartitionError(
            f"no correlations of {date} or the {CORRELATIONS_MAX_AGE_DAYS} days before it; run train_correlations"
        )
    inputs, parameters = [profiles, catalog, correlations], settings.ranking_parameters()
    if found := opened.reusable(partition, inputs=inputs, parameters=parameters):
        return summarise(found)

    from jobs.spark_session import map_parts, open_session

    spark = open_session("recommend_items")
    attempt = opened.attempt(partition, run_id)
    with tempfile.TemporaryDirectory(prefix="ryml-recommend-") as folder:
        scratch = Scratch(Path(folder))
        eligible = eligible_items(opened, catalog, settings)
        _save_catalog_flags(opened, catalog, Path(folder))
        scratch.save("correlations", correlation_matrix(opened.read(correlations), eligible))
        work = functools.partial(_recommend_bucket, attempt, profiles, scratch, settings)
        results = map_parts(spark, work, range(opened.buckets), "recommend for user buckets")
    observed = Observed.total(counted for _, counted in results)
    users = {name: observed.sums[name] for name in RECOMMEND_OUTCOMES}
    if users["recommended"] == 0:
        raise EmptyPartitionError(
            f"nobody of {sum(users.values())} users gets a recommendation on {date} ({users}); check the catalog's "
            "stock and the campaign's exclusions"
        )
    metrics = {**users, "eligible_items": int(eligible.sum())}
    figures = {
        "rows_of_profiles": observed.sums["rows"] / profiles.rows,
        "recommended_share": users["recommended"] / observed.sums["rows"],
        "correlations_age_days": (date - correlations.partition.date).days,
        **list_figures(observed, in_stock=settings.catalog.in_stock),
    }
    manifest = publish_checked(
        attempt,
        [entry for entry, _ in results],
        observed,
        inputs=inputs,
        parameters=parameters,
        metrics=metrics,
        figures=figures,
        missing={"items_in_stock_share": "the campaign recommends items that are out of stock as well"},
        override=override,
    )
    return summarise(manifest)


def eligible_items(lake: Lake, catalog: Manifest, settings: Campaign) -> Bools:
    """Mark the items that the campaign may recommend: in the catalog and, if asked, in stock.

    Shapes: (items,), by item.
    """
    index = read_index(lake)
    rows = lake.read(catalog, columns=["item_id", "stock"])
    if settings.catalog.in_stock:
        rows = rows.filter(pc.greater(rows["stock"], 0))
    eligible = np.zeros(len(index), np.bool_)
    eligible[to_items(index, rows["item_id"]).to_numpy()] = True
    return eligible


def _recommend_bucket(
    attempt: Attempt, profiles: Manifest, scratch: Scratch, settings: Campaign, bucket: int
) -> tuple[FileEntry, Observed]:
    rows = recommend(
        attempt.lake.read(profiles, bucket=bucket),
        scratch.load("correlations"),
        slots=settings.slots,
        min_items=settings.min_items,
        history_items=settings.history.items,
        half_life_days=settings.history.half_life_days,
        weights=settings.history.weights_by_type(),
        exclude=settings.exclude,
        now=int(Window.of_days(attempt.partition.date, attempt.partition.date).end_at.timestamp()) * 1_000_000,
    )
    return attempt.write(rows, bucket=bucket), _observe_bucket(rows, scratch.folder, settings)


def _save_catalog_flags(lake: Lake, catalog: Manifest, folder: Path) -> None:
    """Say of every item whether it is in the catalog and in stock: for the gate, whatever `eligible_items` says."""
    index, rows = read_index(lake), lake.read(catalog, columns=["item_id", "stock"])
    items, flags = to_items(index, rows["item_id"]).to_numpy(), np.zeros((2, len(index)), np.bool_)
    flags[0, items] = True
    flags[1, items] = rows["stock"].to_numpy() > 0
    np.save(folder / _CATALOG_FLAGS, flags)


def _observe_bucket(rows: pa.Table, folder: Path, settings: Campaign) -> Observed:
    in_catalog, in_stock = np.load(folder / _CATALOG_FLAGS, mmap_mode="r")
    observed = observe_lists(
        rows, in_catalog=in_catalog, in_stock=in_stock, slots=settings.slots, min_items=settings.min_items
    )
    for row in pc.value_counts(rows["outcome"]):
        observed.sums[row["values"].as_py()] += row["counts"].as_py()
    return observed


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
