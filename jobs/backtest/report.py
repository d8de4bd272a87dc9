"""The report of a backtest as one HTML page: the verdict, all figures, and plots. Figures of models, nobody's data."""

from typing import Final

from jinja2 import Environment, PackageLoader

from jobs.backtest.contest import AT, SHORT_DEPTH, Entry, label
from jobs.backtest.plots import bars, scatter
from jobs.backtest.split import Split
from jobs.backtest.verdict import Verdict
from jobs.lake.manifest import Manifest
from schemas.layout import Partition

_MEASURES: Final = ("recall", "ndcg", "mrr", "hit_rate", "coverage", "novelty", "top_item_share")
_pages = Environment(loader=PackageLoader("jobs.backtest", "."), autoescape=True)


def report_of(
    partition: Partition, entries: list[Entry], verdict: Verdict, split: Split, before: Manifest | None
) -> str:
    """Write the page."""
    chosen = label(verdict.chosen)
    # The numbers of the table: names are as long as a model has settings, and would leave no room for the bars.
    names = [str(number) for number in range(1, len(entries) + 1)]
    figures = [entry.figures for entry in entries]
    return _pages.get_template("report.html").render(
        partition=partition,
        entries=entries,
        verdict=verdict,
        split=split,
        before=before,
        chosen=chosen,
        measures=_MEASURES,
        at=AT,
        short=SHORT_DEPTH,
        lost=lost_by_short_lists(entries, chosen),
        bars=bars(
            names,
            {"recall": [one.recall for one in figures], "ndcg": [one.ndcg for one in figures]},
            chosen=next(place for place, entry in enumerate(entries) if entry.model == chosen),
        ),
        scatter=scatter(
            names,
            [one.ndcg for one in figures],
            [one.coverage for one in figures],
            labels=(f"ndcg at {AT}", "share of all items that somebody is shown"),
        ),
    )


def lost_by_short_lists(entries: list[Entry], chosen: str) -> float:
    """Say which share of the chosen model's recall its short lists lose."""
    deep = next(entry.figures.recall for entry in entries if entry.model == chosen)
    short = next(entry.figures.recall for entry in entries if entry.role == "short_lists")
    return 1 - short / deep if deep > 0 else 0.0
