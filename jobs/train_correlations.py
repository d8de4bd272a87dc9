"""Correlate the items: the best others of each, by the model that the backtest of the date chose.

Where the date is not due, or its model or its table is refused, the last good correlations stay, and the answer says
so; the night goes on with them for 14 days.

Reads:  profiles and backtests of the date, item_index, the newest hybrid_items of the last 14 days, the
        product_correlations before the date, the campaign's settings
Writes: correlations and product_correlations of the campaign and date
Run:    python -m jobs.train_correlations --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.backtest.contest import stacked
from jobs.backtest.recompute import Evidence
from jobs.backtest.split import micros
from jobs.backtest.table_gate import (
    TOO_FEW,
    as_matrix,
    figures_of_table,
    hit_rate_of_popularity,
    look_at,
    read_back,
)
from jobs.backtest.training_outcome import MODEL, is_due, last_good, last_shown, model_of, needs_training, outcome
from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index
from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import lengths
from jobs.lake.manifest import FileEntry, Manifest, Window
from jobs.lake.scratch import Scratch
from jobs.profiles.pairs import COLUMNS, pairs_of_profiles
from jobs.quality import gates
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import Observed, observe
from jobs.quality.override import GateOverride
from jobs.ranking.hybrid_tables import read_vectors
from jobs.ranking.interactions import DAY, Interest, in_order, user_order
from jobs.ranking.item_model import fit, load, save
from jobs.ranking.item_vectors import VectorItems
from jobs.ranking.merge_neighbours import MergeRule, merge_hybrid, typical_score
from jobs.ranking.neighbours import Together, co_occurring
from jobs.ranking.steady_lists import SHOWN, replaced_without_gain, shown_lists
from jobs.ranking.training_window import choose_window, count_days
from schemas.campaign import Campaign, load_campaign
from schemas.contracts import CONTRACTS, CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import EmptyPartitionError, GateError
from schemas.item_models import ItemModelSettings
from schemas.layout import Partition
from schemas.tables import HYBRID_ITEMS, PRODUCT_CORRELATIONS
from schemas.training import TrainingSettings

# Items a task correlates: small enough for many tasks, large enough to be worth one (measured 0.1 s at 2,000).
_BLOCK_ITEMS: Final = 2_000
_MODEL: Final = "model"
_HYBRID: Final = "hybrid"
_EVIDENCE: Final = "evidence"
_SCORED_ITEMS: Final = 1_000  # lists that are looked at for what a score is worth


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    parser.add_argument("--partitions", type=int, help="Spark partitions that the work is spread over (one a part)")
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    partitions: int | None = None,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Publish the date's correlations, if they are due and good; return what the night goes on with, and why.

    Raises: EmptyPartitionError if the widest window holds too few records, no two items share enough users, or the
    date has no backtest; GateError if what was made is refused and there are no last good correlations.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    if is_due(opened, settings, date) and opened.find(Partition("backtests", date, settings.name)) is None:
        raise EmptyPartitionError(
            f"{Partition('backtests', date, settings.name)} was never published; run backtest_models for {date} first"
        )
    if needs_training(opened, settings, date):
        try:
            correlations = _train(opened, settings, date, run_id, partitions, override)
            _publish_shown(opened, settings, date, run_id, correlations, override)
        except GateError:
            if last_good(opened, settings, date) is None:
                raise
    return outcome(opened, settings, date)


def _train(
    lake: Lake, campaign: Campaign, date: dt.date, run_id: str, partitions: int | None, override: GateOverride | None
) -> Manifest:
    """Train with the chosen model and publish the correlations."""
    training, partition = campaign.training, Partition("correlations", date, campaign.name)
    profiles = lake.manifest(Partition("profiles", date))
    backtest = lake.manifest(Partition("backtests", date, campaign.name))
    model = model_of(backtest.metrics[MODEL])
    if model is None:
        raise EmptyPartitionError(f"{backtest.partition} is of another release; run backtest_models for {date} again")
    hybrid = lake.latest(HYBRID_ITEMS.name, up_to=date, campaign=campaign.name, days=CORRELATIONS_MAX_AGE_DAYS)
    inputs = [profiles, backtest, hybrid] if hybrid else [profiles, backtest]
    merged = campaign.hybrid.model_dump(mode="json", include={"little_support", "enough_support"}) if hybrid else None
    parameters = {MODEL: model.model_dump(mode="json"), "training": training.table_parameters(), "hybrid": merged}
    if published := lake.reusable(partition, inputs=inputs, parameters=parameters):
        return published

    from jobs.spark_session import map_parts, opening_session

    with opening_session("train_correlations") as session:
        gates.load()
        spark = session.result()
    attempt, items = lake.attempt(partition, run_id), len(read_index(lake))
    until = micros(Window.of_days(date, date).end_at)
    each = functools.partial(map_parts, spark, partitions=partitions)
    with tempfile.TemporaryDirectory(prefix="ryml-train-") as folder:
        scratch = Scratch(Path(folder))
        # The narrowest window is laid out while its records are counted; too few of them, and it is done once more.
        window_days = training.window_days
        while True:
            read = functools.partial(_read_bucket, lake, profiles, scratch, training, items, window_days, until)
            found = each(read, range(lake.buckets), "read user buckets")
            chosen_days, records = choose_window(np.sum([per_day for _, per_day in found], axis=0), training)
            if chosen_days == window_days:
                break
            window_days = chosen_days
        buckets = [scratch.load(f"bucket-{bucket}") for bucket in range(lake.buckets)]
        interactions = in_order(buckets, [order for order, _ in found])
        _lay_out(scratch, interactions, model)
        rule = _merge_rule(scratch, lake, hybrid, campaign, items)
        work = _Work(attempt, scratch, model, training.depth, training.min_support, items, rule)
        results = each(functools.partial(correlate_block, work), range(0, items, _BLOCK_ITEMS), "correlate item blocks")
    files, observed = [entry for entry, _ in results], Observed.total(counted for _, counted in results)
    if observed.sums["pairs"] == 0:
        raise EmptyPartitionError(
            f"no two items share {training.min_support} users in the {window_days} days up to {date}; export more "
            "history or lower training.min_support"
        )
    hit_rate = hit_rate_of_popularity(interactions, as_matrix((read_back(attempt, entry) for entry in files), items))
    return publish_checked(
        attempt,
        files,
        observed,
        inputs=inputs,
        parameters=parameters,
        metrics={
            "pairs": observed.sums["pairs"],
            "records": records,
            "window_days": window_days,
            "interactions": int(interactions.nnz),
            "users": int(interactions.shape[0]),
        },
        figures=figures_of_table(observed, interactions, hit_rate),
        missing=TOO_FEW,
        override=override,
    )


@dataclass(frozen=True)
class _Work:
    """What a task needs to correlate a block of items."""

    attempt: Attempt
    scratch: Scratch
    model: ItemModelSettings
    depth: int
    min_support: int
    items: int
    rule: MergeRule | None


def _read_bucket(
    lake: Lake, profiles: Manifest, scratch: Scratch, training: TrainingSettings, items: int, window_days: int,
    until: int, bucket: int,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:  # fmt: skip
    """Lay one bucket's interactions out; return the order of its users, and its records by day."""
    rows = lake.read(profiles, bucket=bucket, columns=["user_id", *COLUMNS])
    interest = Interest.of(training, since=until - window_days * DAY, until=until)
    scratch.save(f"bucket-{bucket}", interest.matrix(pairs_of_profiles(rows), items))
    return user_order(rows["user_id"]), count_days(rows, training, until)


def _lay_out(scratch: Scratch, interactions: sparse.csr_array, model: ItemModelSettings) -> None:
    """Write what all tasks share: the fitted model, and the interactions from both sides."""
    evidence = Evidence.of(interactions)
    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(evidence.save, scratch, _EVIDENCE)
        save(fit(interactions, model, by_items=evidence.by_items), model, scratch, _MODEL)
        saved.result()


def correlate_block(work: _Work, first: int) -> tuple[FileEntry, Observed]:
    """Write one block of items, read it back, and make some of its rows once more."""
    last = min(first + _BLOCK_ITEMS, work.items)
    entry = work.attempt.write(rows_of_block(work, first, last), bucket=first // _BLOCK_ITEMS)
    evidence = Evidence.load(work.scratch, _EVIDENCE)
    observed = look_at(
        read_back(work.attempt, entry), (first, last), evidence, work.model, depth=work.depth,
        min_support=work.min_support, fitted=load(work.scratch, _MODEL),
        little_support=work.rule.little_support if work.rule else 0,
    )  # fmt: skip
    return entry, observed


def rows_of_block(work: _Work, first: int, last: int) -> pa.Table:
    """Find the others of items first…last-1: by co-occurrence, and by the hybrid for items that few users have."""
    model, evidence = load(work.scratch, _MODEL), Evidence.load(work.scratch, _EVIDENCE)
    together = Together(evidence.by_items, evidence.by_users)
    found = co_occurring(model, together, first, last, depth=work.depth, min_support=work.min_support)
    if work.rule is not None:
        similar = VectorItems.load(work.scratch, _HYBRID).block(first, last, work.depth)
        users = np.diff(together.by_items.indptr[first : last + 1]).astype(np.int64)
        support = together.support(first, similar)
        found = merge_hybrid(found, similar, support, users, rule=work.rule, depth=work.depth)
    return found.as_table(first)


def _merge_rule(
    scratch: Scratch, lake: Lake, hybrid: Manifest | None, campaign: Campaign, items: int
) -> MergeRule | None:
    """Lay the hybrid's vectors out for the tasks, and say how its neighbours are merged; None without a hybrid."""
    if hybrid is None:
        return None
    read_vectors(lake, hybrid, items).save(scratch, _HYBRID)
    model, training = load(scratch, _MODEL), campaign.training
    # Every hundredth item says what a score is worth; in small catalogs every item.
    every = max(1, items // _SCORED_ITEMS)
    lists = stacked([model.block(item, item + 1, training.depth) for item in range(0, items, every)])
    return MergeRule(campaign.hybrid.little_support, campaign.hybrid.enough_support, typical_score(lists))


def _publish_shown(
    lake: Lake, campaign: Campaign, date: dt.date, run_id: str, correlations: Manifest, override: GateOverride | None
) -> None:
    """Publish the lists that are shown, as steady as the campaign wants them."""
    partition, min_gain = Partition("product_correlations", date, campaign.name), campaign.training.min_gain
    before = last_shown(lake, campaign, date)
    inputs = [correlations, before] if before else [correlations]
    parameters = {"min_gain": min_gain, "shown": SHOWN}
    if lake.reusable(partition, inputs=inputs, parameters=parameters):
        return
    index, deep = read_index(lake), lake.read(correlations)
    held = lake.read(before) if before else None
    shown, churn = shown_lists(deep, held, index, min_gain)
    attempt = lake.attempt(partition, run_id)
    wrong = int((lengths(shown["other_item_id"]) != np.minimum(lengths(deep["other_item"]), SHOWN)).sum())
    publish_checked(
        attempt,
        [attempt.write(shown)],
        observe(CONTRACTS[PRODUCT_CORRELATIONS.name], shown),
        inputs=inputs,
        parameters=parameters,
        metrics={"pairs": int(lengths(shown["other_item_id"]).sum()), "churn": round(churn, 6)},
        figures={
            "rows_of_correlations": len(shown) / len(deep),
            "lists_of_wrong_length": wrong,
            "replaced_without_gain": replaced_without_gain(deep, shown, held, index, min_gain),
        },
        override=override,
    )


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
