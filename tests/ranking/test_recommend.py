"""Recommendations against a plain Python oracle, and correlations against hand-computed cosines."""

import datetime as dt
import math

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.profiles.fold import fold
from jobs.ranking.cooccurrence import correlate_block, normalised
from jobs.ranking.recommend import correlation_matrix, recommend
from schemas.ranking_rules import ExcludeSettings
from schemas.tables import CORRELATIONS, EVENT_TYPES, EVENTS, RECOMMENDATIONS

ITEMS = 12
INDEX = pa.array([f"item-{n:02d}" for n in range(ITEMS)])
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW_HOUR = 200
NOW = int((START + dt.timedelta(hours=NOW_HOUR)).timestamp()) * 1_000_000
WEIGHTS = dict(zip(EVENT_TYPES, [1.0, 2.0, 0.0, 2.0, 0.0, 3.0, 0.0], strict=True))
EXCLUDE = ExcludeSettings(bought_days=366, wishlisted_days=366, in_cart_days=366, seen_days=3)


def profiles_of(rows):
    users, items, kinds, hours = zip(*rows, strict=True)
    events = pa.table(
        {
            "user_id": pa.array(users),
            "item_id": INDEX.take(pa.array(items)),
            "event_type": pa.array(kinds),
            "occurred_at": pa.array([START + dt.timedelta(hours=h) for h in hours], EVENTS.schema.field(3).type),
        }
    )
    return fold(None, events, INDEX, cap=100, state_cap=100)


def correlations_of(scores):
    """One list per item that has any, best first."""
    by_item = {}
    for (item, other), score in scores.items():
        by_item.setdefault(item, []).append((-score, other))
    rows = [
        {
            "item": i,
            "other_item": [o for _, o in sorted(v)],
            "score": [-s for s, _ in sorted(v)],
            "support": [2] * len(v),
        }
        for i, v in sorted(by_item.items())
    ]
    return pa.Table.from_pylist(rows, schema=CORRELATIONS.schema)


def oracle(rows, scores, eligible, *, slots, min_items, history_items, half_life_days):
    """The same recommendations, one user and one item at a time."""
    answers = {}
    for user in sorted({row[0] for row in rows}, key=str.encode):
        last, count = {}, {}
        for who, item, kind, hour in rows:
            if who == user:
                last[item, kind] = max(last.get((item, kind), -1), hour)
                count[item, kind] = count.get((item, kind), 0) + 1
        items = {item for item, _ in last}
        bought = {i for i in items if count.get((i, "purchase"), 0) > count.get((i, "refund"), 0)}

        def at(item, kind, last=last):
            return last.get((item, kind), -1)

        out = set(bought)
        out |= {i for i in items if at(i, "wishlist_add") >= max(0, at(i, "wishlist_remove"))}
        out |= {i for i in items if at(i, "cart_add") >= max(0, at(i, "cart_remove"), at(i, "purchase"))}
        out |= {i for i in items if at(i, "view") >= NOW_HOUR - 72}
        weight, newest = {}, {}
        for (item, kind), hour in last.items():
            if WEIGHTS[kind] and (kind != "purchase" or item in bought):
                decay = 0.5 ** ((NOW_HOUR - hour) / 24 / half_life_days)
                weight[item] = weight.get(item, 0.0) + WEIGHTS[kind] * decay
        for item in weight:
            newest[item] = max(hour for (i, kind), hour in last.items() if i == item and WEIGHTS[kind])
        recent = sorted(weight, key=lambda i: (-newest[i], i))[:history_items]
        total = {}
        for item in recent:
            for (a, b), score in scores.items():
                if a == item and b in eligible and b not in out:
                    total[b] = total.get(b, 0.0) + weight[item] * score
        best = sorted(total, key=lambda i: (-total[i], i))[:slots]
        answers[user] = [(i, total[i]) for i in best] if len(best) >= min_items else []
    return answers


score = st.floats(0.125, 1.0, width=32)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob", "Bob", "007"]),
            st.integers(0, ITEMS - 1),
            st.sampled_from(EVENT_TYPES),
            st.integers(0, NOW_HOUR - 1),
        ),
        min_size=1,
        max_size=50,
    ),
    scores=st.dictionaries(
        st.tuples(st.integers(0, ITEMS - 1), st.integers(0, ITEMS - 1)).filter(lambda p: p[0] != p[1]),
        score,
        min_size=1,
    ),
    eligible=st.sets(st.integers(0, ITEMS - 1)),
    slots=st.integers(1, 5),
    history_items=st.integers(1, 4),
)
def test_lists_equal_a_plain_oracle(rows, scores, eligible, slots, history_items):
    chosen = {"slots": slots, "min_items": min(2, slots), "history_items": history_items, "half_life_days": 5.0}
    mask = np.array([i in eligible for i in range(ITEMS)])
    got = recommend(
        profiles_of(rows),
        correlation_matrix(correlations_of(scores), mask),
        weights=list(WEIGHTS.values()),
        exclude=EXCLUDE,
        now=NOW,
        **chosen,
    )
    assert got.schema.equals(RECOMMENDATIONS.schema)
    expected = oracle(rows, scores, eligible, **chosen)
    assert got["user_id"].to_pylist() == list(expected)
    for row in got.to_pylist():
        want = expected[row["user_id"]]
        # Scores equal to the last bit of a float32 may swap places; compare as sets of items with close scores.
        assert len(row["item"]) == len(want)
        assert np.allclose(sorted(row["score"]), sorted(s for _, s in want), rtol=1e-5)
        if len({round(s, 4) for _, s in want}) == len(want) == slots or len(want) < slots:
            assert set(row["item"]) == {i for i, _ in want}
        assert (row["outcome"] == "recommended") == bool(want)


def cosine(a, b):
    return len(a & b) / math.sqrt(len(a) * len(b))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), max_size=9), min_size=1, max_size=25), st.integers(1, 4), st.integers(1, 3))
def test_correlations_are_cosines_of_the_user_sets(baskets, top, min_support):
    rows = [(u, i) for u, basket in enumerate(baskets) for i in sorted(basket)]
    matrix = sparse.csr_array(
        (np.ones(len(rows), np.float32), ([u for u, _ in rows], [i for _, i in rows])), shape=(len(baskets), 9)
    )
    users = [{u for u, basket in enumerate(baskets) if i in basket} for i in range(9)]
    by_users = normalised(matrix)
    got = correlate_block(by_users.T.tocsr(), by_users, 0, top=top, min_support=min_support).to_pylist()
    # The rows are cut to three times `top` before support is looked at; 9 items fit into that from top 3 on.
    for item in range(9):
        others = {o: cosine(users[item], users[o]) for o in range(9) if o != item and users[item] & users[o]}
        supported = {o: s for o, s in others.items() if len(users[item] & users[o]) >= min_support}
        row = next((r for r in got if r["item"] == item), None)
        if row is None:
            assert not supported or top < 3
            continue
        assert item not in row["other_item"]
        for other, value, support in zip(row["other_item"], row["score"], row["support"], strict=True):
            assert support == len(users[item] & users[other])
            assert math.isclose(value, others[other], rel_tol=1e-5)
        if top >= 3:
            best = sorted(supported.values(), reverse=True)[:top]
            assert np.allclose(row["score"], best, rtol=1e-5)
