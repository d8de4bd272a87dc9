"""Item models against dense oracles, whatever the blocks; and what is kept is what was fitted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.lake.scratch import Scratch
from jobs.ranking import cooccurrence, ease
from jobs.ranking.item_model import fit, load, save
from schemas.errors import ConfigError, GateError
from schemas.item_models import DEFAULT_CANDIDATES, CooccurrenceModel, EaseModel

BLEND = EaseModel(
    regularisation=2.0, user_exponent=0.5, popularity=0.3, cooccurrence=CooccurrenceModel(), cooccurrence_share=0.4
)


def interactions(seed, users=30, items=14, density=0.25, values=(1.0, 2.0, 0.5)):
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array((users, items), density=density, rng=rng, format="csr", dtype=np.float32)
    matrix.data = rng.choice(np.array(values, np.float32), matrix.nnz)
    parts = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_array(parts, matrix.shape)


def lists_of(block):
    return [
        list(zip(block.indices[start:end].tolist(), block.data[start:end].tolist(), strict=True))
        for start, end in zip(block.indptr[:-1], block.indptr[1:], strict=True)
    ]


SHARP = CooccurrenceModel(item_exponent=0.7, sharpening=0.5)


def test_sharpening_equals_the_dense_formula():
    """With lists as long as the catalog nothing is cut, and C · (1 - w·S) is a plain product."""
    checked = 0
    for seed in range(20):
        r = interactions(seed)
        c, s = dense_cooccurrence(r, SHARP), dense_cooccurrence(r, CooccurrenceModel(other_exponent=0.5))
        expected = zero_diagonal(c) @ (np.eye(len(c)) - SHARP.sharpening * zero_diagonal(s))
        assert np.linalg.eigvalsh(dense_cooccurrence(r, CooccurrenceModel(other_exponent=0.5))).max() < 1 + 1e-6
        model = fit(r, SHARP)
        assert_best(model.block(0, 14, 14), expected, 0, 14)
        np.testing.assert_allclose(model.dense(0, 14), np.maximum(zero_diagonal(expected), 0), rtol=1e-4, atol=1e-6)
        checked += int((zero_diagonal(expected) < -1e-4).sum())
    assert checked > 20  # some pairs are sharpened away


def power(values, exponent):
    return np.array([value**-exponent if value > 0 else 0.0 for value in values])


def dense_cooccurrence(r, model):
    """The formula as it stands in the settings, popularity added last."""
    dense = r.toarray().astype(np.float64)
    degree = (dense**2).sum(axis=0)
    items = degree + model.shrinkage
    c = power(items, model.item_exponent)[:, None] * (
        dense.T @ (power((dense**2).sum(axis=1), model.user_exponent)[:, None] * dense)
    )
    c = c * power(items, model.other_exponent)[None, :]
    return c + model.popularity * c.sum(axis=1)[:, None] * (degree / degree.sum())[None, :]


def dense_ease(r, model):
    dense = r.toarray().astype(np.float64)
    x = dense * power((dense**2).sum(axis=1), model.user_exponent / 2)[:, None]
    gram = x.T @ x
    ridge = model.regularisation * gram.trace() / max((gram.diagonal() > 0).sum(), 1)
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    b = -inverse / inverse.diagonal()[None, :]
    np.fill_diagonal(b, 0)
    if model.cooccurrence:
        c = dense_cooccurrence(r, model.cooccurrence)
        np.fill_diagonal(c, 0)
        share, mean = model.cooccurrence_share, len(b)
        b = (1 - share) * b / (np.maximum(b, 0).sum() / mean) + share * c / (c.sum() / mean)
    degree = (dense**2).sum(axis=0)
    return b + model.popularity * np.maximum(b, 0).sum(axis=1)[:, None] * (degree / degree.sum())[None, :]


def assert_best(block, expected, first, depth, *, signed=False):
    """Each row holds as large scores as there are, of the pairs that have them, and never the item itself."""
    for place, row in enumerate(lists_of(block)):
        others = np.delete(expected[first + place], first + place)
        assert first + place not in {j for j, _ in row}
        scores = [score for _, score in row]
        np.testing.assert_allclose(scores, [expected[first + place, j] for j, _ in row], rtol=2e-3, atol=2e-5)
        best = others[others > 2e-5] if not signed else others[np.abs(others) > 2e-5]
        best = np.sort(best[np.argsort(-np.abs(best))][:depth])[::-1]
        near = [score for score in scores if abs(score) > 2e-5]
        np.testing.assert_allclose(near, best[: len(near)], rtol=2e-3, atol=2e-5)
        assert len(scores) >= len(best)
        assert len(scores) <= depth


exponents = st.sampled_from([0.0, 0.2, 0.5, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    a=exponents,
    b=exponents,
    c=exponents,
    shrinkage=st.sampled_from([0.0, 3.0]),
    popularity=st.sampled_from([0.0, 0.5]),
    depth=st.integers(1, 16),
)
def test_cooccurrence_equals_the_dense_formula(seed, a, b, c, shrinkage, popularity, depth):
    r = interactions(seed)
    model = CooccurrenceModel(
        item_exponent=a, user_exponent=b, other_exponent=c, shrinkage=shrinkage, popularity=popularity
    )
    assert_best(fit(r, model).block(0, r.shape[1], depth), dense_cooccurrence(r, model), 0, depth)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    users=st.sampled_from([9, 40]),  # fewer users than items: the other inverse
    model=st.sampled_from([EaseModel(), EaseModel(regularisation=0.5, user_exponent=1.0), BLEND]),
    depth=st.integers(1, 16),
    signed=st.booleans(),
)
def test_ease_equals_the_dense_formula(seed, users, model, depth, signed):
    r = interactions(seed, users=users)
    if r.nnz < 8:
        return
    assert_best(fit(r, model).block(2, 11, depth, signed=signed), dense_ease(r, model), 2, depth, signed=signed)


def test_both_inverses_of_ease_fill_more_than_one_block_alike(monkeypatch):
    monkeypatch.setattr(ease, "_ROWS", 7)
    for users in (20, 90):
        r = interactions(4, users=users, items=40)
        np.testing.assert_allclose(fit(r, EaseModel()).weights, dense_ease(r, EaseModel()), rtol=2e-3, atol=2e-5)
        np.testing.assert_allclose(fit(r, BLEND).weights, zero_diagonal(dense_ease(r, BLEND)), rtol=2e-3, atol=2e-5)


def zero_diagonal(matrix):
    np.fill_diagonal(matrix, 0)
    return matrix


MODELS = [*DEFAULT_CANDIDATES, SHARP, EaseModel(), BLEND]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.model_dump_json())
def test_any_blocks_threads_and_a_kept_model_give_the_same_lists(model, tmp_path, monkeypatch):
    monkeypatch.setattr(ease, "_ROWS", 16)
    r = interactions(11, users=200, items=60, density=0.1, values=(1.0,))
    fitted = fit(r, model)
    assert [row[:4] for row in lists_of(fitted.block(0, 60, 10))] == lists_of(fitted.block(0, 60, 4))
    for signed in (False, True):
        whole = lists_of(fitted.block(0, 60, 10, signed=signed))
        assert sum(map(len, whole)) > 300
        save(fitted, model, Scratch(tmp_path), "model")
        again = load(Scratch(tmp_path), "model")
        for step, threads in ((1, 1), (7, 2), (60, 4)):
            parts = [
                lists_of(again.block(first, min(first + step, 60), 10, signed=signed, threads=threads))
                for first in range(0, 60, step)
            ]
            assert [row for part in parts for row in part] == whole
        for row in whole:
            assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))


def test_equal_scores_at_the_edge_are_cut_by_item():
    rows = np.array([[0, 2, 1, 1, 1, 0], [3, 0, -3, 3, 3, 0]], np.float32)
    assert lists_of(ease._best(rows, 2, signed=False)) == [[(1, 2.0), (2, 1.0)], [(0, 3.0), (3, 3.0)]]
    assert lists_of(ease._best(rows, 2, signed=True)) == [[(1, 2.0), (2, 1.0)], [(0, 3.0), (2, -3.0)]]


def test_only_the_most_popular_items_are_recommended_by_all(monkeypatch):
    monkeypatch.setattr(cooccurrence, "POPULAR_ITEMS", 2)
    r = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], np.float32))
    assert cooccurrence.popular_items(r).tolist() == pytest.approx([3 / 7, 2 / 7, 0, 0])


def test_a_catalog_too_large_to_invert_is_refused_with_the_alternative(monkeypatch):
    monkeypatch.setattr(ease, "MOST_INVERTED", 10)
    with pytest.raises(ConfigError, match=r"14 items and 30 users are too many .*choose a cooccurrence model"):
        fit(interactions(1), EaseModel())
    assert fit(interactions(1, users=9), EaseModel()).weights.shape == (14, 14)  # by the inverse over users


@pytest.mark.parametrize("model", [CooccurrenceModel(), CooccurrenceModel(popularity=1.0), EaseModel()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_stops_everything(model, bad):
    r = interactions(2)
    r.data[3] = bad
    with pytest.raises(GateError, match=r"not finite|cannot be inverted"):
        fit(r, model).block(0, 14, 3)


@pytest.mark.parametrize("model", [CooccurrenceModel(popularity=0.5), EaseModel(), BLEND])
def test_nothing_learned_gives_empty_lists(model):
    nothing = sparse.csr_array((5, 8), dtype=np.float32)
    assert fit(nothing, model).block(0, 8, 3).nnz == 0
