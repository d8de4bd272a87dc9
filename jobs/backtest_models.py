"""Compare the campaign's candidate models on the last days, choose one, and refuse it if it is no good.

A sample of the users is enough, so that this is one process of some seconds, without Spark. Where the date's training
is not due, nothing is done.

Reads:  profiles of the date, the last good correlations before it, the campaign's settings
Writes: backtests of the campaign and date, and report.html beside it
Run:    python -m jobs.backtest_models --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import contextlib
import datetime as dt
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.backtest.contest import (
    AT,
    SHORT_DEPTH,
    Entry,
    correlations_of,
    label,
    measured,
    measured_popularity,
    shortened,
)
from jobs.backtest.split import Split, micros, split_profiles
from jobs.backtest.training_outcome import MODEL, STATUS, is_due, last_good, model_of
from jobs.backtest.verdict import Verdict, judge
from jobs.command_line import job_parser, run
from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import Manifest, Window
from jobs.lake.summary import summarise
from jobs.ranking.interactions import DAY
from jobs.ranking.metrics import RankingFigures
from jobs.ranking.neighbours import Together
from jobs.ranking.training_window import choose_window, count_days
from schemas.campaign import Campaign, load_campaign
from schemas.item_models import ItemModelSettings
from schemas.layout import REPORT_NAME, Partition
from schemas.tables import BACKTESTS

log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__, campaign=True)


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path) -> dict[str, Any]:
    """Publish the date's backtest, if training is due; return what was chosen and the verdict.

    Raises: EmptyPartitionError if the widest window holds too few records.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    if not is_due(opened, settings, date):
        return {STATUS: "not due"}
    partition = Partition("backtests", date, settings.name)
    profiles, before = opened.manifest(Partition("profiles", date)), last_good(opened, settings, date)
    inputs = [profiles, before] if before else [profiles]
    parameters = {
        "training": settings.training.model_dump(mode="json"),
        "history": settings.history.model_dump(mode="json"),
        "exclude": settings.exclude.model_dump(mode="json"),
    }
    if found := opened.reusable(partition, inputs=inputs, parameters=parameters):
        return summarise(found)
    split = _split(opened, profiles, settings, date)
    entries, verdict = contest(split, settings, model_of(before.parameters[MODEL]) if before else None)
    attempt = opened.attempt(partition, run_id)
    rows = as_rows(entries, verdict)
    _write_report(attempt, entries, verdict, split, before)
    manifest = attempt.publish(
        [attempt.write(rows)],
        inputs=inputs,
        parameters=parameters,
        metrics={
            STATUS: verdict.status,
            "why": verdict.why,
            MODEL: verdict.chosen.model_dump(mode="json"),
            "chosen": label(verdict.chosen),
            "split": split.kind,
            "test_users": split.test_users,
            "candidates": len(settings.training.candidates),
        },
    )
    log.log(logging.WARNING if verdict.status == "refused" else logging.INFO, "%s: %s", verdict.status, verdict.why)
    return summarise(manifest)


def contest(split: Split, campaign: Campaign, last: ItemModelSettings | None) -> tuple[list[Entry], Verdict]:
    """Let popularity, all candidates and the last good model learn from the same users; judge the best.

    The chosen model is measured once more with lists as short as the published ones.
    """
    training = campaign.training
    popularity = measured_popularity(split)
    entries = [Entry("popularity", "popularity", popularity)]
    figures: dict[ItemModelSettings, RankingFigures] = {}
    together = Together.of(split.learn)
    models = [*training.candidates, *([last] if last is not None and last not in training.candidates else [])]
    short: dict[ItemModelSettings, RankingFigures] = {}
    for model in models:
        correlations = correlations_of(split.learn, model, training, together)
        figures[model] = measured(correlations, split)
        short[model] = measured(shortened(correlations, SHORT_DEPTH), split)
        role = "candidate" if model in training.candidates else "last_good"
        entries.append(Entry(label(model), role, figures[model]))
    verdict = judge(
        {model: found.ndcg for model, found in figures.items()},
        popularity=popularity.ndcg,
        last_good=last,
        test_users=split.test_users,
        training=training,
    )
    entries.append(Entry(f"{label(verdict.chosen)}, {SHORT_DEPTH} per item", "short_lists", short[verdict.chosen]))
    return entries, verdict


def as_rows(entries: list[Entry], verdict: Verdict) -> pa.Table:
    """Lay the contest out: one row per model and measure."""
    measures = ("recall", "ndcg", "mrr", "hit_rate", "coverage", "novelty", "top_item_share")
    chosen = label(verdict.chosen)
    rows = [
        {
            "model": entry.model,
            "role": entry.role,
            "measure": f"{measure}_at_{AT}",
            "value": float(getattr(entry.figures, measure)),
            "is_chosen": entry.model == chosen,
        }
        for entry in entries
        for measure in measures
    ]
    return pa.Table.from_pylist(rows, schema=BACKTESTS.schema)


def _split(lake: Lake, profiles: Manifest, campaign: Campaign, date: dt.date) -> Split:
    """Read the sample of users, bucket by bucket."""
    training, until = campaign.training, micros(Window.of_days(date, date).end_at)
    per_day = sum(
        (
            count_days(lake.read(profiles, bucket=bucket, columns=["event_type", "last_at"]), training, until)
            for bucket in range(lake.buckets)
        ),
        np.zeros(training.max_window_days, np.int64),
    )
    window_days, _ = choose_window(per_day, training)
    return split_profiles(
        lambda: (lake.read(profiles, bucket=bucket) for bucket in range(lake.buckets)),
        campaign,
        share=min(1.0, training.backtest.users / max(profiles.rows, 1)),
        since=until - window_days * DAY,
        until=until,
        items=_items(lake, profiles),
    )


def _items(lake: Lake, profiles: Manifest) -> int:
    """Count the items up to the last that anybody knows: new ones in the index change nothing in a backtest."""
    columns = ["item", "mailed_item"]
    buckets = (lake.read(profiles, bucket=bucket, columns=columns) for bucket in range(lake.buckets))
    return 1 + max(int(flat(rows[name]).max(initial=-1)) for rows in buckets for name in columns)


def _write_report(
    attempt: Attempt, entries: list[Entry], verdict: Verdict, split: Split, before: Manifest | None
) -> None:
    from jobs.backtest.report import report_of  # draws with matplotlib, which takes 0.5 s to import

    text = report_of(attempt.partition, entries, verdict, split, before)
    with contextlib.closing(attempt.lake.storage.create(f"{attempt.folder}/{REPORT_NAME}")) as file:
        file.write(text.encode())


if __name__ == "__main__":
    run(main, arg_parser())
