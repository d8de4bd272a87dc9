"""What is in demand, against sums that are written out user by user."""

import collections
import math

import numpy as np
import pyarrow as pa
import pytest

from jobs.profiles.fold import Caps, fold
from jobs.ranking.trending import EVERYTHING, demand_of_profiles, trending_lists
from schemas.cold_start import TrendingSettings
from schemas.tables import EVENT_TYPES, EVENTS

DAY = 86_400_000_000
NOW = 20_000 * DAY
ITEMS = 30
SETTINGS = TrendingSettings(half_life_days=5, max_age_days=40, list_items=10)
CATEGORIES = ["A > X", "A > Y", "B", None, "A"]


def random_events(seed, users=40, events=600):
    random = np.random.default_rng(seed)
    return [
        (
            f"u{random.integers(users)}", int(random.integers(ITEMS)), EVENT_TYPES[random.integers(len(EVENT_TYPES))],
            NOW - 1 - int(random.integers(60 * DAY)),
        )
        for _ in range(events)
    ]  # fmt: skip


def profiles_of(events):
    index = pa.array([f"{n}" for n in range(ITEMS)])
    rows = pa.table(
        {
            "user_id": [user for user, *_ in events], "item_id": [f"{item}" for _, item, *_ in events],
            "event_type": [kind for _, _, kind, _ in events],
            "occurred_at": pa.array([at for *_, at in events], pa.timestamp("us", tz="UTC")),
            "quantity": pa.array([1] * len(events), pa.int32()),
            "price": pa.nulls(len(events), EVENTS.schema.field("price").type),
        },
        schema=EVENTS.schema,
    )  # fmt: skip
    return fold(None, rows, index, caps=Caps(views=1000, states=1000), mailed=[])


def oracle(events):
    """Millionths of demand by item: each user once per item and kind, by the last time."""
    last = {}
    for user, item, kind, at in events:
        last[user, item, kind] = max(at, last.get((user, item, kind), at))
    demand = collections.Counter()
    for (_, item, kind), at in last.items():
        age, weight = (NOW - at) / DAY, SETTINGS.weights.get(kind, 0)
        if weight and age <= SETTINGS.max_age_days:
            demand[item] += round(weight * math.pow(2, -age / SETTINGS.half_life_days) * 1e6)
    return demand


@pytest.mark.parametrize("seed", range(10))
def test_demand_is_the_sum_of_what_each_user_showed(seed):
    events = random_events(seed)
    wanted = oracle(events)
    found = demand_of_profiles(profiles_of(events), SETTINGS, now=NOW, items=ITEMS)
    assert sum(wanted.values()) > 1e6
    assert found.tolist() == [wanted[item] for item in range(ITEMS)]


def test_demand_is_the_same_however_users_are_spread():
    events = random_events(3)
    whole = demand_of_profiles(profiles_of(events), SETTINGS, now=NOW, items=ITEMS)
    parts = [[event for event in events if int(event[0][1:]) % 4 == part] for part in range(4)]
    spread = sum(demand_of_profiles(profiles_of(part), SETTINGS, now=NOW, items=ITEMS) for part in reversed(parts))
    assert whole.tolist() == spread.tolist()


def test_nobody_makes_an_item_trend_alone():
    often = [("u1", 1, "view", NOW - 1 - n) for n in range(500)]
    two = [("u2", 2, "view", NOW - 1), ("u3", 2, "view", NOW - 1)]
    found = demand_of_profiles(profiles_of(often + two), SETTINGS, now=NOW, items=ITEMS)
    assert found[2] == 2 * found[1] > 0


def test_the_old_fades_and_then_goes():
    at = [NOW - 1, NOW - 5 * DAY, NOW - 10 * DAY, NOW - 41 * DAY, NOW + DAY]
    found = demand_of_profiles(
        profiles_of([(f"u{n}", n, "view", t) for n, t in enumerate(at)]), SETTINGS, now=NOW, items=ITEMS
    )
    assert found[:5].tolist() == [1_000_000, 500_000, 250_000, 0, 0]


@pytest.mark.parametrize("seed", range(10))
def test_lists_are_those_of_every_level_and_of_all(seed):
    random = np.random.default_rng(seed)
    demand = random.choice([0, 5_000_000, 7_000_000, 9_123_456], ITEMS)
    item = random.permutation(ITEMS)[: ITEMS - 4].astype(np.int64)  # four items are not in the catalog
    category = [CATEGORIES[n % len(CATEGORIES)] for n in range(len(item))]
    found = trending_lists(demand, item, pa.chunked_array([category[:5], category[5:]]), depth=6)

    wanted = collections.defaultdict(list)
    for i, path in zip(item.tolist(), category, strict=True):
        if demand[i] > 0:
            wanted[EVERYTHING].append(i)
            for level in range(1, len(path.split(" > ")) + 1) if path else ():
                wanted[" > ".join(path.split(" > ")[:level])].append(i)
    wanted = {key: sorted(items, key=lambda i: (-demand[i], i))[:6] for key, items in wanted.items()}
    assert set(wanted) == {"", "A", "A > X", "A > Y", "B"}
    assert found["key"].to_pylist() == sorted(wanted)
    assert dict(zip(found["key"].to_pylist(), found["item"].to_pylist(), strict=True)) == wanted
    for items, scores in zip(found["item"].to_pylist(), found["score"].to_pylist(), strict=True):
        np.testing.assert_allclose(scores, demand[items] / 1e6, rtol=1e-6)


def test_without_demand_there_are_no_lists():
    found = trending_lists(np.zeros(ITEMS, np.int64), np.arange(5), pa.chunked_array([["A"] * 5]), depth=6)
    assert len(found) == 0
