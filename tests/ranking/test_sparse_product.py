"""The sparse product against the dense one, ties included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking import sparse_product
from jobs.ranking.sparse_product import top_n_product
from schemas.errors import GateError


def dense_top_n(a, b, n):
    """Each row's best by (score, column), from the full product."""
    product = (a @ b).toarray()
    return [
        [(int(c), float(row[c])) for c in np.lexsort((np.arange(len(row)), -row)) if row[c] > 0][:n] for row in product
    ]


def rows_of(matrix):
    return [
        list(zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True))
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]


def random_matrix(rng, rows, columns, density, values):
    matrix = sparse.random_array((rows, columns), density=density, rng=rng, format="csr", dtype=np.float32)
    matrix.data = rng.choice(np.array(values, np.float32), len(matrix.data))
    return matrix


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([[1.0], [1.0, 2.0], [0.5, 1.0, -4.0]]))
def test_equals_the_dense_product_with_many_ties(seed, n, values):
    rng = np.random.default_rng(seed)
    a, b = random_matrix(rng, 7, 12, 0.4, [1.0, 2.0]), random_matrix(rng, 12, 60, 0.5, values)
    assert rows_of(top_n_product(a, b, n)) == dense_top_n(a, b, n)


def test_a_product_that_trusts_the_heap_on_ties_is_caught(monkeypatch):
    """Planted bug: no second look at rows whose edge is a tie. The heap then keeps whichever columns it likes."""
    rng = np.random.default_rng(3)
    a = sparse.csr_array(np.ones((1, 40), np.float32))
    b = random_matrix(rng, 40, 500, 0.02, [1.0])
    expected = dense_top_n(a, b, 5)
    assert rows_of(top_n_product(a, b, 5)) == expected
    monkeypatch.setattr(sparse_product, "_TIE_MARGIN", 0)
    assert rows_of(top_n_product(a, b, 5)) != expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_stops_everything(bad):
    a = sparse.csr_array(np.ones((2, 3), np.float32))
    b = sparse.csr_array(np.ones((3, 4), np.float32))
    b.data[5] = bad
    with pytest.raises(GateError, match="not finite"):
        top_n_product(a, b, 2)
