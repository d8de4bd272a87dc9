"""Correlate the items: the best others of each, from who showed interest in both.

Reads:  profiles of the date, item_index, the campaign's training settings
Writes: correlations of the date
Run:    python -m jobs.train_correlations --lake LAKE --date 2026-11-02 --run-id by-hand \
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
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index
from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import flat, lengths
from jobs.lake.manifest import FileEntry, Manifest, Window
from jobs.lake.scratch import Scratch
from jobs.lake.summary import summarise
from jobs.profiles.fold import Records, records_of_profiles
from jobs.profiles.pairs import pairs_of_profiles
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import Observed, observe
from jobs.quality.override import GateOverride
from jobs.ranking.cooccurrence import correlate_block, normalised
from schemas.campaign import TrainingSettings, load_campaign
from schemas.contracts import CONTRACTS
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.tables import CORRELATIONS, EVENT_TYPES

TOP = 20  # correlated items kept per item
MIN_SUPPORT = 2  # users in common; one shared user is a coincidence
_DAY = 86_400_000_000  # microseconds
# Interest counts once per user and item, whatever its type; removals and refunds only undo.
_INTEREST = np.array([1.0 if name in ("view", "cart_add", "wishlist_add", "purchase") else 0.0 for name in EVENT_TYPES])
# Items a task correlates: small enough for many tasks, large enough to be worth one (measured 0.1 s at 2,000).
_BLOCK_ITEMS = 2_000


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    parser.add_argument("--top", type=int, default=TOP, help="correlated items kept per item")
    parser.add_argument("--min-support", type=int, default=MIN_SUPPORT, help="users in common that a pair needs")
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    top: int = TOP,
    min_support: int = MIN_SUPPORT,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Publish the date's correlations; return how many items have some, the pairs, and the window they came from.

    Raises: EmptyPartitionError if the widest window holds too few records, or no two items share enough users;
    GateError if the contract of the correlations does not hold.
    """
    opened, training = Lake.open(lake), load_campaign(campaign).training
    partition = Partition("correlations", date)
    profiles = opened.manifest(Partition("profiles", date))
    parameters = {"top": top, "min_support": min_support, "training": training.model_dump()}
    if found := opened.reusable(partition, inputs=[profiles], parameters=parameters):
        return summarise(found)

    from jobs.spark_session import map_parts, open_session

    spark = open_session("train_correlations")
    attempt = opened.attempt(partition, run_id)
    items = len(read_index(opened))
    until = _micros(Window.of_days(date, date).end_at)
    count = functools.partial(_count_days, opened, profiles, until, training.max_window_days)
    per_day = np.sum(map_parts(spark, count, range(opened.buckets), "count records by day"), axis=0)
    window_days, records = choose_window(per_day, training)
    with tempfile.TemporaryDirectory(prefix="ryml-train-") as folder:
        scratch = Scratch(Path(folder))
        read = functools.partial(_read_bucket, opened, profiles, scratch, items, until - window_days * _DAY, until)
        map_parts(spark, read, range(opened.buckets), "read user buckets")
        matrix = sparse.vstack([scratch.load(f"bucket-{bucket}") for bucket in range(opened.buckets)], format="csr")
        by_users = normalised(matrix)
        scratch.save("users_by_items", by_users)
        scratch.save("items_by_users", by_users.T.tocsr())
        correlate = functools.partial(_correlate_block, attempt, scratch, top, min_support)
        results = map_parts(spark, correlate, range(0, items, _BLOCK_ITEMS), "correlate item blocks")
    observed = Observed.total(counted for _, counted in results)
    pairs = observed.sums["pairs"]
    if pairs == 0:
        raise EmptyPartitionError(
            f"no two items share {min_support} users in the {window_days} days up to {date}; export more history or "
            "lower --min-support"
        )
    metrics = {
        "pairs": pairs,
        "records": records,
        "window_days": window_days,
        "interactions": int(matrix.nnz),
        "users": int(matrix.shape[0]),
    }
    manifest = publish_checked(
        attempt,
        [entry for entry, _ in results],
        observed,
        inputs=[profiles],
        parameters=parameters,
        metrics=metrics,
        figures={
            "items_with_neighbours_share": observed.sums["rows"] / len(np.unique(matrix.indices)),
            **{name: observed.sums[name] for name in ("self_neighbours", "items_not_in_index")},
        },
        override=override,
    )
    return summarise(manifest)


def choose_window(per_day: npt.NDArray[np.int64], training: TrainingSettings) -> tuple[int, int]:
    """Choose the narrowest window, from `window_days` on, that holds `min_records`; return its days and records.

    Shapes: per_day counts the records of each day, the newest first, `max_window_days` of them.
    Raises: EmptyPartitionError if the widest holds fewer, unless the campaign allows it.
    """
    total = np.cumsum(per_day)
    enough = np.flatnonzero(total >= training.min_records)
    if len(enough):
        days = max(int(enough[0]) + 1, training.window_days)
        return days, int(total[days - 1])
    if not training.allow_less or total[-1] == 0:
        raise EmptyPartitionError(
            f"the widest window of {training.max_window_days} days holds {total[-1]:,} training records, expected "
            f"{training.min_records:,}; export more history, or lower training.min_records or set training.allow_less "
            "in the campaign. The correlations of the last good day stay"
        )
    return training.max_window_days, int(total[-1])


def _interest_at(records: Records) -> npt.NDArray[np.int64]:
    """When each record that shows interest last did so; the others are left out."""
    at: npt.NDArray[np.int64] = records.last_at[_INTEREST[records.event_type] > 0]
    return at


def _count_days(lake: Lake, profiles: Manifest, until: int, max_window_days: int, bucket: int) -> npt.NDArray[np.int64]:
    """Count one bucket's records of interest by their age in whole days."""
    rows = lake.read(profiles, bucket=bucket)
    age_days = (until - 1 - _interest_at(records_of_profiles(rows, np.zeros(len(rows), np.int64)))) // _DAY
    inside = age_days[(age_days >= 0) & (age_days < max_window_days)]
    return np.bincount(inside, minlength=max_window_days)


def _read_bucket(
    lake: Lake, profiles: Manifest, scratch: Scratch, items: int, since: int, until: int, bucket: int
) -> None:
    """Lay one bucket's interest out as a 0/1 matrix, rows in user order."""
    pairs = pairs_of_profiles(lake.read(profiles, bucket=bucket))
    # A half-life does not matter here: any weight above 0 counts as 1.
    weight = pairs.interest(_INTEREST, half_life_days=366, now=until)
    never = np.iinfo(np.int64).min
    last = np.where(_INTEREST > 0, pairs.last_at, never).max(axis=1, initial=never)
    shown = (weight > 0) & (last >= since) & (last < until)
    scratch.save(f"bucket-{bucket}", pairs.matrix(shown, np.ones(len(weight), np.float32), items))


def _correlate_block(
    attempt: Attempt, scratch: Scratch, top: int, min_support: int, first: int
) -> tuple[FileEntry, Observed]:
    block = scratch.load("items_by_users")[first : first + _BLOCK_ITEMS]
    rows = correlate_block(block, scratch.load("users_by_items"), first, top=top, min_support=min_support)
    items = scratch.load("items_by_users").shape[0]
    return attempt.write(rows, bucket=first // _BLOCK_ITEMS), _observe_block(rows, items)


def _observe_block(rows: pa.Table, items: int) -> Observed:
    observed = observe(CONTRACTS[CORRELATIONS.name], rows)
    item, others = rows["item"].to_numpy(), flat(rows["other_item"])
    observed.sums["pairs"] = len(others)
    observed.sums["self_neighbours"] = int((np.repeat(item, lengths(rows["other_item"])) == others).sum())
    observed.sums["items_not_in_index"] = int((item >= items).sum() + (others >= items).sum())
    return observed


def _micros(instant: dt.datetime) -> int:
    return int(instant.timestamp()) * 1_000_000


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
