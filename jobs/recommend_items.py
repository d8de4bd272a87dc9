"""Recommend to every user: what goes with their recent items, minus everything that is ruled out for them.

Reads:  profiles, catalog, correlations (the newest of the last 14 days), item_index, the campaign; for campaigns of
        what is back in stock, the catalogs of the days before instead of correlations; for a quota of new items,
        hybrid_items, receipts and an earlier catalog
Writes: recommendations of the campaign and date
Run:    python -m jobs.recommend_items --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.summary import summarise
from jobs.quality import gates
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import Observed
from jobs.quality.list_figures import FOLLOWS_STOCK, list_figures, list_metrics, observe_lists
from jobs.quality.override import GateOverride
from jobs.ranking.inputs import RankedUsers, RankingInputs, ranking_inputs
from jobs.ranking.judge import count_verdicts, judge
from jobs.ranking.quota import Quota
from jobs.ranking.quota_batches import Shares, place_in_batch, rank_with_room
from jobs.ranking.recommend import Shared, recommend
from jobs.ranking.shared_inputs import load_shared, save_shared
from schemas.campaign import Campaign, load_campaign
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.tables import RECOMMEND_OUTCOMES, RECOMMENDATIONS

# Users ranked at once: some 120 MB at 22 records each, in arrays that the process keeps (see spark_session).
BATCH_USERS: Final = 20_000
# The waterfall judges every candidate, some hundreds a user: 0.4 ms each. Over all users that would cost more than the
# ranking; of 64 buckets it knows the shares of 12,800 users, to 0.9 % at worst (two standard errors).
WATERFALL_USERS_PER_BUCKET: Final = 200
WATERFALL: Final = "waterfall."
_CATALOG_FLAGS: Final = "catalog_flags.npy"


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
    inputs, parameters = ranking_inputs(opened, date, settings.name, settings), settings.ranking_parameters()
    if found := opened.reusable(partition, inputs=inputs.manifests, parameters=parameters):
        return summarise(found)

    from jobs.spark_session import map_parts, opening_session

    attempt = opened.attempt(partition, run_id)
    with (
        tempfile.TemporaryDirectory(prefix="ryml-recommend-") as name,
        opening_session("recommend_items") as session,
        ThreadPoolExecutor(1, "gates") as beside,
    ):
        folder = Path(name)
        shared = inputs.shared(opened, settings)
        eligible_items = int(shared.facts.is_eligible.sum())
        save_shared(shared, folder)
        quota = inputs.read_quota(opened, settings.name, shared.facts)
        del shared
        _save_catalog_flags(opened, inputs.catalog, folder)
        spark, buckets = session.result(), range(opened.buckets)
        # Beside the workers: what the driver reads takes as long as the JVM's start.
        beside.submit(gates.load)
        if quota is None:
            work = functools.partial(_recommend_bucket, attempt, inputs, folder, settings)
            results = map_parts(spark, work, buckets, "recommend for user buckets")
        else:
            quota.save(folder)
            rank = functools.partial(rank_with_room, opened, inputs, folder, settings, BATCH_USERS)
            shares = Shares.of(quota, map_parts(spark, rank, buckets, "rank, and count who is close to new items"))
            place = functools.partial(_place_in_bucket, attempt, inputs, folder, settings, shares)
            results = map_parts(spark, place, buckets, "place new items for user buckets")
    observed = Observed.total(counted for _, counted in results)
    users = {name: observed.sums[name] for name in RECOMMEND_OUTCOMES}
    if users["recommended"] == 0 and not settings.mail.may_be_empty:
        raise EmptyPartitionError(
            f"nobody of {sum(users.values())} users gets a recommendation on {date} ({users}); check the catalog's "
            "stock and the campaign's exclusions"
        )
    metrics = {
        **users,
        "eligible_items": eligible_items,
        **list_metrics(observed, slots=settings.slots, eligible_items=eligible_items),
        "waterfall": {
            name.removeprefix(WATERFALL): count for name, count in observed.sums.items() if name.startswith(WATERFALL)
        },
    }
    if settings.has_quota:
        metrics["quota"] = {
            "new_items": len(quota.items) if quota else 0,
            "mails_wanted": int(quota.wanted.sum()) if quota else 0,
            "placed": observed.sums["items_from.exposure"],
        }
    figures = {
        "rows_of_users": observed.sums["rows"] / (inputs.profiles.rows + observed.sums["users_without_profile"]),
        **list_figures(
            observed,
            in_stock=settings.catalog.in_stock,
            eligible_items=eligible_items,
            follows_stock=settings.candidates.kind == "back_in_stock",
        ),
    }
    if inputs.correlations is not None:
        figures["correlations_age_days"] = (date - inputs.correlations.partition.date).days
    manifest = publish_checked(
        attempt,
        [entry for entry, _ in results],
        observed,
        inputs=inputs.manifests,
        parameters=parameters,
        metrics=metrics,
        figures=figures,
        missing={
            "items_in_stock_share": "the campaign recommends items that are out of stock as well",
            "correlations_age_days": "the campaign recommends what is on the wishlist",
            **(FOLLOWS_STOCK if settings.candidates.kind == "back_in_stock" else {}),
        },
        override=override,
    )
    return summarise(manifest)


def _recommend_bucket(
    attempt: Attempt, inputs: RankingInputs, folder: Path, settings: Campaign, bucket: int
) -> tuple[FileEntry, Observed]:
    shared = load_shared(folder)
    users, without_profile = inputs.users_of_bucket(attempt.lake, bucket)
    size, lists = len(users.profiles), [RECOMMENDATIONS.schema.empty_table()]
    for first in range(0, size, BATCH_USERS):
        some = users.slice(first, BATCH_USERS)
        lists.append(recommend(inputs.batch(some, settings, shared), shared, settings, some.features))
    rows = pa.concat_tables(lists)
    return _write(
        attempt, bucket, rows, _waterfall(users, rows, inputs, settings, shared), without_profile, folder, settings
    )


def _place_in_bucket(
    attempt: Attempt, inputs: RankingInputs, folder: Path, settings: Campaign, shares: Shares, bucket: int
) -> tuple[FileEntry, Observed]:
    """Write what was ranked for a bucket, with the new items that its users get."""
    shared, quota = load_shared(folder), Quota.load(folder)
    users, without_profile = inputs.users_of_bucket(attempt.lake, bucket)
    size, lists = len(users.profiles), [RECOMMENDATIONS.schema.empty_table()]
    for number in range(-(-size // BATCH_USERS)):
        lists.append(place_in_batch(folder, bucket, number, quota, shares, settings))
    rows = pa.concat_tables(lists)
    return _write(
        attempt, bucket, rows, _waterfall(users, rows, inputs, settings, shared), without_profile, folder, settings
    )


def _write(
    attempt: Attempt,
    bucket: int,
    rows: pa.Table,
    counted: "Counter[str]",
    without_profile: int,
    folder: Path,
    settings: Campaign,
) -> tuple[FileEntry, Observed]:
    observed = _observe_bucket(rows, folder, settings)
    observed.sums["users_without_profile"] += without_profile
    observed.sums.update({WATERFALL + name: count for name, count in counted.items()})
    return attempt.write(rows, bucket=bucket), observed


def _waterfall(
    users: RankedUsers, lists: pa.Table, inputs: RankingInputs, settings: Campaign, shared: Shared
) -> "Counter[str]":
    """Judge the candidates of every so-manieth user of a bucket, and count."""
    every = max(1, -(-len(lists) // WATERFALL_USERS_PER_BUCKET))
    rows = pa.array(range(0, len(lists), every), pa.int64())
    batch = inputs.batch(RankedUsers(users.profiles.take(rows), users.features[::every]), settings, shared)
    return count_verdicts(judge(batch, shared, settings, lists.take(rows)), len(batch))


def _save_catalog_flags(lake: Lake, catalog: Manifest, folder: Path) -> None:
    """Say of every item whether it is in the catalog and in stock: for the gate, whatever the filters say."""
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
