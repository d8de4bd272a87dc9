"""What users do: journeys of one user with one item, from the first look to the refund.

A journey begins on a day on which the user is active and may go on for weeks: looks again in the same or a later
visit, a place on the wishlist, the cart, a purchase or a change of mind, a refund. All of it is drawn when the journey
begins, so the events of a day are those of the journeys of that day and of the JOURNEY_DAYS before it that fall on it;
nothing is remembered between days but what is still to come. No event happens before the shop's first date, so every
cart_remove, purchase and refund has its cart_add in the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.demo_shop.catalog_model import LEAF_BY_SHARE, Assortment, Catalog
from jobs.demo_shop.draws import Bools, Ints, Purpose, below, generator, random_bytes, table
from jobs.demo_shop.shop_plan import COLLECTION_SIZE, DAY_US, HOUR_US, MINUTE_US, SECOND_US, day_date
from jobs.demo_shop.user_model import UserBlock
from schemas.tables import EVENT_TYPES

VIEW, CART_ADD, CART_REMOVE, WISHLIST_ADD, WISHLIST_REMOVE, PURCHASE, REFUND = (
    EVENT_TYPES.index(name)
    for name in ("view", "cart_add", "cart_remove", "wishlist_add", "wishlist_remove", "purchase", "refund")
)

# Monday to Sunday: people shop more at the weekend.
WEEKDAY_ACTIVITY: Final = (0.98, 0.96, 0.95, 0.97, 1.0, 1.06, 1.1)
# Visits by hour of the day, UTC: a lunch hump and an evening peak.
HOURS: Final = table(
    dict(enumerate((4, 2, 1, 1, 1, 2, 5, 9, 11, 12, 13, 14, 16, 14, 13, 13, 14, 16, 19, 22, 24, 20, 12, 7)))
)
# Items that an active user takes up in a day: about four on average. Measured with 5,000 users over 62 days: see
# ACTIVITY_FLOOR in user_model.
JOURNEYS: Final = table({1: 0.18, 2: 0.2, 3: 0.17, 4: 0.13, 5: 0.1, 6: 0.07, 8: 0.08, 12: 0.05, 16: 0.02})
EXPLORES: Final = 46  # of 256: almost one look in five goes to any leaf, by its share, whatever the user's taste
TASTE_CHOICE: Final = table({0: 0.55, 1: 0.28, 2: 0.17})
IN_STYLE: Final = 179  # of 256: seven of ten looks follow the user's style
COLLECTOR_WINDOW: Final = 4  # items of a collection that one collector cares about
SECOND_VISIT: Final = 64  # of 256: a quarter of the journeys begin in a second visit of the day

MORE_VIEWS: Final = table({0: 0.7, 1: 0.19, 2: 0.07, 3: 0.03, 5: 0.01})
SAME_VISIT: Final = 154  # of 256: six of ten repeat views come minutes after, the others days later
RETURN_DAYS: Final = table({1: 0.34, 2: 0.2, 3: 0.13, 4: 0.09, 5: 0.07, 7: 0.08, 9: 0.05, 12: 0.04})
WISHLIST: Final = 0.05
WISHLIST_GIVEN_UP: Final = 0.25
CART: Final = 0.13
CART_FROM_WISHLIST: Final = 0.35
PURCHASED: Final = 0.42
TAKEN_OUT: Final = 0.3  # the rest stays in the cart: abandoned
DECIDED_AT_ONCE: Final = 0.85
REFUNDED: Final = 0.07
QUANTITY: Final = table({1: 0.88, 2: 0.08, 3: 0.03, 4: 0.01}, np.int32)
# Hours until the money is back: a few cancel before it ships, most send back within a fortnight.
REFUND_DAYS: Final = table({0: 0.15, 3: 0.05, 5: 0.1, 6: 0.12, 7: 0.14, 8: 0.12, 9: 0.1, 11: 0.1, 14: 0.08, 20: 0.04})
# Mobile apps deliver some views when they are next online; what moves money is received at once.
LATE: Final = 0.003
LATE_HOURS: Final = 20

DECIDED_DAYS: Final = 3  # who does not decide at once does within three days
# The longest journey: from the wishlist to the cart, decided, refunded; the hours of all steps are less than two days.
JOURNEY_DAYS: Final = int(RETURN_DAYS.max()) + DECIDED_DAYS + int(REFUND_DAYS.max()) + 2


@dataclass(frozen=True)
class Events:
    """Parallel arrays, one row per event. `place` is the user's in the block, instants count microseconds."""

    place: npt.NDArray[np.int64]
    item: npt.NDArray[np.int32]
    event_type: npt.NDArray[np.int8]
    occurred_us: Ints
    received_us: Ints
    quantity: npt.NDArray[np.int32]
    price_cents: Ints

    def __len__(self) -> int:
        return len(self.place)

    def take(self, which: npt.NDArray[np.intp] | Bools) -> "Events":
        """Keep the rows of a mask or in the order of positions."""
        return Events(
            place=self.place[which],
            item=self.item[which],
            event_type=self.event_type[which],
            occurred_us=self.occurred_us[which],
            received_us=self.received_us[which],
            quantity=self.quantity[which],
            price_cents=self.price_cents[which],
        )

    def in_order(self) -> "Events":
        """Sort by when the shop received them; ties stay in the order in which they were drawn."""
        return self.take(np.argsort(self.received_us, kind="stable"))


def joined(parts: list[Events]) -> Events:
    """Put several lots of events one after the other."""
    return Events(
        place=np.concatenate([part.place for part in parts]),
        item=np.concatenate([part.item for part in parts]),
        event_type=np.concatenate([part.event_type for part in parts]),
        occurred_us=np.concatenate([part.occurred_us for part in parts]),
        received_us=np.concatenate([part.received_us for part in parts]),
        quantity=np.concatenate([part.quantity for part in parts]),
        price_cents=np.concatenate([part.price_cents for part in parts]),
    )


def received_events(catalog: Catalog, users: UserBlock, first_day: int, last_day: int) -> Iterator[tuple[int, Events]]:
    """Give, day after day, the events of the block's users that the shop received on that day, in order.

    Starting later gives the same days as starting earlier. Memory: the events of the day and those still to come.
    """
    pending: list[Events] = []
    for day in range(max(catalog.shop.first_day, first_day - JOURNEY_DAYS), last_day + 1):
        fresh = begin_journeys(catalog, users, day, first_day * DAY_US, (last_day + 1) * DAY_US)
        waiting = joined([*pending, fresh])
        is_due = waiting.received_us < (day + 1) * DAY_US
        pending = [waiting.take(~is_due)]
        if day >= first_day:
            yield day, waiting.take(is_due).in_order()


def begin_journeys(catalog: Catalog, users: UserBlock, day: int, from_us: int, until_us: int) -> Events:
    """Draw the journeys that the block's users begin on the day; return their events received within [from, until)."""
    random = generator(catalog.shop.seed, Purpose.JOURNEYS, day, users.block)
    place, started_us = _visits(random, users, day)
    item = _items(random, catalog.assortment(day), users, place)
    steps = _Steps(random, catalog, item)
    steps.walk(started_us, users.readiness[place])
    return steps.events(place, from_us, until_us)


def _visits(random: np.random.Generator, users: UserBlock, day: int) -> tuple[Ints, Ints]:
    """Draw who takes up how many items, and when: the user's place and the first look, one row per journey."""
    members = users.members(day)
    rate = users.activity[:members] * np.float32(WEEKDAY_ACTIVITY[day_date(day).weekday()])
    active = np.flatnonzero(random.random(members, dtype=np.float32) < rate)
    visits = HOURS[random_bytes(random, 2 * len(active))] * HOUR_US + below(random, 2 * len(active), HOUR_US)
    # Who joins on this day does so first: the visit moves into what is left of the day.
    joined_us = np.maximum(users.created_us[active] - day * DAY_US, 0)
    left = (DAY_US - joined_us) / DAY_US
    first, second = (
        joined_us + (visit * left).astype(np.int64) for visit in (visits[: len(active)], visits[len(active) :])
    )
    count = JOURNEYS[random_bytes(random, len(active))]
    row = np.repeat(np.arange(len(active)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    visit_us = np.where(random_bytes(random, len(row)) < SECOND_VISIT, second[row], first[row])
    return active[row], day * DAY_US + visit_us + nth * MINUTE_US + below(random, len(row), MINUTE_US)


def _items(random: np.random.Generator, assortment: Assortment, users: UserBlock, place: Ints) -> npt.NDArray[np.int32]:
    """Draw the item of each journey: by taste, popularity and style; collectors keep to their few."""
    taste = TASTE_CHOICE[random_bytes(random, len(place))]
    anywhere = LEAF_BY_SHARE[below(random, len(place), len(LEAF_BY_SHARE))]
    leaf = np.where(random_bytes(random, len(place)) < EXPLORES, anywhere, users.tastes[taste, place])
    in_style = random_bytes(random, len(place)) < IN_STYLE
    item = assortment.pick(leaf, random.random(len(place)), users.style[place], in_style)
    choice = random_bytes(random, len(place))
    collecting = np.flatnonzero(users.is_collector[place])
    collector = place[collecting]
    shelf = (users.collection_start[collector] + choice[collecting] % COLLECTOR_WINDOW) % COLLECTION_SIZE
    item[collecting] = users.collection[collector] * COLLECTION_SIZE + shelf
    return item


class _Steps:
    """The events of one day's journeys while they are being drawn. Each step draws for the journeys that reach it."""

    def __init__(self, random: np.random.Generator, catalog: Catalog, item: npt.NDArray[np.int32]) -> None:
        self._random, self._catalog, self._item = random, catalog, item
        self._journey: list[Ints] = []
        self._type: list[npt.NDArray[np.int8]] = []
        self._occurred: list[Ints] = []
        self._priced: list[Ints] = []

    def walk(self, started_us: Ints, readiness: npt.NDArray[np.float32]) -> None:
        """Draw every step of every journey."""
        random = self._random
        everyone = np.arange(len(started_us))
        self._add(VIEW, everyone, started_us)
        self._repeat_views(started_us)

        wish = np.flatnonzero(self._chance(len(everyone)) < WISHLIST * readiness)
        wished_us = started_us[wish] + self._seconds(len(wish), 10, 110)
        self._add(WISHLIST_ADD, wish, wished_us)
        fate = self._chance(len(wish))
        later_us = self._days_later(wished_us)
        given_up = fate < WISHLIST_GIVEN_UP
        self._add(WISHLIST_REMOVE, wish[given_up], later_us[given_up])

        comes_back = (fate >= WISHLIST_GIVEN_UP) & (fate < WISHLIST_GIVEN_UP + CART_FROM_WISHLIST)
        self._add(VIEW, wish[comes_back], later_us[comes_back] - 30 * SECOND_US)
        is_wished = np.zeros(len(everyone), dtype=np.bool_)
        is_wished[wish] = True
        at_once = np.flatnonzero((self._chance(len(everyone)) < CART * readiness) & ~is_wished)
        at_once_us = started_us[at_once] + self._seconds(len(at_once), 20, 300)

        cart = np.concatenate([at_once, wish[comes_back]])
        cart_us = np.concatenate([at_once_us, later_us[comes_back]])
        self._decide(cart, cart_us, random)

    def events(self, place: Ints, from_us: int, until_us: int) -> Events:
        """Draw quantities and delays, price everything and return what is received within [from, until)."""
        random = self._random
        quantities = QUANTITY[random_bytes(random, len(place))]
        journey, occurred_us = np.concatenate(self._journey), np.concatenate(self._occurred)
        event_type, priced_us = np.concatenate(self._type), np.concatenate(self._priced)
        delay = 200_000 + below(random, len(journey), 3 * SECOND_US)
        late = (self._chance(len(journey)) < LATE) & (event_type == VIEW)
        delay[late] += below(random, int(late.sum()), LATE_HOURS * HOUR_US)
        received_us = occurred_us + delay
        kept = np.flatnonzero((received_us >= from_us) & (received_us < until_us))
        journey, event_type, occurred_us = journey[kept], event_type[kept], occurred_us[kept]
        item, occurred_day = self._item[journey], occurred_us // DAY_US
        # Nobody finds the page of an item that has left the catalog.
        found = (event_type != VIEW) | self._catalog.is_listed(item, occurred_day)
        is_counted = (event_type != VIEW) & (event_type != WISHLIST_ADD) & (event_type != WISHLIST_REMOVE)
        every = Events(
            place=place[journey],
            item=item,
            event_type=event_type,
            occurred_us=occurred_us,
            received_us=received_us[kept],
            quantity=np.where(is_counted, quantities[journey], np.int32(1)),
            price_cents=self._catalog.prices(item, priced_us[kept] // DAY_US),
        )
        return every if found.all() else every.take(found)

    def _repeat_views(self, started_us: Ints) -> None:
        again = np.repeat(np.arange(len(started_us)), MORE_VIEWS[random_bytes(self._random, len(started_us))])
        first_us = started_us[again]
        soon_us = first_us + self._seconds(len(again), 60, 900)
        later_us = self._days_later(first_us)
        same_visit = random_bytes(self._random, len(again)) < SAME_VISIT
        self._add(VIEW, again, np.where(same_visit, soon_us, later_us))

    def _decide(self, cart: Ints, cart_us: Ints, random: np.random.Generator) -> None:
        """From the cart to purchase, removal or nothing, and on to the refund. What is sold out cannot be had."""
        count = len(cart)
        quick_us, slow_us = self._seconds(count, 60, 1_800), DAY_US * (1 + below(random, count, DECIDED_DAYS))
        slow_us += self._seconds(count, 0, 21_600)
        decided_us = cart_us + np.where(self._chance(count) < DECIDED_AT_ONCE, quick_us, slow_us)
        fate, refund_chance = self._chance(count), self._chance(count)
        back_us = decided_us + DAY_US * REFUND_DAYS[random_bytes(random, count)] + self._seconds(count, 3_600, 21_600)

        available = self._catalog.stock(self._item[cart], cart_us // DAY_US) > 0
        self._add(CART_ADD, cart[available], cart_us[available])
        wants = available & (fate < PURCHASED)
        sold_out = self._catalog.stock(self._item[cart], decided_us // DAY_US) == 0
        bought = wants & ~sold_out
        self._add(PURCHASE, cart[bought], decided_us[bought])
        removed = (wants & sold_out) | (available & (fate >= PURCHASED) & (fate < PURCHASED + TAKEN_OUT))
        self._add(CART_REMOVE, cart[removed], decided_us[removed])
        refunded = bought & (refund_chance < REFUNDED)
        # Refunded is what was paid, whatever the price is now.
        self._add(REFUND, cart[refunded], back_us[refunded], decided_us[refunded])

    def _add(self, event_type: int, journey: Ints, occurred_us: Ints, priced_us: Ints | None = None) -> None:
        self._journey.append(journey)
        self._type.append(np.full(len(journey), event_type, dtype=np.int8))
        self._occurred.append(occurred_us)
        self._priced.append(occurred_us if priced_us is None else priced_us)

    def _chance(self, count: int) -> npt.NDArray[np.float32]:
        return self._random.random(count, dtype=np.float32)

    def _seconds(self, count: int, low: int, high: int) -> Ints:
        return self._random.integers(low * SECOND_US, high * SECOND_US, size=count, dtype=np.int64)

    def _days_later(self, from_us: Ints) -> Ints:
        """Some days later at about the same time: up to three hours before or after."""
        days: Ints = RETURN_DAYS[random_bytes(self._random, len(from_us))]
        return from_us + days * DAY_US + self._seconds(len(from_us), -3 * 3_600, 3 * 3_600)
