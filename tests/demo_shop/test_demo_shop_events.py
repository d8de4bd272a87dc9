"""What happens in the demo shop is believable, and the rules that the night relies on hold in every row."""

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest

from jobs.demo_shop.catalog_model import SELLOUT_DAYS, Catalog
from jobs.demo_shop.event_model import JOURNEY_DAYS, Events, joined, received_events
from jobs.demo_shop.shop_plan import COLLECTION_SIZE, DAY_US, Shop, day_number
from jobs.demo_shop.user_model import COLLECTOR_REMAINDER, NEVER_US, UserBlock
from schemas.tables import EVENT_TYPES

FIRST, LAST = dt.date(2026, 9, 4), dt.date(2026, 11, 4)
VIEW, CART_ADD, CART_REMOVE, WISHLIST_ADD, WISHLIST_REMOVE, PURCHASE, REFUND = range(7)


@dataclass(frozen=True)
class World:
    shop: Shop
    catalog: Catalog
    users: UserBlock
    days: dict[int, Events]
    events: Events


@pytest.fixture(scope="module")
def world() -> World:
    shop = Shop.plan(seed=7, users=5_000, first_date=FIRST)
    last_day = day_number(LAST)
    catalog, users = Catalog(shop, last_day), UserBlock(shop, 0)
    days = dict(received_events(catalog, users, shop.first_day, last_day))
    assert len(days) == 62
    events = joined(list(days.values()))
    assert len(events) > 400_000
    return World(shop, catalog, users, days, events)


def rows_by_pair(world: World, *types: int) -> dict[tuple[int, int], list[tuple[int, int, int, int]]]:
    """Group (instant, type, quantity, price) by user and item, in the order in which they happened."""
    events = world.events
    chosen = events.take(np.isin(events.event_type, types))
    chosen = chosen.take(np.argsort(chosen.occurred_us, kind="stable"))
    pairs = defaultdict(list)
    columns = (chosen.place, chosen.item, chosen.occurred_us, chosen.event_type, chosen.quantity, chosen.price_cents)
    for place, item, *rest in zip(*(column.tolist() for column in columns), strict=True):
        pairs[place, item].append(tuple(rest))
    assert len(pairs) > 1_000
    return pairs


def test_type_codes_are_the_schemas_order() -> None:
    assert EVENT_TYPES == (
        "view", "cart_add", "cart_remove", "wishlist_add", "wishlist_remove", "purchase", "refund",
    )  # fmt: skip


def test_starting_later_gives_the_same_days(world: World) -> None:
    last_day = day_number(LAST)
    for first_day in (world.shop.first_day + 1, last_day - JOURNEY_DAYS, last_day - 7):
        again = dict(received_events(world.catalog, world.users, first_day, last_day))
        assert sorted(again) == list(range(first_day, last_day + 1))
        for day, events in again.items():
            for name in Events.__dataclass_fields__:
                assert np.array_equal(getattr(events, name), getattr(world.days[day], name)), (day, name)


def test_events_come_on_the_day_that_received_them_in_order(world: World) -> None:
    for day, events in world.days.items():
        assert len(events) > 3_000
        assert np.all(events.received_us // DAY_US == day)
        assert np.all(np.diff(events.received_us) >= 0)


def test_only_views_are_received_late(world: World) -> None:
    events = world.events
    late = events.received_us - events.occurred_us > 5_000_000
    assert 500 < late.sum() < 5_000
    assert np.all(events.event_type[late] == VIEW)
    assert np.all(events.received_us > events.occurred_us)
    assert np.any(late & (events.received_us // DAY_US > events.occurred_us // DAY_US))


def test_what_leaves_the_cart_was_put_there(world: World) -> None:
    removals = 0
    for rows in rows_by_pair(world, CART_ADD, CART_REMOVE, PURCHASE).values():
        in_cart = 0
        for _, event_type, _, _ in rows:
            in_cart += 1 if event_type == CART_ADD else -1
            removals += event_type != CART_ADD
            assert in_cart >= 0
    assert removals > 10_000


def test_what_leaves_the_wishlist_was_put_there(world: World) -> None:
    for rows in rows_by_pair(world, WISHLIST_ADD, WISHLIST_REMOVE).values():
        wished = 0
        for _, event_type, _, _ in rows:
            wished += 1 if event_type == WISHLIST_ADD else -1
            assert wished >= 0


def test_refunds_give_back_what_was_paid(world: World) -> None:
    refunds = 0
    lags = []
    for rows in rows_by_pair(world, PURCHASE, REFUND).values():
        paid = []
        for instant, event_type, quantity, price in rows:
            if event_type == PURCHASE:
                paid.append((instant, quantity, price))
            else:
                bought = [purchase for purchase in paid if purchase[1:] == (quantity, price)]
                assert bought
                paid.remove(bought[-1])
                lags.append((instant - bought[-1][0]) / DAY_US)
                refunds += 1
    assert refunds > 500
    assert 4 < np.median(lags) < 10
    assert max(lags) < 21


def test_nothing_sold_out_is_bought_or_put_into_the_cart(world: World) -> None:
    events = world.events
    wanted = events.take((events.event_type == PURCHASE) | (events.event_type == CART_ADD))
    assert len(wanted) > 40_000
    assert np.all(world.catalog.stock(wanted.item, wanted.occurred_us // DAY_US) > 0)


def test_people_look_at_sold_out_items_too(world: World) -> None:
    views = world.events.take(world.events.event_type == VIEW)
    assert np.mean(world.catalog.stock(views.item, views.occurred_us // DAY_US) == 0) > 0.01


def test_prices_are_the_catalogs(world: World) -> None:
    events = world.events.take(world.events.event_type != REFUND)
    assert np.array_equal(events.price_cents, world.catalog.prices(events.item, events.occurred_us // DAY_US))


def test_nobody_acts_before_joining_and_no_item_is_seen_outside_its_time(world: World) -> None:
    events = world.events
    assert np.all(events.occurred_us >= world.users.created_us[events.place])
    assert np.all(events.occurred_us >= world.catalog.created_us[events.item])
    newcomers = events.place >= world.shop.users
    assert newcomers.sum() > 5_000
    views = events.take(events.event_type == VIEW)
    assert np.all(views.occurred_us < world.catalog.delisted_day[views.item] * DAY_US)
    assert np.any(views.item >= world.shop.items)


def test_shares_of_event_types(world: World) -> None:
    share = np.bincount(world.events.event_type, minlength=7) / len(world.events)
    assert 0.75 < share[VIEW] < 0.9
    assert 0.05 < share[CART_ADD] < 0.1
    assert 0.01 < share[CART_REMOVE] < share[PURCHASE] < 0.05
    assert 0.002 < share[WISHLIST_REMOVE] < share[WISHLIST_ADD] < 0.05
    assert 0.001 < share[REFUND] < 0.1 * share[PURCHASE]


def test_a_third_of_the_users_cause_five_events_each(world: World) -> None:
    last_weeks = [events for day, events in world.days.items() if day > day_number(LAST) - 28]
    assert len(last_weeks) == 28
    active = np.asarray([len(np.unique(events.place)) for events in last_weeks])
    assert 0.3 < active.mean() / world.shop.users_on(day_number(LAST)) < 0.37
    assert 4.3 < sum(len(events) for events in last_weeks) / active.sum() < 5.7


def test_few_items_and_few_users_cause_most_events(world: World) -> None:
    by_item = np.sort(np.bincount(world.events.item, minlength=world.catalog.size))[::-1]
    assert 0.25 < by_item[: len(by_item) // 10].sum() / by_item.sum() < 0.6
    by_user = np.sort(np.bincount(world.events.place, minlength=world.shop.users))[::-1]
    assert 0.2 < by_user[: len(by_user) // 10].sum() / by_user.sum() < 0.5


def test_users_come_back_to_items(world: World) -> None:
    day = world.days[day_number(LAST)]
    views = day.take(day.event_type == VIEW)
    assert len(np.unique(views.place * 10**6 + views.item)) < 0.95 * len(views)


def test_users_keep_to_their_tastes(world: World) -> None:
    """Nine of ten users have half of their views or more in their three leaves; by chance it would be a tenth."""
    views = world.events.take((world.events.event_type == VIEW) & ~world.users.is_collector[world.events.place])
    group = world.catalog.group[views.item]
    in_taste = np.any(world.users.tastes[:, views.place] == group, axis=0)
    count = np.bincount(views.place)
    often = count >= 20
    assert often.sum() > 3_000
    assert np.mean(np.bincount(views.place, weights=in_taste)[often] / count[often] > 0.5) > 0.9


def test_collectors_keep_to_four_items_that_nobody_else_sees(world: World) -> None:
    events, users, shop = world.events, world.users, world.shop
    collectors = np.flatnonzero(users.is_collector[: shop.users])
    assert 0.005 * shop.users <= len(collectors) <= 0.011 * shop.users
    assert np.all(collectors % shop.collector_stride == COLLECTOR_REMAINDER)
    of_collection = events.item < shop.collections * COLLECTION_SIZE
    assert np.array_equal(of_collection, users.is_collector[events.place])
    for collector in collectors:
        seen = np.unique(events.item[events.place == collector])
        assert 1 <= len(seen) <= 4
        assert np.all(seen // COLLECTION_SIZE == users.collection[collector])


def test_every_collection_is_sold_out_on_every_third_day(world: World) -> None:
    shop, catalog = world.shop, world.catalog
    items = np.arange(shop.collections * COLLECTION_SIZE)
    days = np.arange(shop.first_day, day_number(LAST) + 1)
    stock = catalog.stock(items[None, :], days[:, None]).reshape(len(days), shop.collections, COLLECTION_SIZE)
    sold_out = np.all(stock == 0, axis=2)
    assert np.array_equal(sold_out, ~np.all(stock > 0, axis=2))
    assert sold_out.any(axis=1).all()
    assert not sold_out.all(axis=1).any()
    assert np.all(sold_out[:-SELLOUT_DAYS] == sold_out[SELLOUT_DAYS:])
    assert np.array_equal(sold_out.sum(axis=0) // (len(days) // 3), np.ones(shop.collections))


def test_collectors_lose_all_recommendations_and_get_them_back(world: World) -> None:
    """Recommend by brute force: what shares a user with the collector's items, not seen, in stock, at least 3."""
    shop, catalog, events = world.shop, world.catalog, world.events
    last_day = day_number(LAST)
    history = defaultdict(set)
    for place, item in zip(events.place.tolist(), events.item.tolist(), strict=True):
        history[place].add(item)
    holders = defaultdict(set)
    for place, items in history.items():
        for item in items:
            holders[item].add(place)
    first_night, lost = set(), defaultdict(set)
    collectors = np.flatnonzero(world.users.is_collector[: shop.users]).tolist()
    for collector in collectors:
        seen = history[collector]
        related = set().union(*(history[other] for item in seen for other in holders[item])) - seen
        for night in range(3):
            left = [item for item in related if catalog.stock(np.asarray([item]), last_day + night)[0] > 0]
            if len(left) >= 3:
                first_night |= {collector} if night == 0 else set()
            elif collector in first_night:
                assert not left
                lost[night].add(collector)
    assert len(first_night) >= len(collectors) // 2
    assert len(lost[1]) >= 10
    assert len(lost[2]) >= 10
    assert not lost[1] & lost[2]
    every = np.flatnonzero(world.users.is_collector)
    assert len(every) > 1_000
    assert world.users.has_address[every].all()
    assert np.all(world.users.unsubscribed_us[every] == NEVER_US)
