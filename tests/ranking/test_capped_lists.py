"""Lists under caps equal a plain walk down the dense product, whatever ties, groups and sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking import capped_lists as module
from jobs.ranking.capped_lists import Cap, capped_lists
from jobs.ranking.item_facts import NO_KIND


class Case:
    """Users, items and rules of a seed; scores are few whole numbers, so that most are ties."""

    def __init__(self, seed, rows=30, k=12, items=40, n=4):
        rng = np.random.default_rng(seed)
        self.n, self.items, groups = n, items, 5
        self.interest = sparse.random_array((rows, k), density=0.3, rng=rng, dtype=np.float32, format="csr")
        self.interest.data[:] = rng.integers(1, 4, self.interest.nnz)
        self.scores = sparse.random_array((k, items), density=0.5, rng=rng, dtype=np.float32, format="csr")
        self.scores.data[:] = rng.integers(-1, 3, self.scores.nnz)
        group = np.where(rng.random(items) < 0.4, rng.integers(0, groups, items), NO_KIND)
        self.twins = sparse.csr_array((group == np.arange(groups)[:, None]).astype(np.float32))
        self.ruled_out = sparse.csr_array((rng.random((rows, items + groups)) < 0.1).astype(np.float32))
        self.started = sparse.csr_array((rng.random((rows, items)) < rng.choice([0, 0.05])).astype(np.float32))
        self.started = self.started[np.diff(self.started.indptr) <= n] if self.started.nnz else self.started
        self.interest, self.ruled_out = (m[: self.started.shape[0]] for m in (self.interest, self.ruled_out))
        kinds = [rng.integers(NO_KIND, 3, items).astype(np.int32) for _ in range(2)]
        self.caps = [Cap("a", 1, kinds[0]), Cap("b", 2, kinds[1])][: rng.integers(0, 3)]

    def lists(self, **options):
        made = capped_lists(
            self.interest, self.scores, self.ruled_out, self.n,
            caps=self.caps, twins=self.twins, started=self.started, **options,
        )  # fmt: skip
        return [
            list(zip(made.indices[a:b].tolist(), made.data[a:b].tolist(), strict=True))
            for a, b in zip(made.indptr[:-1], made.indptr[1:], strict=True)
        ]

    def expected(self):
        product, lists = (self.interest @ self.scores).toarray(), []
        out = self.ruled_out.toarray()
        out = (out[:, : self.items] + out[:, self.items :] @ self.twins.toarray() + self.started.toarray()) > 0
        for row in range(product.shape[0]):
            held = self.started.indices[self.started.indptr[row] : self.started.indptr[row + 1]].tolist()
            taken = []
            for item in sorted(range(self.items), key=lambda i: (-product[row, i], i)):
                full = any(
                    cap.kind[item] != NO_KIND
                    and sum(cap.kind[other] == cap.kind[item] for other in [*held, *taken]) >= cap.most
                    for cap in self.caps
                )
                if product[row, item] > 0 and not out[row, item] and len(held) + len(taken) < self.n and not full:
                    taken.append(item)
            lists.append([(item, float(product[row, item])) for item in taken])
        return lists


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(40, 12), (3, 3), (900, 2_000)]), st.integers(1, 9))
def test_lists_equal_a_walk_down_the_dense_product(seed, size, n):
    k, items = size
    case = Case(seed, rows=30 if items < 1_000 else 3, k=k, items=items, n=n)
    assert case.lists() == case.expected()


def test_lists_do_not_depend_on_the_threads():
    case = Case(5, rows=101)
    alone = case.lists()
    assert sum(map(len, alone)) > 100
    assert case.lists(threads=2) == case.lists(threads=7) == alone


def ties_as_they_come(key, candidates, depth, best, best_item):
    order = np.argsort(-(key[:candidates] >> 32).astype(np.int64), kind="stable")[:depth]
    best[: len(order)], best_item[: len(order)] = key[order], ~key[order].astype(np.uint32)
    return len(order)


def caps_of_the_row_alone(item, start, stop, kinds, most, kept, holds, n, fate, real=module._walk.py_func):
    return real(item, start, stop, kinds, most, np.full_like(kept, NO_KIND), holds, n, fate)


def one_look(item, start, stop, kinds, most, kept, holds, n, fate, real=module._walk.py_func):
    """Says that the list is full, so that nothing is looked at deeper."""
    real(item, start, stop, kinds, most, kept, holds, n, fate)
    return n


@pytest.mark.parametrize(
    ("name", "planted"), [("_best", ties_as_they_come), ("_walk", caps_of_the_row_alone), ("_walk", one_look)]
)
def test_a_wrong_order_forgotten_caps_and_a_short_look_are_noticed(name, planted, monkeypatch):
    cases = [Case(seed) for seed in range(30)]
    monkeypatch.setattr(module, "_rank_rows", module._rank_rows.py_func)  # plain Python calls what is planted
    assert all(case.lists() == case.expected() for case in cases)
    monkeypatch.setattr(module, name, planted)
    assert any(case.lists() != case.expected() for case in cases)
