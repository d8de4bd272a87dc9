"""Folding: any split of the days, in any order, gives the same profiles; late events change their own user alone."""

import datetime as dt
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.profiles import fold as fold_module
from jobs.profiles import mails as mails_module
from jobs.profiles.fold import Caps, MailedLists, fold
from jobs.profiles.mails import LATE_DAYS, mails_of_profiles
from jobs.profiles.records import Records
from schemas.ranking_rules import MAILED_WINDOW_DAYS
from schemas.tables import EVENT_TYPES, EVENTS, PROFILES

ITEMS = 12
INDEX = pa.array([f"{n:03d}" for n in range(ITEMS)])
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FIRST_DAY = (START.date() - dt.date(1970, 1, 1)).days
ROOMY = Caps(views=100, states=100)

users = st.sampled_from(["u", "007", "7", "ü "])
event = st.tuples(
    users,
    st.integers(0, ITEMS - 1),
    st.sampled_from([*EVENT_TYPES, "view", "purchase"]),
    st.integers(0, 60),  # hours after START, so that equal instants happen
)
mail = st.tuples(users, st.integers(0, ITEMS - 1), st.integers(0, 100))  # days after START


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


def mailed_lists(mails):
    """One part per day that has any; each has someone who was mailed nothing."""
    parts = []
    for day in sorted({day for _, _, day in mails}):
        lists = {"nobody": []}
        for user, item, on in mails:
            if on == day:
                lists.setdefault(user, []).append(item)
        items = pa.array(list(lists.values()), pa.list_(pa.int32()))
        parts.append(MailedLists(FIRST_DAY + day, pa.table({"user_id": pa.array(list(lists)), "item": items})))
    return parts


def fold_all(days, caps=ROOMY):
    """Fold days of (events, mails), one after the other."""
    profiles = None
    for events, mails in days:
        profiles = fold(profiles, events_table(events), INDEX, caps=caps, mailed=mailed_lists(mails))
    return profiles


@settings(max_examples=100, deadline=None)
@given(
    st.lists(event, min_size=1, max_size=80),
    st.lists(mail, max_size=40, unique=True),
    st.integers(1, 6),
    st.builds(Caps, views=st.integers(1, 5), states=st.integers(1, 8)),
    st.randoms(),
)
def test_folding_in_any_split_and_order_equals_folding_at_once(events, mails, days, caps, rnd):
    at_once = fold_all([(events, mails)], caps)
    assert at_once.schema.equals(PROFILES.schema)
    events, mails = events[:], mails[:]
    rnd.shuffle(events)
    # Mails come at most LATE_DAYS late.
    mails.sort(key=lambda row: row[2] + rnd.randint(0, LATE_DAYS))
    size = -(-len(mails) // days)
    split = [(events[part::days], mails[part * size : (part + 1) * size]) for part in range(days)]
    assert fold_all(split, caps).equals(at_once)


def ninety_days(seed=5):
    """Per day its events, a tenth of which come up to a week late, and the mails of the day before."""
    rnd = random.Random(seed)
    people = [f"user-{n:02d}" for n in range(40)]
    days = [([], []) for _ in range(90)]
    for day in range(90):
        for _ in range(rnd.randint(20, 80)):
            late = rnd.randint(1, 7) if rnd.random() < 0.1 else 0
            row = (rnd.choice(people), rnd.randrange(ITEMS), rnd.choice(EVENT_TYPES), 24 * day + rnd.randrange(24))
            # Some things happen twice at one instant, and are told on two days.
            for again in range(1 + (rnd.random() < 0.2)):
                days[min(89, day + late + again)][0].append(row)
        for user in rnd.sample(people, 10):
            for item in rnd.sample(range(ITEMS), 3):
                days[min(89, day + 1)][1].append((user, item, day))
    return days


@pytest.mark.parametrize("caps", [ROOMY, Caps(views=4, states=9)])
def test_ninety_days_one_by_one_equal_ninety_days_at_once(caps):
    days = ninety_days()
    at_once = fold_all([([e for events, _ in days for e in events], [m for _, mails in days for m in mails])], caps)
    assert len(at_once) == 40
    assert fold_all(days, caps).equals(at_once)


def test_what_is_folded_twice_changes_nothing_where_it_is_a_mail():
    mails = [("u", 1, 3), ("u", 2, 3), ("7", 1, 4)]
    once = fold_all([([("u", 1, "view", 1)], mails)])
    assert fold(once, events_table([]), INDEX, caps=ROOMY, mailed=mailed_lists(mails)).equals(once)
    assert [len(items) for items in once["mailed_item"].to_pylist()] == [1, 2]


@settings(max_examples=100, deadline=None)
@given(st.lists(event, min_size=1, max_size=60), st.lists(event, min_size=1, max_size=3))
def test_late_events_change_their_own_users_and_nothing_else(on_time, late):
    before = fold_all([(on_time, [("u", 1, 5), ("7", 2, 5)])])
    after = fold_all([(on_time, [("u", 1, 5), ("7", 2, 5)]), (late, [])])
    concerned = {user for user, *_ in late}
    rows = {row["user_id"]: row for row in before.to_pylist()}
    for row in after.to_pylist():
        if row["user_id"] not in concerned:
            assert row == rows[row["user_id"]]
        elif row["user_id"] in rows:
            assert row["mailed_item"] == rows[row["user_id"]]["mailed_item"]
    assert set(after["user_id"].to_pylist()) == set(rows) | concerned
    assert after.equals(fold_all([(late + on_time, [("u", 1, 5), ("7", 2, 5)])]))


@settings(max_examples=100, deadline=None)
@given(st.lists(mail, min_size=1, max_size=60, unique=True), st.integers(0, 101), st.integers(0, MAILED_WINDOW_DAYS))
def test_how_often_something_was_mailed_equals_a_set_of_days(mails, day, days):
    mails.sort(key=lambda row: row[2])
    profiles = fold_all([([], mails[: len(mails) // 2]), ([], mails[len(mails) // 2 :])])
    found = mails_of_profiles(profiles, np.arange(len(profiles)))
    times = found.times_within(FIRST_DAY + day, days)
    newest = {name: max(d for who, _, d in mails if who == name) for name, _, _ in mails}
    kept = {(who, what) for who, what, d in mails if d >= newest[who] - MAILED_WINDOW_DAYS - LATE_DAYS}
    assert len(times) == len(kept)
    for user, item, last_on, count in zip(found.user, found.item, found.last_on, times, strict=True):
        name = profiles["user_id"][int(user)].as_py()
        on = {d for who, what, d in mails if (who, what) == (name, item)}
        assert last_on == FIRST_DAY + max(on)
        # What lies further than the window before the last date is forgotten.
        assert count == sum(d >= day - days and d >= max(on) - MAILED_WINDOW_DAYS for d in on)


def test_caps_keep_the_newest_views_and_never_cost_a_purchase():
    rows = [("u", n % 6, "view", n) for n in range(6)] + [("u", n, "purchase", 0) for n in range(3)]
    random.Random(1).shuffle(rows)
    profile = fold_all([(rows, [])], Caps(views=2, states=100)).to_pylist()[0]
    kinds = [EVENT_TYPES[code] for code in profile["event_type"]]
    assert kinds.count("view") == 2
    assert kinds.count("purchase") == 3
    assert profile["item"][:2] == [5, 4]


def test_an_item_outside_the_index_is_refused():
    from schemas.errors import StorageError

    events = events_table([("u", 1, "view", 1)]).set_column(1, "item_id", pa.array(["unknown"]))
    with pytest.raises(StorageError, match="run index_items"):
        fold(None, events, INDEX, caps=ROOMY, mailed=[])


# ---- planted bugs: each is caught by the ninety days


def latest_day_only(records, real=fold_module.merge):
    """Counts are not added up."""
    merged = real(records)
    return Records(merged.user, merged.item, merged.event_type, merged.last_at, np.ones_like(merged.count))


def first_instead_of_last(records, real=fold_module.merge):
    """Of repeated views the first instant stays."""
    turned = Records(records.user, records.item, records.event_type, -records.last_at, records.count)
    merged = real(turned)
    return Records(merged.user, merged.item, merged.event_type, -merged.last_at, merged.count)


def purchases_by_last_instant(records, real=fold_module.merge):
    """Purchases are kept like views: the last one alone, with the count of all."""
    merged = real(records)
    key = (merged.user << 34) | (merged.item << 3) | merged.event_type
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    last = np.append(first[1:], len(key)) - 1
    counts = np.add.reduceat(merged.count, first)
    kept = merged.take(last)
    return Records(kept.user, kept.item, kept.event_type, kept.last_at, counts)


def newest_mail_only(mails, real=mails_module.merge):
    """The days before the last mail are forgotten."""
    merged = real(mails)
    return mails_module.Mails(merged.user, merged.item, merged.last_on, np.ones_like(merged.days))


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        (fold_module, latest_day_only),
        (fold_module, first_instead_of_last),
        (fold_module, purchases_by_last_instant),
        (mails_module, newest_mail_only),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fold_that_forgets_is_caught(monkeypatch, module, planted):
    days, caps = ninety_days(), Caps(views=4, states=9)
    right = fold_all(days, caps)
    monkeypatch.setattr(module, "merge", planted)
    assert not fold_all(days, caps).equals(right)
