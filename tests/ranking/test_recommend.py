"""Recommendations against a plain Python oracle: item by item, every rule in play, ties included."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_shops import random_settings, random_shop
from shop_oracle import NOW, recommend_to

from jobs.ranking.recommend import recommend
from jobs.ranking.user_batch import UserBatch
from schemas.tables import RECOMMENDATION_SOURCES, RECOMMENDATIONS


def check_one_shop(seed, counted):
    rnd = random.Random(seed)
    shop, rules = random_shop(rnd), random_settings(rnd)
    got = recommend(shop.batch(rules), shop.shared(rules), rules, shop.feature_groups())
    assert got.schema.equals(RECOMMENDATIONS.schema)
    assert got["user_id"].to_pylist() == shop.users
    for row in got.to_pylist():
        expected, has_history = recommend_to(shop, row["user_id"], rules)
        enough = len(expected) >= rules.min_items
        wanted = expected if enough else []
        sources = [RECOMMENDATION_SOURCES[code] for code in row["source"]]
        assert list(zip(row["item"], sources, strict=True)) == [(i, source) for i, _, source in wanted], (seed, row)
        assert np.allclose(row["score"], [score for _, score, _ in wanted], rtol=1e-5, atol=0)
        assert row["outcome"] == ("recommended" if enough else "too_few" if has_history else "no_history")
        counted.update(sources)
        counted["ties"] += len({score for _, score, _ in wanted}) < len(wanted)
        counted["lists"] += enough
    counted["shops"] += 1


def check_counted(counted, shops):
    """The shops were rich enough to show something."""
    assert counted["shops"] >= shops
    assert counted["lists"] > shops / 2
    assert counted["ties"] > shops / 10
    # The quota of new items has tests of its own; wishlists are a campaign in eight, most of whose lists are empty.
    for source in set(RECOMMENDATION_SOURCES) - {"exposure"}:
        assert counted[source] > shops / 80, (source, counted)


def test_lists_of_random_shops_equal_the_oracles():
    counted = Counter()

    @settings(max_examples=400, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        check_one_shop(seed, counted)

    check()
    check_counted(counted, 400)


def test_lists_do_not_depend_on_the_batches_of_users():
    several = 0
    for seed in range(40):
        rnd = random.Random(seed)
        shop, rules = random_shop(rnd), random_settings(rnd)
        profiles, shared, groups = shop.profiles(), shop.shared(rules), shop.feature_groups()
        whole = recommend(shop.batch(rules), shared, rules, groups)
        parts = [
            recommend(
                UserBatch.of(profiles.slice(row, 2), rules, shop.items, NOW), shared, rules, groups[row : row + 2]
            )
            for row in range(0, len(profiles), 2)
        ]
        assert pa.concat_tables(parts).equals(whole)
        several += len(parts) > 1
    assert several > 10


@pytest.mark.scoreboard
def test_lists_of_2000_random_shops_equal_the_oracles(scoreboard):
    counted = Counter()

    @settings(max_examples=2_000, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        check_one_shop(seed, counted)

    check()
    check_counted(counted, 2_000)
    scoreboard.add("recommendations: random shops whose lists equal the oracle's", f"{counted['shops']:,} of 2,000")
