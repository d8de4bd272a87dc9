"""Folds, the ranking that they are measured by, and the choice of what was planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.ranking import choose as choose_module
from jobs.ranking import validation
from jobs.ranking.choose import STARTS, Recipe, choose, ranked_by
from jobs.ranking.rank_users import fill_up, rank_users
from jobs.ranking.validation import Interactions, Weighting, folds
from schemas.item_models import COSINE, CooccurrenceModel, EaseModel


def shop(seed=0, users=300, groups=6, items_per_group=8, *, with_times=False):
    """Users who like one group of items each, and a few items that everybody has."""
    rng = np.random.default_rng(seed)
    popular, items = 4, 4 + groups * items_per_group
    rows = []
    for user in range(users):
        group = user % groups
        own = popular + group * items_per_group + rng.permutation(items_per_group)[:5]
        rows += [(user, item) for item in (*own, *rng.permutation(popular)[:2])]
    user, item = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    at = rng.integers(0, 1000, len(user)) if with_times else None
    return Interactions.of(user, item, at, (users, items))


def test_interactions_fold_repeats_and_keep_the_last_time():
    got = Interactions.of(np.array([1, 0, 1, 1]), np.array([2, 1, 2, 0]), np.array([5, 6, 9, 1]), (2, 3))
    rows = list(zip(got.user, got.item, got.times, got.last_at, strict=True))
    assert rows == [(0, 1, 1, 6), (1, 0, 1, 1), (1, 2, 2, 9)]
    assert got.matrix().toarray().tolist() == [[0, 1, 0], [1, 0, 1]]
    assert got.matrix(Weighting(repeats=True)).toarray()[1].tolist() == pytest.approx([1, 0, 1 + np.log(2)])
    faded = got.matrix(Weighting(half_life=0.5)).toarray()
    assert faded[1].tolist() == pytest.approx([0.25, 0, 1])  # the oldest is two half-lives old
    assert got.capped(1).item.tolist() == [1, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_folds_hold_back_a_fifth_and_never_what_was_learned(seed, by_time):
    train = shop(seed, users=60, with_times=by_time)
    held = folds(train, "newest" if by_time else "any")
    assert len(held) == 3  # few users: three of them
    for fold in held:
        assert len(fold.users) > 20
        learned = set(zip(fold.learn.user.tolist(), fold.learn.item.tolist(), strict=True))
        truth = {(int(fold.users[row]), int(item)) for row, item in zip(*fold.truth.nonzero(), strict=True)}
        every = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
        assert truth
        assert not truth & learned
        assert truth | learned <= every
        if by_time:
            last = dict(zip(zip(train.user.tolist(), train.item.tolist(), strict=True), train.last_at, strict=True))
            assert max(last[pair] for pair in learned) < min(last[pair] for pair in truth)
        else:
            assert len(truth) / len(every) == pytest.approx(0.2, abs=0.09)
    assert len({tuple(fold.truth.indices.tolist()) for fold in held}) == 3


def test_the_newest_of_each_user_is_held_back_and_nothing_newer_is_learned():
    train = shop(2, users=60, with_times=True)
    held = folds(train, "newest of each user")
    assert len(held) == 3
    last = dict(zip(zip(train.user.tolist(), train.item.tolist(), strict=True), train.last_at.tolist(), strict=True))
    seen = []
    for fold in held:
        truth = [(int(fold.users[row]), int(item)) for row, item in zip(*fold.truth.nonzero(), strict=True)]
        assert len(truth) > 40
        newest = {u: max(last[u, i] for i in fold.learn.item[fold.learn.user == u].tolist()) for u, _ in truth}
        assert all(last[pair] >= newest[pair[0]] for pair in truth)
        seen.append(np.mean([last[pair] for pair in truth]))
    assert seen[0] > seen[1] > seen[2]


def test_folds_are_the_same_every_time_and_a_sample_of_many_users(monkeypatch):
    monkeypatch.setattr(validation, "FOLD_USERS", 50)
    monkeypatch.setattr(validation, "FEW_USERS", 10)
    one, two = folds(shop(), "any"), folds(shop(), "any")
    assert len(one) == 1
    assert len(one[0].users) == 50 == one[0].truth.shape[0]
    assert one[0].users.tolist() == two[0].users.tolist()
    assert (one[0].truth != two[0].truth).nnz == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_ranked_and_filled_lists_equal_a_plain_loop(seed, n):
    rng = np.random.default_rng(seed)
    items, users = 12, 8
    lists = sparse.random_array((items, items), density=0.2, rng=rng, format="csr", dtype=np.float32)
    lists.data = rng.choice(np.array([1, 2, -1], np.float32), lists.nnz)
    history = sparse.random_array((users, items), density=0.3, rng=rng, format="csr", dtype=np.float32)
    history.data = rng.choice(np.array([1, 2], np.float32), history.nnz)
    popularity = rng.integers(0, 4, items).astype(np.float64)
    ranked = rank_users(history, lists, n)
    filled = fill_up(ranked, history, popularity, n)
    scores = (history @ lists).toarray()
    for user in range(users):
        known = set(history[[user]].indices.tolist())
        best = [j for j in sorted(range(items), key=lambda j: (-scores[user, j], j)) if j not in known]
        want = [j for j in best if scores[user, j] > 0][:n]
        assert ranked.indices[ranked.indptr[user] : ranked.indptr[user + 1]].tolist() == want
        for j in sorted(range(items), key=lambda j: (-popularity[j], j)):
            if len(want) < n and popularity[j] > 0 and j not in known and j not in want:
                want.append(j)
        assert filled.indices[filled.indptr[user] : filled.indptr[user + 1]].tolist() == want


def test_the_choice_beats_every_start_and_is_the_same_every_time():
    held = folds(shop(), "any")
    choice = choose(held)
    again = choose(held)
    assert choice.recipe == again.recipe
    assert len(choice.trials) > 8
    assert isinstance(choice.recipe.model, CooccurrenceModel | EaseModel)
    ndcg = {trial.recipe: trial.figures.ndcg for trial in choice.trials}
    for start in STARTS:
        assert ndcg[choice.recipe] >= 0.99 * ndcg[Recipe(model=start)]
    assert ndcg[choice.recipe] > 1.1 * min(ndcg[Recipe(model=start)] for start in STARTS)


def test_a_planted_winner_is_chosen():
    """A good start beside a bad one."""
    held = folds(shop(3), "any")
    bad = CooccurrenceModel(item_exponent=0.0, user_exponent=0.0, other_exponent=0.0, popularity=100.0)
    first = choose(held, starts=[bad, COSINE]).trials
    assert first[1].figures.ndcg > 1.5 * first[0].figures.ndcg
    chosen = choose(held, starts=[bad, COSINE])
    best = max(trial.figures.ndcg for trial in chosen.trials)
    of_chosen = next(trial.figures.ndcg for trial in chosen.trials if trial.recipe == chosen.recipe)
    assert of_chosen > 0.97 * best


def test_popularity_is_chosen_where_items_have_nothing_to_do_with_one_another():
    rng = np.random.default_rng(5)
    weight = 1 / np.arange(1, 2001)
    rows = [(u, i) for u in range(300) for i in rng.choice(2000, 8, replace=False, p=weight / weight.sum())]
    user, item = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    choice = choose(folds(Interactions.of(user, item, None, (300, 2000)), "any"))
    ndcg = {trial.recipe: trial.figures.ndcg for trial in choice.trials}
    assert ndcg[choice.recipe] > 1.2 * ndcg[Recipe(model=COSINE)]


def test_what_fades_is_found_where_tastes_change():
    """Users move from one group of items to the next; what they liked long ago misleads."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(300):
        start = user % 6
        for step in range(12):
            group = (start + step // 3) % 6
            rows.append((user, group * 10 + rng.integers(0, 10), step * 10 + rng.integers(0, 10)))
    user, item, at = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    train = Interactions.of(user, item, at, (300, 60))
    choice = choose(folds(train, "newest"))
    assert choice.recipe.history.half_life > 0
    fading, steady = (
        ranked_by(recipe, train, np.arange(300), depth=50, n=5)
        for recipe in (choice.recipe, choice.recipe.model_copy(update={"history": Weighting()}))
    )
    assert (fading != steady).nnz > 0
    # Not the best of what forgets nothing, where single steps had ended: four starts in five find twice as much.
    best = next(trial for trial in choice.trials if trial.recipe == choice.recipe)
    assert best.figures.recall > 1.8 * max(t.figures.recall for t in choice.trials if t.recipe.history == Weighting())


def test_a_user_in_three_folds_is_one_user():
    """The same fold three times says no more than once."""
    once = folds(shop(4, users=200), "any")[:1]
    steps = {}
    for held in (once, once * 3):
        walk = choose_module._Walk(held, 1)
        pairs = [
            (Recipe(model=COSINE), Recipe(model=CooccurrenceModel(other_exponent=value))) for value in (0.1, 0.4, 0.9)
        ]
        steps[len(held)] = [walk.beyond_chance(*pair) for pair in pairs]
        gain = walk._of_users(pairs[0][1]) - walk._of_users(pairs[0][0])
        assert len(gain) == len(held) * len(once[0].users)
    assert steps[1] == steps[3]
