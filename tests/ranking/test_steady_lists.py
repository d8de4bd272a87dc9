"""The lists that are shown: the best twenty, which change only for a gain, against a plain oracle."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.ranking.steady_lists import SHOWN, replaced_without_gain, shown_lists
from schemas.tables import CORRELATIONS

ITEMS = 40
INDEX = pa.array([f"{number:03}" for number in range(ITEMS)])


def table_of(scores):
    """item -> {other: score} as correlations, best first, ties by item."""
    rows = [
        {
            "item": item,
            "other_item": [other for other, _ in ranked(others)],
            "score": [score for _, score in ranked(others)],
            "support": [2] * len(others),
            "source": [0] * len(others),
        }
        for item, others in sorted(scores.items())
        if others
    ]
    return pa.Table.from_pylist(rows, schema=CORRELATIONS.schema)


def ranked(others):
    return sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))


def oracle(others, before, min_gain):
    """Walk down: a newcomer takes the place of the weakest that was there only where it is better by min_gain."""
    held = {other: np.float64(np.float32(score)) * (1 + min_gain if other in before else 1.0)
            for other, score in others.items()}  # fmt: skip
    chosen = sorted(held, key=lambda other: (-held[other], other not in before, -others[other], other))[:SHOWN]
    return [other for other, _ in ranked(others) if other in chosen]


def lists_of(table):
    return {row["item_id"]: [int(other) for other in row["other_item_id"]] for row in table.to_pylist()}


item_scores = st.dictionaries(
    st.integers(0, ITEMS - 1), st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.31, 0.5]), min_size=15, max_size=ITEMS
)
tables = st.fixed_dictionaries({0: item_scores, 7: item_scores, 39: item_scores})


@settings(deadline=None)
@given(tables, tables, st.sampled_from([0.0, 0.05, 0.3]))
def test_lists_equal_a_plain_oracle(first, second, min_gain):
    before, churn = shown_lists(table_of(first), None, INDEX, min_gain)
    assert churn == 0.0
    assert lists_of(before) == {f"{item:03}": oracle(others, set(), min_gain) for item, others in first.items()}
    after, churn = shown_lists(table_of(second), before, INDEX, min_gain)
    held = lists_of(before)
    expected = {f"{item:03}": oracle(others, set(held[f"{item:03}"]), min_gain) for item, others in second.items()}
    assert lists_of(after) == expected
    entries = sum(map(len, expected.values()))
    new = sum(len(set(others) - set(held[item])) for item, others in expected.items())
    assert churn == pytest.approx(new / entries)
    assert replaced_without_gain(table_of(second), after, before, INDEX, min_gain) == 0


def test_the_same_correlations_give_the_same_lists_and_no_churn():
    correlations = table_of({0: dict.fromkeys(range(1, ITEMS), 0.3)})
    before, _ = shown_lists(correlations, None, INDEX, 0.05)
    again, churn = shown_lists(correlations, before, INDEX, 0.05)
    assert again.equals(before)
    assert churn == 0.0
    assert len(before["other_item_id"][0]) == SHOWN


def test_the_check_sees_lists_that_are_not_steady():
    """Mutant: the best twenty without regard to those before."""
    first = {0: {other: 0.5 - other / 1_000 for other in range(1, 30)}}
    second = {0: {other: 0.4 + other / 1_000 for other in range(1, 30)}}
    before, _ = shown_lists(table_of(first), None, INDEX, 0.2)
    steady, churn = shown_lists(table_of(second), before, INDEX, 0.2)
    assert churn == 0.0
    unsteady, _ = shown_lists(table_of(second), None, INDEX, 0.2)
    assert replaced_without_gain(table_of(second), steady, before, INDEX, 0.2) == 0
    assert replaced_without_gain(table_of(second), unsteady, before, INDEX, 0.2) == 1
