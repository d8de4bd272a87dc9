"""Item models against dense oracles, whatever the blocks; and what is kept is what was fitted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.lake.scratch import Scratch
from jobs.ranking import cooccurrence
from jobs.ranking.item_model import fit, load, save
from schemas.errors import GateError
from schemas.item_models import DEFAULT_CANDIDATES, CooccurrenceModel


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


def best(scores, allowed, depth):
    """Each row's best by (score, item): scores (items, items) dense."""
    return [
        [int(j) for j in np.lexsort((np.arange(len(row)), -row)) if row[j] > 0 and allowed[i, j]][:depth]
        for i, row in enumerate(scores)
    ]


exponents = st.sampled_from([0.0, 0.2, 0.5, 1.0])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    a=exponents,
    b=exponents,
    c=exponents,
    shrinkage=st.sampled_from([0.0, 3.0]),
    min_support=st.integers(1, 4),
    depth=st.integers(1, 16),
)
def test_cooccurrence_equals_the_dense_formula(seed, a, b, c, shrinkage, min_support, depth):
    r = interactions(seed)
    model = CooccurrenceModel(
        item_exponent=a, user_exponent=b, other_exponent=c, shrinkage=shrinkage, min_support=min_support
    )
    dense = r.toarray().astype(np.float64)
    users = (dense**2).sum(axis=1)
    items = (dense**2).sum(axis=0) + shrinkage
    with np.errstate(divide="ignore"):
        du, left, right = users**-b, items**-a, items**-c
    du[users == 0], left[items == 0], right[items == 0] = 0, 0, 0
    expected = left[:, None] * (dense.T @ (du[:, None] * dense)) * right[None, :]
    support = (dense > 0).T.astype(int) @ (dense > 0).astype(int)
    allowed = (support >= min_support) & ~np.eye(len(expected), dtype=bool)

    got = lists_of(fit(r, model).block(0, r.shape[1], depth))
    for i, row in enumerate(got):
        scores = [expected[i, j] for j, _ in row]
        assert all(allowed[i, j] for j, _ in row)
        np.testing.assert_allclose([score for _, score in row], scores, rtol=1e-5)
        every = np.sort(expected[i, allowed[i] & (expected[i] > 0)])[::-1]
        np.testing.assert_allclose(scores, every[:depth], rtol=1e-5)


def test_support_counts_users_in_common():
    r = interactions(5)
    lists = fit(r, CooccurrenceModel()).block(3, 9, 6)
    assert lists.nnz > 20
    ones = cooccurrence.all_ones(r)
    together = (r.toarray() > 0).T.astype(int) @ (r.toarray() > 0).astype(int)
    got = cooccurrence.pair_support(ones.T.tocsr(), ones, 3, lists)
    assert got.tolist() == [together[3 + i, j] for i, row in enumerate(lists_of(lists)) for j, _ in row]


@pytest.mark.parametrize("model", DEFAULT_CANDIDATES, ids=lambda model: model.model_dump_json())
def test_any_blocks_and_a_kept_model_give_the_same_lists(model, tmp_path):
    r = interactions(11, users=200, items=60, density=0.1, values=(1.0,))
    fitted = fit(r, model)
    whole = lists_of(fitted.block(0, 60, 10))
    assert sum(map(len, whole)) > 300
    save(fitted, model, Scratch(tmp_path), "model")
    again = load(Scratch(tmp_path), "model")
    for step in (1, 7, 60):
        parts = [lists_of(m.block(f, min(f + step, 60), 10)) for f in range(0, 60, step) for m in (again,)]
        assert [row for part in parts for row in part] == whole
    for row in whole:
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))


def test_the_least_support_looks_deeper_for_rows_that_lost_pairs(monkeypatch):
    """Planted bug: pairs below the least support are dropped and nothing takes their place."""
    # Item 0 meets 8 rare items once each (high cosine) and item 9 three times, which is popular elsewhere.
    baskets = [[0, rare] for rare in range(1, 9)] + [[0, 9]] * 3 + [[9]] * 40
    rows = [(user, item) for user, basket in enumerate(baskets) for item in basket]
    r = sparse.csr_array((np.ones(len(rows), np.float32), tuple(zip(*rows, strict=True))), shape=(len(baskets), 10))
    model = CooccurrenceModel(user_exponent=0.0, other_exponent=0.5, min_support=2)
    assert [j for j, _ in lists_of(fit(r, model).block(0, 1, 1))[0]] == [9]
    monkeypatch.setattr(cooccurrence, "_SUPPORT_MARGIN", 1)
    real, calls = cooccurrence.top_n_product, []

    def once(a, b, n):
        calls.append(n)
        return real(a, b, n if len(calls) == 1 else b.shape[1])

    monkeypatch.setattr(cooccurrence, "top_n_product", once)
    assert fit(r, model).block(0, 1, 1).nnz == 1
    assert len(calls) > 1


def test_a_weight_that_is_not_finite_stops_everything():
    r = interactions(2)
    r.data[3] = np.nan
    with pytest.raises(GateError, match="not finite"):
        fit(r, CooccurrenceModel()).block(0, 5, 3)
