"""The model gate: who is chosen, and who does not ship."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.backtest.verdict import judge
from schemas.item_models import COSINE, CooccurrenceModel
from schemas.training import TrainingSettings

FIRST, SECOND, OTHER = COSINE, CooccurrenceModel(), CooccurrenceModel(item_exponent=0.9)
TRAINING = TrainingSettings(candidates=(FIRST, SECOND), max_quality_drop=0.1, min_gain=0.05)


def verdict(first, second, *, popularity=0.1, last=None, other=0.0, test_users=1_000):
    return judge(
        {FIRST: first, SECOND: second, OTHER: other}, popularity=popularity, last_good=last, test_users=test_users,
        training=TRAINING,
    )  # fmt: skip


# ndcg of both candidates and of a model that is none, popularity, the last good model -> status and choice.
CASES = {
    "the best is chosen": (0.2, 0.3, 0.0, 0.1, None, "accepted", SECOND),
    "of equal ones the first": (0.3, 0.3, 0.0, 0.1, None, "accepted", FIRST),
    "the last good stays for a small gain": (0.300, 0.314, 0.0, 0.1, FIRST, "accepted", FIRST),
    "and goes for a larger one": (0.300, 0.316, 0.0, 0.1, FIRST, "accepted", SECOND),
    "below popularity": (0.08, 0.09, 0.0, 0.1, None, "refused", SECOND),
    "as good as popularity": (0.08, 0.1, 0.0, 0.1, None, "accepted", SECOND),
    "nothing is found": (0.0, 0.0, 0.0, 0.0, None, "refused", FIRST),
    "no number": (float("nan"), float("nan"), 0.0, 0.1, None, "refused", FIRST),
    "far below the last good": (0.2, 0.26, 0.3, 0.1, OTHER, "refused", SECOND),
    "a little below the last good": (0.2, 0.28, 0.3, 0.1, OTHER, "accepted", SECOND),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name):
    first, second, other, popularity, last, status, chosen = CASES[name]
    found = verdict(first, second, other=other, popularity=popularity, last=last)
    assert (found.status, found.chosen) == (status, chosen)
    assert found.why


def test_too_few_test_users_are_no_verdict_and_keep_what_there_was():
    assert (verdict(0.0, 0.0, test_users=99).status, verdict(0.0, 0.0, test_users=99).chosen) == ("not judged", FIRST)
    assert verdict(0.0, 0.0, test_users=99, last=SECOND).chosen == SECOND
    assert verdict(0.0, 0.0, test_users=99, last=OTHER).chosen == FIRST
    assert verdict(0.2, 0.3, test_users=100).status == "accepted"


ndcg = st.floats(0, 1)


@settings(deadline=None)
@given(ndcg, ndcg, ndcg, ndcg, st.sampled_from([None, FIRST, SECOND, OTHER]))
def test_what_ships_is_a_candidate_that_is_no_worse_than_promised(first, second, other, popularity, last):
    found = verdict(first, second, other=other, popularity=popularity, last=last)
    scores = {FIRST: first, SECOND: second, OTHER: other}
    assert found.chosen in (FIRST, SECOND)
    assert scores[found.chosen] >= max(first, second) / 1.05 * (1 - 1e-9)
    if found.status == "accepted":
        assert scores[found.chosen] >= popularity
        assert last is None or scores[found.chosen] >= 0.9 * scores[last]
    else:
        assert found.status == "refused"


def test_a_cadence_is_every_day_or_one_day_of_the_week():
    week = [dt.date(2026, 11, 2) + dt.timedelta(days=day) for day in range(7)]  # a Monday first
    assert all(TrainingSettings().is_planned(day) for day in week)
    weekly = TrainingSettings(cadence="weekly", weekday="wednesday")
    assert [weekly.is_planned(day) for day in week] == [False, False, True, False, False, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 19}, {"min_support": 0}, {"half_life_days": -1}, {"items_per_user": 1}, {"min_gain": -0.1},
        {"max_quality_drop": 1.0}, {"cadence": "hourly"}, {"weights": {"refund": 1.0}}, {"weights": {"view": 0.0}},
        {"candidates": []}, {"candidates": [{"kind": "cooccurrence"}, {"kind": "cooccurrence"}]},
        {"window_days": 90, "max_window_days": 60}, {"backtest": {"holdout_days": 0}}, {"top": 20},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingSettings.model_validate(wrong)
