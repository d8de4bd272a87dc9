"""The report: every model's figures and two plots, however many models there are and however long their names."""

import datetime as dt

import pytest
from clustered_shop import clustered_interactions

from jobs.backtest.contest import Entry, label
from jobs.backtest.report import lost_by_short_lists, report_of
from jobs.backtest.split import Split
from jobs.backtest.verdict import Verdict
from jobs.ranking.metrics import RankingFigures
from schemas.item_models import DEFAULT_CANDIDATES, CooccurrenceModel, EaseModel
from schemas.layout import Partition

LONG = EaseModel(
    regularisation=7.5, popularity=0.25, cooccurrence=CooccurrenceModel(shrinkage=3), cooccurrence_share=0.5
)


def figures(recall):
    return RankingFigures(100, recall, recall / 2, recall / 3, recall, 0.5, 6.0, 0.1)


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("status", ["accepted", "refused", "not judged"])
def test_the_page_has_every_figure_and_two_plots(count, status):
    models = [CooccurrenceModel(shrinkage=float(number)) for number in range(count)] + [LONG]
    entries = [
        Entry("popularity", "popularity", figures(0.1)),
        *(Entry(label(model), "candidate", figures(0.2 + place / 1_000)) for place, model in enumerate(models)),
        Entry("short", "short_lists", figures(0.15)),
    ]
    everything = clustered_interactions(1)
    split = Split("by time", everything, everything, everything, everything)
    page = report_of(
        Partition("backtests", dt.date(2026, 3, 2), "spring"),
        entries,
        Verdict(status, LONG, "because <b>"),
        split,
        None,
    )
    assert page.count("<svg") == page.count("</svg>") == 2
    assert page.count("<tr") == 1 + len(entries)
    assert "because &lt;b&gt;" in page
    assert f"{0.2 + count / 1_000:.4f}" in page
    assert ("The last good correlations stay" in page) == (status == "refused")
    assert "above 3 %" not in page
    assert lost_by_short_lists(entries, label(LONG)) == pytest.approx(1 - 0.15 / (0.2 + count / 1_000))
    assert "more than 3 %" in page


def test_each_model_has_a_name_of_its_own():
    models = [*DEFAULT_CANDIDATES, LONG, LONG.cooccurrence, CooccurrenceModel(item_exponent=0.0), EaseModel()]
    assert len({label(model) for model in models}) == len(set(models)) > 5
    assert label(LONG) == (
        "ease regularisation=7.5 popularity=0.25 + (cooccurrence item_exponent=0.5 user_exponent=1 other_exponent=0.2 "
        "shrinkage=3 sharpened=400) cooccurrence_share=0.5"
    )
