"""Ranking metrics against hand-computed values and a plain loop over users."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking.metrics import measure


def lists(rows, items):
    """Ranked lists as they come out of the sparse product: best first, columns unsorted."""
    flat = [item for row in rows for item in row]
    scores = np.array([1.0 / (rank + 1) for row in rows for rank in range(len(row))], np.float32)
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return sparse.csr_array((scores, np.array(flat, np.int32), indptr), shape=(len(rows), items))


def test_hand_computed():
    ranked = lists([[3, 1, 0], [2, 3, 4], [0, 1, 2], []], 6)
    truth = lists([[1, 5], [2], [], [4]], 6)
    got = measure(ranked, truth, 2, np.array([0.5, 0.25, 0.125, 0.5, 1.0, 1.0])).figures()
    # User 0: item 1 at rank 2 of an ideal 1 + 1/log2(3); user 1: perfect; user 2 has nothing; user 3 finds nothing.
    at_two = 1 / math.log2(3)
    assert got.users == 3
    assert got.recall == pytest.approx((0.5 + 1 + 0) / 3)
    assert got.ndcg == pytest.approx((at_two / (1 + at_two) + 1 + 0) / 3)
    assert got.mrr == pytest.approx((0.5 + 1 + 0) / 3)
    assert got.hit_rate == pytest.approx(2 / 3)
    assert got.coverage == pytest.approx(3 / 6)  # items 3, 1, 2
    assert got.novelty == pytest.approx((1 + 2 + 3 + 1) / 4)
    assert got.top_item_share == pytest.approx(2 / 3)  # item 3 stands in both lists


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 9))
def test_batches_add_up_to_a_plain_loop(seed, k, cut):
    rng = np.random.default_rng(seed)
    users, items = 9, 15
    rows = [rng.permutation(items)[: rng.integers(0, items)].tolist() for _ in range(users)]
    wanted = [set(rng.permutation(items)[: rng.integers(0, 6)].tolist()) for _ in range(users)]
    known = rng.random(items)
    ranked, truth = lists(rows, items), lists([sorted(w) for w in wanted], items)
    got = (measure(ranked[:cut], truth[:cut], k, known) + measure(ranked[cut:], truth[cut:], k, known)).figures()

    recall, ndcg, mrr, hits, told, novelty = [], [], [], [], {}, []
    for row, want in zip(rows, wanted, strict=True):
        if not want:
            continue
        marks = [item in want for item in row[:k]]
        recall.append(sum(marks) / len(want))
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(want))))
        ndcg.append(sum(1 / math.log2(rank + 2) for rank, mark in enumerate(marks) if mark) / ideal)
        mrr.append(max((1 / (rank + 1) for rank, mark in enumerate(marks) if mark), default=0))
        hits.append(any(marks))
        for item in row[:k]:
            told[item] = told.get(item, 0) + 1
            novelty.append(-math.log2(known[item]))
    assert got.users == len(recall)
    if not recall:
        return
    assert got.recall == pytest.approx(np.mean(recall))
    assert got.ndcg == pytest.approx(np.mean(ndcg))
    assert got.mrr == pytest.approx(np.mean(mrr))
    assert got.hit_rate == pytest.approx(np.mean(hits))
    assert got.coverage == pytest.approx(len(told) / items)
    assert got.top_item_share == pytest.approx(max(told.values(), default=0) / len(recall))
    assert got.novelty == pytest.approx(np.mean(novelty) if novelty else 0)


def test_popular_lists_are_found_out():
    """The same list for everybody: whole share of the top item, least coverage."""
    ranked = lists([[0, 1]] * 50, 100)
    got = measure(ranked, lists([[7]] * 50, 100), 2, np.full(100, 0.5)).figures()
    assert (got.top_item_share, got.coverage, got.recall, got.ndcg, got.mrr, got.hit_rate) == (1.0, 0.02, 0, 0, 0, 0)
