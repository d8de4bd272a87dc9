"""The quota of new items: never more than its share, never to far users, met where there is room."""

import numpy as np
import pytest
from scipy import sparse

from jobs.ranking.exposure import (
    close_items,
    closeness,
    place_new_items,
    same_category,
    sends_wanted,
    share_out,
)
from jobs.ranking.item_vectors import LENGTH, whole_vectors
from schemas.cold_start import ExposureSettings

SETTINGS = ExposureSettings(min_sends=20)


def random_batch(seed, users=200, new=8, share=0.3):
    random = np.random.default_rng(seed)
    dense = random.choice([0.5, 0.6, 0.7, 0.9], (users, new)).astype(np.float32)
    dense[random.random((users, new)) > share] = 0
    quota = random.integers(0, 15, new)
    lengths = random.choice([0, 3, 6], users, p=[0.2, 0.2, 0.6])
    return sparse.csr_array(dense), quota.astype(np.int64), lengths.astype(np.int64)


def largest_matching(close, quota, lengths):
    """The most placements that quotas and users allow, by augmenting paths: users x copies of items."""
    dense = close.toarray() > 0
    slots = [item for item, count in enumerate(quota) for _ in range(count)]
    holder = {}

    def find(user, seen):
        for slot, item in enumerate(slots):
            if dense[user, item] and slot not in seen:
                seen.add(slot)
                if slot not in holder or find(holder[slot], seen):
                    holder[slot] = user
                    return True
        return False

    return sum(find(user, set()) for user in range(len(lengths)) if lengths[user] > 0)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5])
def test_placements_keep_every_bound(seed, share):
    close, quota, lengths = random_batch(seed)
    placed = place_new_items(close, quota, lengths, share)
    assert len(placed.user) <= share * lengths.sum()
    assert len(set(placed.user.tolist())) == len(placed.user)
    assert placed.user.tolist() == sorted(placed.user.tolist())
    assert (close.toarray()[placed.user, placed.new] > 0).all()
    assert (lengths[placed.user] > 0).all()
    assert (np.bincount(placed.new, minlength=len(quota)) <= quota).all()
    if share == 0.5:
        assert len(placed.user) > 10


@pytest.mark.parametrize("seed", range(30))
def test_the_quota_is_met_where_there_is_room(seed):
    """Each item has far more close users than it needs and the slots suffice: every quota is met to the last mail."""
    close, quota, lengths = random_batch(seed, users=600, share=0.6)
    placed = place_new_items(close, quota, lengths, 0.5)
    assert quota.sum() > 20
    assert np.bincount(placed.new, minlength=len(quota)).tolist() == quota.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_tight_batch_is_filled_to_at_least_half_of_what_is_possible(seed):
    """Closest first is no matching algorithm; but nobody who could be given something is left: at least a half."""
    close, quota, lengths = random_batch(seed, users=30, share=0.12)
    placed = place_new_items(close, quota, lengths, 0.5)
    best = largest_matching(close, quota, lengths)
    assert best > 3
    assert len(placed.user) >= best / 2
    used = np.bincount(placed.new, minlength=len(quota))
    idle = np.setdiff1d(np.flatnonzero(lengths > 0), placed.user)
    assert not (close.toarray()[idle][:, used < quota] > 0).any()


def test_the_closest_come_first():
    close = sparse.csr_array(np.array([[0.6, 0], [0.9, 0.7], [0.8, 0]], np.float32))
    placed = place_new_items(close, np.array([1, 1]), np.array([6, 6, 6]), 0.5)
    # User 1 is the closest to both: they get the item that they are closest to, and the other has nobody else.
    assert list(zip(placed.user.tolist(), placed.new.tolist(), strict=True)) == [(1, 0)]
    placed = place_new_items(close, np.array([2, 1]), np.array([6, 6, 6]), 0.5)
    assert list(zip(placed.user.tolist(), placed.new.tolist(), strict=True)) == [(1, 0), (2, 0)]


def test_the_same_batch_gives_the_same_placements():
    close, quota, lengths = random_batch(5)
    one, two = (place_new_items(close.copy(), quota.copy(), lengths, 0.05) for _ in range(2))
    assert one.user.tolist() == two.user.tolist()
    assert one.new.tolist() == two.new.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_closeness_is_the_largest_similarity_to_a_recent_item(seed):
    random = np.random.default_rng(seed)
    recent = sparse.csr_array((random.random((50, 40)) < 0.1).astype(np.float32))
    close = np.where(random.random((40, 6)) < 0.3, random.random((40, 6)), 0).astype(np.float32)
    forbidden = (random.random((50, 6)) < 0.2).astype(np.float32)
    found = closeness(recent, sparse.csr_array(close), sparse.csr_array(forbidden)).toarray()
    wanted = (recent.toarray()[:, :, None] * close[None]).max(axis=1)
    wanted[forbidden > 0] = 0
    assert (wanted > 0).sum() > 20
    np.testing.assert_array_equal(found, wanted)


def test_only_items_that_are_near_enough_are_close():
    vectors = whole_vectors(np.array([[1, 0], [1, 0.2], [1, 1], [0, 1], [-1, 0], [0, 0]], np.float64))
    close = close_items(vectors, np.array([0]), 0.7).toarray()[:, 0]
    assert (close > 0).tolist() == [True, True, True, False, False, False]
    np.testing.assert_allclose(close[0], (vectors[0].astype(float) ** 2).sum() / LENGTH**2)
    paths = np.array([3, 3, -1, 4, -1])
    assert same_category(paths, np.array([0, 2]), -1).toarray().tolist() == [[1, 0], [1, 0], [0, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(30))
def test_what_is_wanted_is_shared_out_by_room(seed):
    random = np.random.default_rng(seed)
    room = random.integers(0, 12, (7, 9)) * (random.random((7, 9)) < 0.6)
    wanted = random.integers(0, 40, 9)
    shared = share_out(wanted, room)
    assert (shared >= 0).all()
    assert (shared <= room).all()
    assert shared.sum(axis=0).tolist() == np.minimum(wanted, room.sum(axis=0)).tolist()
    exact = room * np.minimum(wanted, room.sum(axis=0)) / np.maximum(room.sum(axis=0), 1)
    assert (np.abs(shared - exact) < 1).all()
    assert shared.sum() > 20


def test_past_sends_are_taken_off():
    assert sends_wanted(np.array([0, 5, 20, 90]), SETTINGS).tolist() == [20, 15, 0, 0]
    assert sends_wanted(np.array([0]), ExposureSettings(min_sends=0)).tolist() == [0]
