"""Leaving the future out: nothing of it is learned from, and nothing is asked for that serving would not show."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from jobs.backtest.contest import correlations_of, measured, measured_popularity, popular_lists, shortened
from jobs.backtest.split import micros, split_profiles
from jobs.ranking.interactions import DAY
from jobs.ranking.neighbours import Together
from schemas.campaign import Campaign
from schemas.item_models import CooccurrenceModel
from schemas.tables import EVENT_TYPES, PROFILES

UNTIL = micros(dt.datetime(2026, 3, 3, tzinfo=dt.UTC))
ITEMS, USERS = 30, 60


def campaign(**training):
    backtest = {"holdout_days": 7, "min_test_users": 10, **training.pop("backtest", {})}
    return Campaign.model_validate(
        {
            "name": "spring", "title": "Spring", "mail": {"subject": "Hi", "suppression_group": "R"},
            "exclude": {"seen_days": 0}, "training": {"backtest": backtest, **training},
        }
    )  # fmt: skip


def profiles_of(records):
    """user -> [(item, type, days ago)]; the newest first, as profiles are."""
    rows = []
    for user, found in sorted(records.items()):
        ordered = sorted(found, key=lambda record: record[2])
        rows.append(
            {
                "user_id": user,
                "item": [item for item, _, _ in ordered],
                "event_type": [EVENT_TYPES.index(kind) for _, kind, _ in ordered],
                "last_at": [UNTIL - 1 - int(ago * DAY) for _, _, ago in ordered],
                "count": [1] * len(ordered),
            }
        )
    return pa.Table.from_pylist(
        [{**row, "last_at": [dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=at)
                             for at in row["last_at"]]} for row in rows], schema=PROFILES.schema,
    )  # fmt: skip


def shop(seed=1, oldest=30):
    rng = np.random.default_rng(seed)
    return profiles_of(
        {
            f"u{user}": [
                (int(item), ("view", "purchase")[int(rng.integers(2))], float(rng.uniform(0, oldest)))
                for item in rng.choice(ITEMS, 8, replace=False)
            ]
            for user in range(USERS)
        }
    )


def split(profiles, settings=None, share=1.0):
    return split_profiles(
        lambda: [profiles.slice(0, 20), profiles.slice(20)], settings or campaign(), share=share,
        since=UNTIL - 90 * DAY, until=UNTIL, items=ITEMS,
    )  # fmt: skip


def test_by_time_what_is_learned_lies_before_the_cut_and_what_is_found_after_it():
    profiles = shop()
    found = split(profiles)
    assert found.kind == "by time"
    ages = {}
    for row in profiles.to_pylist():
        for item, at in zip(row["item"], row["last_at"], strict=True):
            ages.setdefault(item, []).append((UNTIL - 1 - micros(at)) / DAY)
    old = sum(age >= 7 for item in ages.values() for age in item)
    new = sum(age < 7 for item in ages.values() for age in item)
    assert found.learn.nnz == old > 100
    assert 0 < found.truth.nnz <= new
    assert found.truth.shape == found.history.shape == found.excluded.shape
    assert found.test_users >= 10
    assert (np.diff(found.truth.indptr) > 0).all()
    assert (np.diff(found.history.indptr) > 0).all()
    assert found.truth.multiply(found.excluded).nnz == 0


def test_what_a_user_has_is_excluded_and_not_asked_for():
    """Everybody bought item 0 a month ago and looks at it again now; nobody may be shown it, so nobody is asked."""
    records = {f"u{user}": [(0, "purchase", 30.0), (0, "view", 1.0), (user % 9 + 1, "view", 29.0),
                            (user % 5 + 10, "view", 2.0)] for user in range(USERS)}  # fmt: skip
    found = split(profiles_of(records))
    assert found.test_users == USERS
    assert found.truth.toarray()[:, 0].sum() == 0
    assert found.truth.nnz == USERS
    assert found.excluded.toarray()[:, 0].all()
    # Mutant: without the exclusion the item would have to be found by all.
    unruled = campaign().model_copy(update={"exclude": campaign().exclude.model_copy(update={"bought_days": 0})})
    assert split(profiles_of(records), unruled).truth.toarray()[:, 0].sum() == USERS


def test_where_there_are_no_times_items_are_left_out_at_random_the_same_ones_every_time():
    records = shop(oldest=0.0)  # everything happened at the end of the last day
    found, again = split(records), split(records)
    assert found.kind == "at random"
    assert found.test_users > 40
    assert 0.1 * USERS * 8 < found.truth.nnz + (USERS * 8 - found.learn.nnz - found.truth.nnz) < 0.35 * USERS * 8
    for name in ("learn", "history", "excluded", "truth"):
        assert (getattr(found, name).toarray() == getattr(again, name).toarray()).all()
    both = found.learn[: found.test_users].toarray()[: found.test_users] * 0
    assert both.sum() == 0


def test_the_sample_is_a_share_of_the_users_and_the_test_users_are_capped():
    profiles = shop()
    half = split(profiles, campaign(backtest={"min_test_users": 10}), share=0.5)
    assert 0.25 * USERS < half.learn.shape[0] < 0.75 * USERS
    assert half.learn.shape[0] < split(profiles).learn.shape[0]


def test_popular_lists_leave_out_what_is_excluded():
    found = split(shop())
    lists = popular_lists(found.learn, found.excluded, 5)
    counts = np.bincount(found.learn.indices, minlength=ITEMS)
    excluded = found.excluded.toarray() > 0
    assert excluded.any()
    for user in range(found.test_users):
        best = sorted((item for item in range(ITEMS) if not excluded[user, item] and counts[item]),
                      key=lambda item: (-counts[item], item))[:5]  # fmt: skip
        assert lists.indices[lists.indptr[user] : lists.indptr[user + 1]].tolist() == best


@pytest.mark.parametrize("seed", [1, 2])
def test_a_taste_is_found_by_correlations_and_not_by_popularity(seed):
    """By construction: each user keeps to one of three thirds of the items, before and after the cut."""
    rng = np.random.default_rng(seed)
    records = {}
    for user in range(200):
        chosen = rng.choice(10, 6, replace=False) * 3 + user % 3
        records[f"u{user}"] = [(int(item), "view", 20.0 if place < 4 else 1.0) for place, item in enumerate(chosen)]
    settings = campaign(min_records=1)
    found = split(profiles_of(records), settings)
    correlations = correlations_of(found.learn, CooccurrenceModel(), settings.training, Together.of(found.learn))
    ours, popular = measured(correlations, found), measured_popularity(found)
    assert ours.users == popular.users == 200
    assert ours.recall > 0.95
    assert ours.ndcg > 1.5 * popular.ndcg
    assert measured(shortened(correlations, 1), found).recall < ours.recall
