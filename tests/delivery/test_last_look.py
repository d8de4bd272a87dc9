"""The last look against a plain oracle: what users did since the build, and the catalog as it is now."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery.chunk_push import LAG
from jobs.delivery.last_look import LastLook
from jobs.lake.item_index import to_items
from jobs.pull_recent_events import recent_window
from jobs.reconcile_push import exclusion_lag
from schemas.campaign import MailSettings
from schemas.errors import ConfigError
from schemas.ranking_rules import CatalogSettings, ExcludeSettings, RankingSettings, TwinSettings
from schemas.tables import CATALOG, EVENT_TYPES, EVENTS

BUILT_AT = dt.datetime(2026, 11, 3, tzinfo=dt.UTC)
UNTIL = BUILT_AT + dt.timedelta(hours=8)
USERS = ["7", "007", "ann"]
ITEMS = 6
INDEX = pa.array([f"item-{number}" for number in range(ITEMS)])


def catalog(**changes):
    rows = [
        {
            "item_id": f"item-{number}", "title": "t", "url": "u", "image_url": "i", "price": Decimal(10 + number),
            "currency": "EUR", "stock": 1, "properties": [("model", "a" if number < 2 else f"m{number}")],
        }
        | changes.get(f"item_{number}", {})
        for number in range(ITEMS)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=CATALOG.schema)


def events(done):
    rows = [
        {
            "user_id": user, "item_id": item, "event_type": kind, "quantity": 1,
            "occurred_at": BUILT_AT + dt.timedelta(minutes=minute),
        }
        for user, item, kind, minute in done
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=EVENTS.schema)


# Every user's list holds every item: what is left of it is what the look lets through.
LISTED = [(user, item) for user in range(len(USERS)) for item in range(ITEMS)]


def left(done, rules=None, catalog_now=None):
    look = LastLook(rules or RankingSettings(), None if done is None else events(done), UNTIL)
    user, item = (np.array(column) for column in zip(*LISTED, strict=True))
    goods = catalog() if catalog_now is None else catalog_now
    place = to_items(INDEX, goods["item_id"]).to_numpy()
    fits = look.still_fits(user, item, user_ids=pa.array(USERS), catalog=goods, place=place, index=INDEX)
    return {(USERS[u], f"item-{i}") for (u, i), fit in zip(LISTED, fits, strict=True) if fit}


EVERYTHING = left(None)


def rules_out(done, user, item):
    """The oracle: one user and item, their events one after the other, those of an instant together."""
    own = sorted((minute, kind) for who, what, kind, minute in done if (who, what) == (user, item))
    owned, last = 0, {}
    for minute in sorted({minute for minute, _ in own}):
        kinds = [kind for at, kind in own if at == minute]
        owned = max(0, owned + kinds.count("purchase") - kinds.count("refund"))
        last |= dict.fromkeys(kinds, minute)
    in_cart = last.get("cart_add", -1) >= max(last.get("cart_remove", 0), last.get("purchase", 0))
    wished = last.get("wishlist_add", -1) >= last.get("wishlist_remove", 0)
    return owned > 0 or in_cart or wished or "view" in last


done_since = st.lists(
    st.tuples(
        st.sampled_from([*USERS, "somebody else"]),
        st.sampled_from([*INDEX.to_pylist(), "new, in no index"]),
        st.sampled_from(EVENT_TYPES),
        st.integers(0, 20),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(done_since)
def test_what_was_done_since_the_build_rules_out_what_the_campaign_says(done):
    assert len(EVERYTHING) == len(LISTED)
    assert left(done) == {pair for pair in EVERYTHING if not rules_out(done, *pair)}


@pytest.mark.parametrize(
    ("rule", "kind"),
    [("bought", "purchase"), ("in_cart", "cart_add"), ("wishlisted", "wishlist_add"), ("seen", "view")],
)
def test_a_rule_that_is_off_rules_nothing_out(rule, kind):
    """Each rule alone, and the same night without it."""
    done = [("ann", "item-3", kind, 5)]
    every = dict.fromkeys(("bought_days", "in_cart_days", "wishlisted_days", "seen_days"), 0)
    on = RankingSettings(exclude=ExcludeSettings(**{**every, f"{rule}_days": 366}))
    off = RankingSettings(exclude=ExcludeSettings(**every))
    assert EVERYTHING - left(done, on) == {("ann", "item-3")}
    assert left(done, off) == EVERYTHING


def test_a_twin_of_what_was_bought_goes_too():
    rules = RankingSettings(exclude=ExcludeSettings(twins=TwinSettings(property="model")))
    gone = EVERYTHING - left([("007", "item-0", "purchase", 5)], rules)
    assert gone == {("007", "item-0"), ("007", "item-1")}


def test_the_catalog_as_it_is_now_counts_with_every_filter():
    """With no event at all, and where the stock alone would let the item through."""
    rules = RankingSettings(catalog=CatalogSettings(max_price=20.0))
    now = catalog(item_1={"stock": 0}, item_4={"price": Decimal(99)})
    for done in (None, [], [("ann", "item-3", "refund", 1)]):
        assert EVERYTHING - left(done, rules, now) == {(user, item) for user in USERS for item in ("item-1", "item-4")}


def test_what_was_taken_off_the_wishlist_is_not_announced_as_back():
    rules = RankingSettings(
        min_items=1,
        candidates={"kind": "back_in_stock"},
        exclude=ExcludeSettings(wishlisted_days=0, seen_days=0),
    )
    done = [
        ("ann", "item-2", "wishlist_remove", 5),
        ("ann", "item-3", "wishlist_remove", 5), ("ann", "item-3", "wishlist_add", 6),
        ("007", "item-4", "view", 5), ("7", "item-5", "purchase", 5),
    ]  # fmt: skip
    assert EVERYTHING - left(done, rules) == {("ann", "item-2"), ("7", "item-5")}


def mail(**changes):
    return MailSettings(subject="s", suppression_group="g", **changes)


def test_the_window_reaches_to_now_or_to_when_a_past_mail_was_due():
    date, start = dt.date(2026, 11, 2), BUILT_AT
    now = start + dt.timedelta(hours=9, minutes=7)
    assert recent_window(date, mail(), now).end_at == now
    assert recent_window(date, mail(), now).start_at == start
    later = start + dt.timedelta(days=20)
    assert recent_window(date, mail(), later).end_at == start + dt.timedelta(hours=8)
    assert recent_window(date, mail(zone="Europe/Berlin"), later).end_at == start + dt.timedelta(hours=7)
    with pytest.raises(ConfigError, match="is not over"):
        recent_window(date, mail(), start)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 300)), max_size=12))
def test_the_lag_is_that_of_the_median_and_the_99th_user(chunks):
    counted = [{LAG: lag, "delivered": users} for lag, users in chunks] + [{"delivered": 3}]
    of_users = np.sort(np.repeat([lag for lag, _ in chunks], [users for _, users in chunks]))
    if not len(of_users):
        assert exclusion_lag(counted) == {}
        return
    expected = {
        name: int(of_users[int(np.ceil(share * len(of_users))) - 1]) for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    assert exclusion_lag(counted) == {f"exclusion_lag_{name}_seconds": lag for name, lag in expected.items()}
