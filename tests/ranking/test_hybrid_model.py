"""The hybrid model: the same bytes twice, new items among their own kind, new users with something that suits them."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from catalogs import ITEMS_A_KIND, KINDS, kinds_of_goods, tastes, users_of

from jobs.ranking.feature_matrix import Features
from jobs.ranking.hybrid import fit
from jobs.ranking.item_features import item_features
from jobs.ranking.item_vectors import VectorItems, whole_vectors
from jobs.ranking.pairs_told_apart import pairs_told_apart
from jobs.ranking.starter_items import most_common, starter_items, starter_rows
from jobs.ranking.user_features import combination_matrix, combinations, shared_features
from schemas.cold_start import HybridSettings
from schemas.errors import GateError

SETTINGS = HybridSettings(components=16, epochs=15, min_users=5)
USERS = 300


@dataclasses.dataclass(frozen=True)
class Trained:
    features: Features
    users: pa.Table
    known: list
    texts: pa.StringArray
    interactions: object
    model: object

    @property
    def vectors(self):
        return whole_vectors(self.features.matrix @ self.model.item_vectors)


def train(settings=SETTINGS):
    users = users_of([("de-DE", {"likes": f"kind{n % KINDS}"}) for n in range(USERS)])
    features, interactions = item_features(kinds_of_goods(), min_items=2, max_features=1_000), tastes(USERS)
    known = shared_features(users, min_users=settings.min_users)
    texts = combinations(users, known)
    model = fit(interactions, features.matrix, combination_matrix(texts, known).matrix, settings)
    return Trained(features, users, known, texts, interactions, model)


@pytest.fixture(scope="module")
def trained():
    return train()


def starters(trained, depth=20):
    kept, known_by = most_common(trained.texts, 100), np.bincount(trained.interactions.indices, minlength=120)
    return starter_items(
        kept, trained.known, trained.model, trained.features.matrix, np.arange(120), known_by, depth=depth
    )


def test_two_trainings_give_the_same_bytes(trained):
    again = train()
    for field in dataclasses.fields(trained.model):
        assert getattr(trained.model, field.name).tobytes() == getattr(again.model, field.name).tobytes()
    assert starters(trained).equals(starters(again))


def test_another_seed_gives_another_model(trained):
    other = train(SETTINGS.model_copy(update={"seed": 2}))
    assert other.model.item_vectors.tobytes() != trained.model.item_vectors.tobytes()


def test_a_new_item_is_among_its_kind(trained):
    new = np.arange(KINDS) * ITEMS_A_KIND + ITEMS_A_KIND - 1
    assert trained.interactions[:, new].nnz == 0
    found = VectorItems(trained.vectors).block(0, 120, 10)
    for kind, item in enumerate(new):
        others = found.indices[found.indptr[item] : found.indptr[item + 1]]
        assert len(others) == 10
        assert (others // ITEMS_A_KIND == kind).mean() >= 0.8


def test_a_new_user_gets_what_suits_what_is_known_of_them(trained):
    lists = starters(trained)
    keys = lists["key"].to_pylist()
    assert len(keys) == KINDS + 1
    assert "{}" in keys
    rows = starter_rows(users_of([("de-DE", {"likes": f"kind{n}"}) for n in range(KINDS)]), lists)
    for kind, row in enumerate(rows):
        items = np.array(lists["item"][row].as_py())
        assert len(set(items.tolist())) == 20
        assert (items[:10] // ITEMS_A_KIND == kind).mean() >= 0.8
        scores = lists["score"][row].as_py()
        assert scores[0] == 1
        assert scores == sorted(scores, reverse=True)
        assert min(scores) > 0


def test_a_user_of_whom_nothing_is_known_gets_the_list_for_such(trained):
    lists = starters(trained)
    rows = starter_rows(users_of([("xx-XX", {"likes": "nothing"}), (None, {})]), lists)
    assert [lists["key"][row].as_py() for row in rows] == ["{}", "{}"]
    assert len(lists["item"][rows[0]]) == 20


def test_of_too_many_combinations_the_most_common_are_kept():
    texts = pa.array(["b"] * 3 + ["a"] * 3 + ["c"] * 2 + ["d"])
    assert most_common(texts, 2).to_pylist() == ["a", "b", "{}"]
    assert most_common(texts, 3).to_pylist() == ["a", "b", "c", "{}"]


def test_a_training_that_diverges_says_so():
    with pytest.raises(GateError, match=r"diverged .* learning_rate 1e\+06 .* Lower \[hybrid\] learning_rate"):
        train(SETTINGS.model_copy(update={"learning_rate": 1e6}))


def garbage(vectors, random):
    """Vectors that know nothing, each a way in which a table goes wrong."""
    size = len(vectors)
    yield "zeros", np.zeros_like(vectors)
    yield "constant", np.tile(vectors[:1], (size, 1))
    yield "shuffled", vectors[random.permutation(size)]
    yield "random", whole_vectors(random.normal(size=vectors.shape))


def test_vectors_that_know_nothing_do_not_tell_pairs_apart(trained):
    assert pairs_told_apart(trained.interactions, trained.vectors) > 6
    bad = {}
    for seed in range(30):
        for name, vectors in garbage(trained.vectors, np.random.default_rng(seed)):
            bad.setdefault(name, []).append(pairs_told_apart(trained.interactions, vectors))
    assert {name: len(values) for name, values in bad.items()} == dict.fromkeys(bad, 30)
    assert len(bad) == 4
    assert bad["zeros"] == bad["constant"] == [0.0] * 30
    assert max(max(values) for values in bad.values()) < 3, bad  # what the gate of hybrid_items asks for


def test_too_few_users_give_no_verdict():
    few = tastes(40)
    assert pairs_told_apart(few, np.ones((120, 8), np.int16)) is None
