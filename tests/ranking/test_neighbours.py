"""Neighbours with their support, exact, against counting by hand; and the order of users."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking.interactions import in_order
from jobs.ranking.item_model import fit
from jobs.ranking.neighbours import Together, co_occurring
from schemas.item_models import COSINE, CooccurrenceModel


def matrix_of(cells, users=14, items=9):
    rng = np.random.default_rng(len(cells))
    dense = np.zeros((users, items), np.float32)
    for user, item in cells:
        dense[user % users, item % items] = rng.choice([0.5, 1.0, 3.0])
    csr = sparse.csr_array(dense)
    parts = (csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32))
    return sparse.csr_array(parts, shape=csr.shape)


cells = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 8)), max_size=70)


@settings(deadline=None)
@given(cells, st.integers(1, 4), st.integers(1, 5), st.sampled_from([COSINE, CooccurrenceModel()]))
def test_lists_are_the_best_of_the_pairs_with_enough_support(cells, min_support, depth, model):
    """An oracle by definition: all scores without a limit, those with too few users in common taken out, then cut."""
    interactions = matrix_of(cells)
    items = interactions.shape[1]
    ones = (interactions.toarray() > 0).astype(int)
    counts = ones.T @ ones
    everything = fit(interactions, model).block(0, items, items)
    found = co_occurring(
        fit(interactions, model), Together.of(interactions), 2, 7, depth=depth, min_support=min_support
    )
    place = 0
    for row in range(5):
        item = row + 2
        others = everything.indices[everything.indptr[item] : everything.indptr[item + 1]]
        expected = [other for other in others if counts[item, other] >= min_support][:depth]
        size = found.lists.indptr[row + 1] - found.lists.indptr[row]
        assert found.lists.indices[place : place + size].tolist() == expected
        assert found.support[place : place + size].tolist() == [counts[item, other] for other in expected]
        place += size
    assert place == len(found.support)


def test_a_list_that_loses_pairs_to_the_least_support_is_filled_from_further_down():
    """Mutant: cut first, then drop. Item 0 has 30 better others with one user in common, and one with three."""
    users = [[0, 1, 2], [0, 1, 2], [0, 1, 2], *([0, item] for item in range(3, 33))]
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in users]))).astype(np.int32)
    indices = np.concatenate(users).astype(np.int32)
    interactions = sparse.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(33, 33))
    rare_first = CooccurrenceModel(user_exponent=0.0, other_exponent=2.0)
    assert fit(interactions, rare_first).block(0, 1, 5).indices.min() >= 3
    found = co_occurring(fit(interactions, rare_first), Together.of(interactions), 0, 1, depth=5, min_support=3)
    assert found.lists.indices.tolist() == [1, 2]
    assert found.support.tolist() == [3, 3]


@settings(deadline=None)
@given(cells, st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_order_of_users_does_not_depend_on_their_buckets(cells, buckets, random):
    interactions = matrix_of(cells)
    order = np.array(random.sample(range(1_000), interactions.shape[0]), np.uint64)
    bucket = np.array([random.randrange(buckets) for _ in order])
    rows = [np.flatnonzero(bucket == number) for number in range(buckets)]
    joined = in_order([interactions[chosen] for chosen in rows], [order[chosen] for chosen in rows])
    expected = interactions[np.argsort(order)]
    expected = expected[np.diff(expected.indptr) > 0]
    assert joined.shape == expected.shape
    assert (joined.toarray() == expected.toarray()).all()


def test_support_beyond_what_a_heap_of_the_product_keeps_is_counted_too():
    """All pairs of a dense matrix, in one call: none is lost to the limit of the product."""
    interactions = sparse.csr_array(np.ones((50, 30), np.float32))
    interactions = sparse.csr_array(
        (interactions.data, interactions.indices.astype(np.int32), interactions.indptr.astype(np.int32)),
        shape=interactions.shape,
    )
    lists = fit(interactions, COSINE).block(0, 30, 29)
    assert lists.nnz == 30 * 29
    assert set(Together.of(interactions).support(0, lists).tolist()) == {50}


@pytest.mark.parametrize("depth", [1, 29])
def test_no_interactions_give_no_lists(depth):
    nothing = sparse.csr_array((3, 30), dtype=np.float32)
    nothing = sparse.csr_array((nothing.data, nothing.indices.astype(np.int32), nothing.indptr), shape=(3, 30))
    found = co_occurring(fit(nothing, COSINE), Together.of(nothing), 0, 30, depth=depth, min_support=1)
    assert found.as_table(0).num_rows == len(found.support) == 0
