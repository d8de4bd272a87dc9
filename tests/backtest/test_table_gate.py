"""The gate of the correlations: six kinds of garbage never pass, and what is right does."""

import numpy as np
import pyarrow as pa
import pytest
from clustered_shop import DEPTH, ITEMS, MIN_SUPPORT, clustered_interactions, correlations
from scipy import sparse

from jobs.backtest.recompute import Evidence
from jobs.backtest.table_gate import TOO_FEW, as_matrix, figures_of_table, hit_rate_of_popularity, look_at
from jobs.lake.list_columns import flat, lengths, list_column
from jobs.quality.figures import figures_of
from jobs.quality.gates import evaluate
from jobs.ranking.item_model import fit
from schemas.contracts import CONTRACTS
from schemas.item_models import COSINE, CooccurrenceModel, EaseModel
from schemas.tables import CORRELATIONS

MODELS = (
    CooccurrenceModel(), COSINE, CooccurrenceModel(item_exponent=0.3, shrinkage=2.0),
    CooccurrenceModel(popularity=0.5),
    CooccurrenceModel(sharpening=0.5), EaseModel(), EaseModel(cooccurrence=CooccurrenceModel(), cooccurrence_share=0.5),
)  # fmt: skip
SEEDS, ALL_SEEDS = range(7), range(100)  # each model comes at least once


def table_of(item, other, score, support):
    """Lists by item, best first, from flat columns."""
    order = np.lexsort((other, -score, item))
    items, counts = np.unique(item, return_counts=True)
    values = {"other_item": other, "score": score, "support": support, "source": np.zeros(len(item), np.int8)}
    columns = {name: list_column(CORRELATIONS, name, column[order], counts) for name, column in values.items()}
    return pa.table({"item": pa.array(items, pa.int32()), **columns}, schema=CORRELATIONS.schema)


def columns_of(table):
    item = np.repeat(table["item"].to_numpy(), lengths(table["other_item"]))
    return (item, *(flat(table[name]) for name in ("other_item", "score", "support")))


def zeros(table, rng):
    item, other, score, support = columns_of(table)
    return table_of(item, other, np.zeros_like(score), support)


def constant(table, rng):
    item, other, score, support = columns_of(table)
    return table_of(item, other, np.full_like(score, 0.25), support)


def transposed(table, rng):
    item, other, score, support = columns_of(table)
    return table_of(other, item, score, support)


def shuffled(table, rng):
    item, other, score, support = columns_of(table)
    new = rng.permutation(ITEMS).astype(np.int32)
    return table_of(item, new[other], score, support)


def shifted(table, rng):
    item, other, score, support = columns_of(table)
    return table_of(item, (other + 1) % ITEMS, score, support)


def one_item(table, rng):
    item, _, _, support = columns_of(table)
    items, first = np.unique(item, return_index=True)
    return table_of(items, np.full(len(items), rng.integers(ITEMS), np.int32), np.full(len(items), 0.5, np.float32),
                    support[first])  # fmt: skip


GARBAGE = {
    "zeros": zeros, "constant": constant, "transposed": transposed, "shuffled": shuffled, "shifted by one": shifted,
    "one item for all": one_item,
}  # fmt: skip


def refused_for(table, interactions, model):
    """The figures that the gate stops at, by the very suite that publishing goes through."""
    evidence = Evidence.of(interactions)
    observed = look_at(table, (0, ITEMS), evidence, model, depth=DEPTH, min_support=MIN_SUPPORT,
                       fitted=fit(interactions, model))  # fmt: skip
    hit_rate = hit_rate_of_popularity(interactions, as_matrix([table], ITEMS))
    contract = CONTRACTS[CORRELATIONS.name]
    figures = figures_of(contract, observed) | figures_of_table(observed, interactions, hit_rate)
    absent = {check.figure for check in contract.checks if check.may_be_missing and check.figure not in figures}
    assert absent <= {"rows_of_last_good", "rows_of_weekday_median"}
    outcomes = evaluate(CORRELATIONS.name, figures, without=absent)
    assert set(outcomes) == {check.figure for check in contract.checks} - absent
    return {figure for figure, outcome in outcomes.items() if outcome != "holds"}


def judged(seeds):
    """How many garbage tables were refused, how many healthy ones accepted, and of how many."""
    refused = accepted = tables = 0
    for seed in seeds:
        interactions, model = clustered_interactions(seed), MODELS[seed % len(MODELS)]
        table = correlations(interactions, model)
        assert len(table) > ITEMS / 2
        accepted += not refused_for(table, interactions, model)
        for damage in GARBAGE.values():
            damaged = damage(table, np.random.default_rng(seed))
            assert not damaged.equals(table)
            refused += bool(refused_for(damaged, interactions, model))
            tables += 1
    return refused, tables, accepted


def test_garbage_is_refused_and_what_is_right_is_not():
    refused, tables, accepted = judged(SEEDS)
    assert (refused, tables, accepted) == (6 * len(SEEDS), 6 * len(SEEDS), len(SEEDS))


@pytest.mark.scoreboard
@pytest.mark.timeout(1_800)
def test_garbage_is_refused_and_what_is_right_is_not_in_full_size(scoreboard):
    refused, tables, accepted = judged(ALL_SEEDS)
    scoreboard.add("garbage correlations refused, of six kinds", f"{refused}/{tables}")
    scoreboard.add("healthy correlations accepted", f"{accepted}/{len(ALL_SEEDS)}")
    assert (refused, tables) == (600, 600)
    assert accepted >= 99


@pytest.mark.parametrize("name", GARBAGE)
def test_making_rows_once_more_sees_each_kind_by_itself(name):
    interactions = clustered_interactions(7)
    damaged = GARBAGE[name](correlations(interactions), np.random.default_rng(7))
    assert "rows_recomputed_differently" in refused_for(damaged, interactions, CooccurrenceModel())


def test_lists_that_find_no_more_than_popularity_are_refused():
    """Mutant of the training: every item is shown with the most popular ones, correctly counted and scored."""
    interactions = clustered_interactions(3)
    popular = np.argsort(-np.bincount(interactions.indices, minlength=ITEMS))[:8]
    counts = np.bincount(interactions.indices, minlength=ITEMS)[popular].astype(np.float32)
    lists = sparse.csr_array(np.ones((ITEMS, 1), np.float32)) @ sparse.csr_array(
        (counts, popular, [0, len(popular)]), shape=(1, ITEMS)
    )
    assert hit_rate_of_popularity(interactions, sparse.csr_array(lists)) <= 1.0
    assert hit_rate_of_popularity(interactions, as_matrix([correlations(interactions)], ITEMS)) > 1.2


def test_too_few_users_have_no_hit_rate():
    few = clustered_interactions(1)[:50]
    assert hit_rate_of_popularity(few, as_matrix([correlations(few)], ITEMS)) is None
    assert set(TOO_FEW) == {"hit_rate_of_popularity"}


@pytest.mark.parametrize("damage", ["one score", "one support", "one left out", "two swapped"])
def test_one_wrong_entry_of_a_row_is_seen(damage):
    interactions = clustered_interactions(5)
    item, other, score, support = columns_of(correlations(interactions))
    of_first = np.flatnonzero(item == item[0])
    assert len(of_first) > 4
    place = of_first[2]
    if damage == "one score":
        score = score.copy()
        score[place] *= 1.01
    elif damage == "one support":
        support = support.copy()
        support[place] += 1
    elif damage == "two swapped":
        other = other.copy()
        other[[of_first[0], of_first[-1]]] = other[[of_first[-1], of_first[0]]]
    keep = np.ones(len(item), bool)
    keep[place] = damage != "one left out"
    table = table_of(item[keep], other[keep], score[keep], support[keep])
    evidence = Evidence.of(interactions)
    observed = look_at(table, (0, ITEMS), evidence, CooccurrenceModel(), depth=DEPTH, min_support=MIN_SUPPORT,
                       fitted=fit(interactions, CooccurrenceModel()))  # fmt: skip
    assert observed.sums["rows_recomputed_differently"] == 1
