"""Folding: any split of the days gives the same profiles, and the derived states are what a plain replay gives."""

import datetime as dt
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.profiles.fold import fold
from jobs.profiles.pairs import pairs_of_profiles
from schemas.ranking_rules import ExcludeSettings
from schemas.tables import EVENT_TYPES, EVENTS, PROFILES

INDEX = pa.array([f"{n:03d}" for n in range(6)])
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

event = st.tuples(
    st.sampled_from(["u", "007", "7", "ü "]),
    st.integers(0, 5),
    st.sampled_from(EVENT_TYPES),
    st.integers(0, 400),  # hours after START, so that equal instants happen
)


def events_table(rows):
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    return pa.table(
        {
            "user_id": pa.array(columns[0], pa.string()),
            "item_id": INDEX.take(pa.array(columns[1], pa.int64())),
            "event_type": pa.array(columns[2], pa.string()),
            "occurred_at": pa.array([START + dt.timedelta(hours=h) for h in columns[3]], EVENTS.schema.field(3).type),
        }
    )


def fold_all(days, cap=100, state_cap=100):
    profiles = None
    for rows in days:
        profiles = fold(profiles, events_table(rows), INDEX, cap=cap, state_cap=state_cap)
    return profiles


@settings(max_examples=200, deadline=None)
@given(st.lists(event, min_size=1, max_size=60), st.integers(1, 6), st.integers(2, 5), st.randoms())
def test_folding_in_any_split_and_order_equals_folding_at_once(rows, days, cap, rnd):
    at_once = fold_all([rows], cap=cap)
    shuffled = rows[:]
    rnd.shuffle(shuffled)
    split = [shuffled[i::days] for i in range(days)]
    assert fold_all(split, cap=cap).equals(at_once)
    assert at_once.schema.equals(PROFILES.schema)


def test_a_fold_that_keeps_the_newest_count_instead_of_the_sum_is_caught(monkeypatch):
    """Planted bug: counts are not added up, so a purchase and a refund on different days no longer balance."""
    import jobs.profiles.fold as module

    real = module.merge
    rows = [("u", 1, "purchase", 1), ("u", 1, "purchase", 2)]
    assert fold_all([rows]).equals(fold_all([rows[:1], rows[1:]]))

    def counts_lost(records):
        merged = real(records)
        return module.Records(merged.user, merged.item, merged.event_type, merged.last_at, np.ones_like(merged.count))

    monkeypatch.setattr(module, "merge", counts_lost)
    assert fold_all([rows])["count"].to_pylist() == [[1]]
    monkeypatch.undo()
    assert fold_all([rows])["count"].to_pylist() == [[2]]


def replay(rows):
    """The states by walking through the events, the way a shop does."""
    bought, wish, cart, seen = {}, {}, {}, {}
    for user, item, kind, hour in rows:
        key = (user, item)
        if kind in ("purchase", "refund"):
            net, last = bought.get(key, (0, -1))
            bought[key] = (net + (1 if kind == "purchase" else -1), max(last, hour) if kind == "purchase" else last)
        if kind == "view":
            seen[key] = max(seen.get(key, -1), hour)
        for state, add, removes in (
            (wish, "wishlist_add", ("wishlist_remove",)),
            (cart, "cart_add", ("cart_remove", "purchase")),
        ):
            added, removed = state.get(key, (-1, -1))
            if kind == add:
                added = max(added, hour)
            if kind in removes:
                removed = max(removed, hour)
            state[key] = (added, removed)
    return bought, wish, cart, seen


@settings(max_examples=200, deadline=None)
@given(st.lists(event, min_size=1, max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_exclusions_equal_a_replay(rows, seen_days, bought_days):
    profiles = fold_all([rows])
    pairs = pairs_of_profiles(profiles)
    now_hour = 401
    now = int((START + dt.timedelta(hours=now_hour)).timestamp()) * 1_000_000
    rules = ExcludeSettings(bought_days=bought_days, wishlisted_days=5, in_cart_days=0, seen_days=seen_days)
    excluded = pairs.is_excluded(rules, now)
    got = {
        (profiles["user_id"][int(user)].as_py(), int(item))
        for user, item, is_out in zip(pairs.user, pairs.item, excluded, strict=True)
        if is_out
    }
    bought, wish, _, seen = replay(rows)
    recent = lambda hour, days: days > 0 and hour >= now_hour - 24 * days  # noqa: E731
    expected = {key for key, (net, last) in bought.items() if net > 0 and recent(last, bought_days)}
    expected |= {key for key, (add, remove) in wish.items() if add >= 0 and add >= remove and recent(add, 5)}
    expected |= {key for key, hour in seen.items() if recent(hour, seen_days)}
    assert got == expected


def test_caps_keep_the_newest_views_and_never_cost_a_purchase():
    rows = [("u", n % 6, "view", n) for n in range(6)] + [("u", n, "purchase", 0) for n in range(3)]
    random.Random(1).shuffle(rows)
    profile = fold_all([rows], cap=2).to_pylist()[0]
    kinds = [EVENT_TYPES[code] for code in profile["event_type"]]
    assert kinds.count("view") == 2
    assert kinds.count("purchase") == 3
    assert profile["item"][:2] == [5, 4]


def test_an_item_outside_the_index_is_refused():
    from schemas.errors import StorageError

    events = events_table([("u", 1, "view", 1)]).set_column(1, "item_id", pa.array(["unknown"]))
    with pytest.raises(StorageError, match="run index_items"):
        fold(None, events, INDEX, cap=5, state_cap=5)
