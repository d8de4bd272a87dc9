"""The users: who they are, what they like and how often they come by. One block of users at a time."""

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.demo_shop.catalog_model import LEAF_BY_SHARE, STYLES
from jobs.demo_shop.category_tree import LEAF_DEPARTMENT, LEAVES
from jobs.demo_shop.draws import Bools, Bytes, Ints, Purpose, below, generator, random_bytes, table
from jobs.demo_shop.shop_plan import BLOCK, COLLECTION_SIZE, DAY_US, HOUR_US, Shop

TASTES: Final = 3  # leaf categories that a user cares about
SAME_DEPARTMENT: Final = 154  # of 256: how often the second taste lies in the department of the first
COLLECTOR_REMAINDER: Final = 7
COLLECTOR_OFFSET: Final = 3  # collectors of a collection start three items apart, so that their four items overlap

USER_HISTORY_DAYS: Final = 1_095
NO_ADDRESS: Final = 0.01  # with UNSUBSCRIBED_BEFORE every 50th user cannot be mailed
UNSUBSCRIBED_BEFORE: Final = 0.02
# The rest leave evenly over so many days: 0.025 % a day; typical lists lose 0.1 to 0.5 % per mail, but then fill up
# again.
UNSUBSCRIBE_SPREAD_DAYS: Final = 4_000
NEVER_US: Final = np.iinfo(np.int64).max

# Share of days on which a user starts something: 0.03 + 0.62 x u^2, 0.24 on average: a few come most days, most once a
# week. With those who return to something begun earlier, a third of the users are active on a day.
ACTIVITY_FLOOR: Final = 0.03
ACTIVITY_RANGE: Final = 0.62

# The shop sells in euros, so its countries are those that pay in euros: locale, country, share.
COUNTRIES: Final = (
    ("de-DE", "DE", 30), ("fr-FR", "FR", 18), ("it-IT", "IT", 13), ("es-ES", "ES", 12), ("nl-NL", "NL", 8),
    ("de-AT", "AT", 5), ("nl-BE", "BE", 3), ("fr-BE", "BE", 2), ("pt-PT", "PT", 4), ("fi-FI", "FI", 3),
    ("en-IE", "IE", 2),
)  # fmt: skip
COUNTRY_TABLE: Final = table({number: share for number, (_, _, share) in enumerate(COUNTRIES)})
AGE_BANDS: Final = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+", None)
AGE_TABLE: Final = table({0: 12, 1: 25, 2: 22, 3: 17, 4: 12, 5: 7, 6: 5})
GENDERS: Final = ("female", "male", "other", None)
GENDER_TABLE: Final = table({0: 47, 1: 43, 2: 2, 3: 8})


class UserBlock:
    """One block of users, by place in the block; user number = block x BLOCK + place.

    Every array has BLOCK rows, so that what is true of a user depends neither on the size of the shop nor on the day;
    who has joined by a day is the first `members(day)` of them.
    """

    def __init__(self, shop: Shop, block: int) -> None:
        self.shop, self.block = shop, block
        self.numbers: Ints = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
        self.is_collector = self.numbers % shop.collector_stride == COLLECTOR_REMAINDER
        collector = self.numbers // shop.collector_stride
        self.collection = collector % shop.collections
        self.collection_start = COLLECTOR_OFFSET * (collector // shop.collections) % COLLECTION_SIZE
        self.created_us = self._created()
        self._draw_tastes()
        activity = generator(shop.seed, Purpose.USER_ACTIVITY, block).random((BLOCK, 2))
        rate = ACTIVITY_FLOOR + ACTIVITY_RANGE * activity[:, 0] * activity[:, 0]
        # Collectors come by often enough to have seen their few items within a few weeks.
        self.activity = np.where(self.is_collector, np.maximum(rate, 0.3), rate).astype(np.float32)
        # How readily the user wishes for or buys something, around 1.
        self.readiness = (0.4 + 1.2 * activity[:, 1]).astype(np.float32)

    def members(self, day: int) -> int:
        """How many of the block have joined by the end of the day."""
        return int(np.clip(self.shop.users_on(day) - self.block * BLOCK, 0, BLOCK))

    @cached_property
    def unsubscribed_us(self) -> Ints:
        """When each user unsubscribes, NEVER_US for collectors."""
        draws = self._contact_draws
        start = self.shop.first_day * DAY_US
        before = start - np.floor(draws[:, 2] * 300 * DAY_US).astype(np.int64)
        after = np.maximum(start, self.created_us) + HOUR_US
        after = after + np.floor(draws[:, 1] * UNSUBSCRIBE_SPREAD_DAYS * DAY_US).astype(np.int64)
        has_left = (draws[:, 0] >= NO_ADDRESS) & (draws[:, 0] < UNSUBSCRIBED_BEFORE) & (self.created_us < before)
        return np.where(self.is_collector, NEVER_US, np.where(has_left, before, after))

    @cached_property
    def has_address(self) -> Bools:
        """Whether the shop knows the user's address; collectors' always."""
        known: Bools = (self._contact_draws[:, 0] >= NO_ADDRESS) | self.is_collector
        return known

    @cached_property
    def person(self) -> Bytes:
        """What chooses first name, last name, country, age and gender; shape (BLOCK, 5)."""
        drawn = random_bytes(generator(self.shop.seed, Purpose.USER_PERSON, self.block), BLOCK * 5)
        return drawn.reshape(BLOCK, 5)

    @cached_property
    def _contact_draws(self) -> npt.NDArray[np.float64]:
        return generator(self.shop.seed, Purpose.USER_CONTACT, self.block).random((BLOCK, 3))

    def _created(self) -> Ints:
        shop = self.shop
        draws = generator(shop.seed, Purpose.USER_CREATED, self.block).random((BLOCK, 2))
        before = shop.first_day - 1 - np.floor(draws[:, 0] * USER_HISTORY_DAYS).astype(np.int64)
        after = shop.first_day + 1 + (self.numbers - shop.users) // shop.new_users_per_day
        day = np.where(self.numbers < shop.users, before, after)
        # Until 20:00, so that there is time left for a first visit.
        return day * DAY_US + np.floor(draws[:, 1] * 20 * HOUR_US).astype(np.int64)

    def _draw_tastes(self) -> None:
        """Three leaves each, by the leaves' shares; the second is often in the first one's department."""
        random = generator(self.shop.seed, Purpose.USER_TASTE, self.block)
        tastes = LEAF_BY_SHARE[below(random, BLOCK * TASTES, len(LEAF_BY_SHARE))].reshape(TASTES, BLOCK)
        leaves_each = len(LEAVES) // (LEAF_DEPARTMENT[-1] + 1)
        neighbour = tastes[0] // leaves_each * leaves_each + below(random, BLOCK, leaves_each)
        tastes[1] = np.where(random_bytes(random, BLOCK) < SAME_DEPARTMENT, neighbour, tastes[1])
        self.tastes = tastes
        self.style = below(random, BLOCK, STYLES)
