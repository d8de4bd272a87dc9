"""Nearest vectors: exact, whatever the blocks; and vectors that are none are refused."""

import numpy as np
import pytest

from jobs.lake.scratch import Scratch
from jobs.ranking import item_vectors
from jobs.ranking.item_vectors import LENGTH, VectorItems, check_vectors, whole_vectors
from schemas.errors import GateError


def random_vectors(items=120, components=16, seed=0):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(items, components))
    vectors[::7] = vectors[1]  # ties
    vectors[5] = 0
    return whole_vectors(vectors)


def dense_oracle(vectors, first, last, depth):
    """All products in whole numbers, ranked one by one."""
    products = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    lists = []
    for item in range(first, last):
        others = [(-int(products[item, other]), other) for other in range(len(vectors)) if other != item]
        lists.append([(other, -score) for score, other in sorted(others)[:depth] if score < 0])
    return lists


def as_lists(block):
    return [
        list(zip(
            block.indices[start:end].tolist(),
            np.rint(block.data[start:end].astype(np.float64) * LENGTH * LENGTH).astype(np.int64).tolist(),
            strict=True,
        ))
        for start, end in zip(block.indptr[:-1], block.indptr[1:], strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 5, 17, 119, 500])
@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_are_those_of_the_dense_oracle(depth, seed):
    vectors = random_vectors(seed=seed)
    found = VectorItems(vectors).block(0, 120, depth)
    wanted = dense_oracle(vectors, 0, 120, depth)
    assert sum(map(len, wanted)) > 100
    assert [[other for other, _ in row] for row in as_lists(found)] == [[other for other, _ in row] for row in wanted]
    # A cosine is rounded once, to single precision.
    for mine, oracle in zip(as_lists(found), wanted, strict=True):
        assert all(abs(a - b) <= 1 for (_, a), (_, b) in zip(mine, oracle, strict=True))


@pytest.mark.parametrize("size", [1, 3, 50, 1_000_000])
def test_blocks_make_no_difference(size, monkeypatch):
    vectors = random_vectors()
    whole = as_lists(VectorItems(vectors).block(0, 120, 10))
    monkeypatch.setattr(item_vectors, "_BLOCK_SCORES", size * 120)
    parts = [
        row
        for first in range(0, 120, 11)
        for row in as_lists(VectorItems(vectors).block(first, min(first + 11, 120), 10))
    ]
    assert parts == whole


def test_single_precision_adds_up_without_rounding():
    """The largest products there can be, in the worst order: what whole numbers give."""
    for components in (8, 32, 256):
        vectors = whole_vectors(
            np.vstack([np.ones(components), np.where(np.arange(components) % 2, 1, -1), np.eye(components)[0]])
        )
        exact = vectors.astype(np.int64) @ vectors.astype(np.int64).T
        assert np.abs(exact).max() < 2**24
        assert (vectors.astype(np.float32) @ vectors.astype(np.float32).T).astype(np.int64).tolist() == exact.tolist()


def test_an_item_without_a_vector_is_near_nothing():
    vectors = random_vectors()
    found = VectorItems(vectors).block(0, 120, 200)
    assert np.diff(found.indptr)[5] == 0
    assert 5 not in found.indices
    assert (found.indices != np.repeat(np.arange(120), np.diff(found.indptr))).all()


def test_vectors_are_kept_and_mapped(tmp_path):
    VectorItems(random_vectors()).save(Scratch(tmp_path), "v")
    mapped = VectorItems.load(Scratch(tmp_path), "v")
    assert as_lists(mapped.block(3, 9, 4)) == as_lists(VectorItems(random_vectors()).block(3, 9, 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    vectors = np.ones((4, 8), np.float32)
    vectors[2, 3] = bad
    with pytest.raises(GateError, match="not finite"):
        whole_vectors(vectors)


@pytest.mark.parametrize("spoil", [lambda v: v * 2, lambda v: v // 2, lambda v: np.where(v > 1000, 0, v), np.ones_like])
def test_vectors_of_another_length_are_refused(spoil):
    vectors = random_vectors()
    check_vectors(vectors)
    with pytest.raises(GateError, match="are not 4,000 long"):
        check_vectors(spoil(vectors))
