"""The sparse product against the dense one, ties included."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking import sparse_product
from jobs.ranking.sparse_product import top_n_product, top_products
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


def counted_oracle(a, b, n, *, names, counted, least_terms, own):
    """By definition: sums and terms in full, then what is left out, then the best by (score, name)."""
    product = (a @ b).toarray()
    is_counted = np.arange(b.shape[0]) < counted
    terms = (a.toarray() != 0).astype(int) @ ((b.toarray() != 0) & is_counted[:, None]).astype(int)
    rows = []
    for row in range(a.shape[0]):
        listed = [
            (names[column], float(product[row, column]), int(terms[row, column]))
            for column in range(b.shape[1])
            if product[row, column] > 0 and terms[row, column] >= least_terms and names[column] != own + row
        ]
        rows.append(sorted(listed, key=lambda entry: (-entry[1], entry[0]))[:n])
    return rows


class Case:
    """A small product with many ties, its last row of B not counted."""

    def __init__(self, seed, n=4):
        rng = np.random.default_rng(seed)
        self.a, self.b = random_matrix(rng, 6, 11, 0.5, [1.0, 2.0]), random_matrix(rng, 11, 30, 0.5, [0.5, 1.0])
        self.rules = {
            "names": rng.permutation(30).astype(np.int32), "counted": 10, "least_terms": int(rng.integers(0, 4)),
            "own": int(rng.integers(0, 24)),
        }  # fmt: skip
        self.n = n

    def found(self, threads=1):
        best = top_products(self.a, self.b, self.n, threads=threads, **self.rules)
        listed = list(zip(best.lists.indices.tolist(), best.lists.data.tolist(), best.terms.tolist(), strict=True))
        return [listed[start:end] for start, end in itertools.pairwise(best.lists.indptr.tolist())]

    def expected(self):
        return counted_oracle(self.a, self.b, self.n, **self.rules)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 35), st.sampled_from([1, 2, 5]))
def test_terms_are_counted_as_they_are_added_up(seed, n, threads):
    case = Case(seed, n)
    assert sum(map(len, case.expected())) > 0
    assert case.found(threads) == case.expected()


def test_lists_that_outgrow_the_room_made_for_them_are_whole():
    """300 entries in each of 5 rows, where there is room for 64 a row at first."""
    rng = np.random.default_rng(5)
    a, b = random_matrix(rng, 5, 40, 0.9, [1.0, 2.0]), random_matrix(rng, 40, 700, 0.3, [1.0, 2.0])
    found = top_n_product(a, b, 300)
    assert np.diff(found.indptr).tolist() == [300] * 5
    assert rows_of(found) == dense_top_n(a, b, 300)


def first_come_of_equal_ones(
    best, best_column, best_terms, held, score, column, terms, real=sparse_product._offer.py_func
):
    if held == len(best) and score == best[0]:
        return held
    return real(best, best_column, best_terms, held, score, column, terms)


def one_child_alone(best, best_column, best_terms, held, score, column, terms):
    """Goes down the left side of the heap, whatever stands on the right."""
    place = 0
    while 2 * place + 1 < held and best[2 * place + 1] <= score:
        for side in (best, best_column, best_terms):
            side[place] = side[2 * place + 1]
        place = 2 * place + 1
    best[place], best_column[place], best_terms[place] = score, column, terms


@pytest.mark.parametrize(("name", "planted"), [("_offer", first_come_of_equal_ones), ("_sift", one_child_alone)])
def test_a_heap_that_keeps_whichever_it_likes_is_caught(name, planted, monkeypatch):
    cases = [Case(seed) for seed in range(20)]
    monkeypatch.setattr(sparse_product, "_best_of_rows", sparse_product._best_of_rows.py_func)
    monkeypatch.setattr(sparse_product, "_offer", sparse_product._offer.py_func)
    assert all(case.found() == case.expected() for case in cases)
    monkeypatch.setattr(sparse_product, name, planted)
    assert any(case.found() != case.expected() for case in cases)


@pytest.mark.parametrize("rule", ["counted", "least_terms", "own"])
def test_a_rule_that_is_forgotten_is_caught(rule):
    cases = [Case(seed) for seed in range(20)]
    assert all(case.found() == case.expected() for case in cases)
    for case in cases:
        expected = case.expected()
        case.rules[rule] = {"counted": 11, "least_terms": 0, "own": -100}[rule]
        case.differs = case.found() != expected
    assert any(case.differs for case in cases)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_stops_everything(bad):
    a = sparse.csr_array(np.ones((2, 3), np.float32))
    b = sparse.csr_array(np.ones((3, 4), np.float32))
    b.data[5] = bad
    with pytest.raises(GateError, match="not finite"):
        top_n_product(a, b, 2)
