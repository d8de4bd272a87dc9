"""What a user has, by rule and with the event that says so, against a replay of the events in their order."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fold import START, fold_all, mail, users

from jobs.profiles.mails import mails_of_profiles
from jobs.profiles.pairs import pairs_of_profiles
from jobs.ranking.rules import exclusions
from schemas.ranking_rules import ExcludeSettings
from schemas.tables import EVENT_TYPES

NOW_HOUR = 24 * 20
NOW = int((START + dt.timedelta(hours=NOW_HOUR)).timestamp()) * 1_000_000

event = st.tuples(users, st.integers(0, 2), st.sampled_from(EVENT_TYPES), st.integers(0, NOW_HOUR - 1))


def replay(events):
    """(user, item) -> rule -> the hour of the event that counts, of what each user has in the end."""
    state = {}
    for hour in sorted({e[3] for e in events}):
        now = [e for e in events if e[3] == hour]
        for user, item in {e[:2] for e in now}:
            kinds = [e[2] for e in now if e[:2] == (user, item)]
            has = state.setdefault((user, item), {"owned": 0})
            # What happens at one instant counts together, and where that leaves it open, the item is kept out.
            has["owned"] = max(0, has["owned"] + kinds.count("purchase") - kinds.count("refund"))
            if "purchase" in kinds:
                has["bought"] = hour
            if "view" in kinds:
                has["seen"] = hour
            for rule, add, undone in (
                ("wishlisted", "wishlist_add", {"wishlist_remove"}),
                ("in_cart", "cart_add", {"cart_remove", "purchase"}),
            ):
                if add in kinds:
                    has[rule] = hour
                elif undone & set(kinds):
                    has.pop(rule, None)
    for has in state.values():
        if not has.pop("owned"):
            has.pop("bought", None)
    return state


def found_by(profiles, rules):
    """(user, item) -> rule -> hour, as the rules say it."""
    pairs, mails = pairs_of_profiles(profiles), mails_of_profiles(profiles, np.arange(len(profiles)))
    found = {}
    for rule in exclusions(pairs, mails, rules, NOW):
        for user, item, at in zip(rule.user, rule.item, rule.at, strict=True):
            hour = (at - START.timestamp() * 1e6) / 3.6e9
            found.setdefault((profiles["user_id"][int(user)].as_py(), int(item)), {})[rule.name] = hour
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(event, min_size=1, max_size=60), st.integers(1, 20), st.randoms())
def test_states_equal_a_replay_in_event_time_order_however_late_the_events_came(events, days, rnd):
    order = events[:]
    rnd.shuffle(order)
    rules = ExcludeSettings(bought_days="for_ever", in_cart_days=days, wishlisted_days=days, seen_days=days)
    got = found_by(fold_all([(order[::2], []), (order[1::2], [])]), rules)
    expected = {}
    for pair, has in replay(events).items():
        recent = {rule: hour for rule, hour in has.items() if rule == "bought" or hour >= NOW_HOUR - 24 * days}
        if recent:
            expected[pair] = recent
    assert got == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(mail, min_size=1, max_size=40, unique=True), st.integers(1, 62), st.integers(1, 3))
def test_mailed_counts_the_dates_within_reach(mails, days, times):
    rules = ExcludeSettings(seen_days=0, mailed_days=days, mailed_times=times)
    mails = [(user, item, day % 19) for user, item, day in mails]
    got = found_by(fold_all([([], mails)]), rules)
    on = {}
    for user, item, day in mails:
        on.setdefault((user, item), set()).add(day)
    today = NOW_HOUR // 24 - 1
    expected = {pair: days_on for pair, days_on in on.items() if sum(d >= today - days for d in days_on) >= times}
    assert got == {pair: {"mailed": 24 * max(days_on)} for pair, days_on in expected.items()}


@pytest.mark.parametrize(
    ("events", "bought"),
    [
        (["purchase"], True),
        (["purchase", "refund"], False),
        (["purchase", "refund", "purchase"], True),
        (["purchase", "purchase", "refund"], True),
        (["purchase", "purchase", "refund", "refund"], False),
        (["refund", "purchase"], True),  # of a purchase that was never seen; it does not undo the next one
        (["refund", "refund", "purchase", "refund"], False),
    ],
)
def test_a_refund_undoes_the_purchase_before_it(events, bought):
    rows = [("u", 1, kind, hour) for hour, kind in enumerate(events)]
    for days in ([rows], [rows[1:], rows[:1]]):
        profiles = fold_all([(some, []) for some in days])
        assert pairs_of_profiles(profiles).is_bought().tolist() == [bought]


@settings(max_examples=100, deadline=None)
@given(st.lists(event, min_size=1, max_size=40), st.integers(1, 4), st.sampled_from([0.01, 1.0, 30.0]))
def test_the_newest_pairs_are_weighed_as_all_of_them_are(events, limit, half_life_days):
    profiles = fold_all([(events, [])])
    weights = np.where(np.arange(len(EVENT_TYPES)) % 2 == 0, 1.5, 0.0)
    pairs = pairs_of_profiles(profiles)
    every = pairs.interest(weights, half_life_days, NOW)
    expected = pairs.newest(every > 0, limit, weights)

    found, kept = pairs.newest_interest(limit, weights, half_life_days, NOW)

    assert (kept == expected).all()
    assert found[kept].tolist() == every[kept].tolist()
