"""The catalog: which items there are, what they cost and whether they are in stock on a day, and what is popular.

Price, stock and listing are closed formulas of item and day, so any day's state can be asked for in any order. Stock
runs on a cycle of its own (full after a delivery, then falling); purchases do not lower it, because they would make a
day depend on every day before it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.demo_shop.category_tree import COLLECTIBLES, DEPARTMENTS, LEAF_DEPARTMENT, LEAVES, Department, Leaf
from jobs.demo_shop.draws import Bools, Ints, Purpose, below, generator, random_bytes
from jobs.demo_shop.shop_plan import COLLECTION_SIZE, DAY_US, HOUR_US, Shop

NEVER: Final = 10_000_000  # a day number that no shop reaches
HISTORY_DAYS: Final = 1_095  # items of the first date were created in the three years before it
SELLOUT_DAYS: Final = 3  # the cycle of collections: two days in stock, one sold out
SURE_PER_LEAF: Final = 2  # items of each leaf that are never delisted, so that no leaf is ever empty
RATED_FROM: Final = 25  # tenths; nobody keeps items that are rated below 2.5

# Items of the first date leave the catalog evenly over 400 days: 0.25 % a day, half of what is new each day.
DELIST_SPREAD_DAYS: Final = 400
# Later items stay two months at least, then leave evenly over two years.
LATER_STAY_DAYS: Final = 60
LATER_SPREAD_DAYS: Final = 730

# Popularity within a leaf falls as 1 / rank (Zipf's law), ranks counted from 1; styles then even out each four
# neighbours.
FIRST_RANK: Final = 1.0
STYLES: Final = 4  # neighbours in popularity differ in style; see Assortment.pick

# A third of the items sell out before the next delivery, on average for an eighth of the cycle: about 4 % are out of
# stock on a day.
SELLS_OUT: Final = 90  # of 256
# Every leaf as often as its share says: drawing one of these draws a leaf.
LEAF_BY_SHARE: Final = np.repeat(np.arange(len(LEAVES)), [leaf.share for leaf in LEAVES])


@dataclass(frozen=True)
class Assortment:
    """The items that people can come across on one day, by group, most popular first.

    Shapes: items (n,), starts (groups + 1,), reached (n + 1,): weights added up in the order of items.
    """

    items: npt.NDArray[np.int32]
    starts: Ints
    reached: npt.NDArray[np.float64]

    def pick(
        self, groups: Ints, chance: npt.NDArray[np.float64], styles: Ints, in_style: Bools
    ) -> npt.NDArray[np.int32]:
        """Choose one item of each group by popularity, where `in_style` the nearest in popularity of that style."""
        first, after = self.starts[groups], self.starts[groups + 1]
        low = self.reached[first]
        target = low + chance * (self.reached[after] - low)
        place = np.searchsorted(self.reached[1:], target, side="right")
        np.clip(place, first, after - 1, out=place)
        rank = place - first
        moved = first + (rank - rank % STYLES) + styles
        place = np.where(in_style & (moved < after), moved, place)
        return self.items[place]


class Catalog:
    """Every item created by the end of `last_day`, by item number; nothing else about them depends on `last_day`."""

    def __init__(self, shop: Shop, last_day: int) -> None:
        self.shop = shop
        self.size = shop.items_on(last_day)
        self.collectibles = shop.collections * COLLECTION_SIZE
        self.group = self._groups()
        self.created_day, self.created_us = self._created()
        self.delisted_day = self._delisted()
        leaves = [self.leaf_of_group(group)[1] for group in range(len(LEAVES) + shop.collections)]
        self._draw_prices(leaves)
        self._draw_stock()
        random = generator(shop.seed, Purpose.ITEM_RATING)
        # The larger of two draws: most ratings lie between 3.7 and 4.8.
        two = random.random((self.size, 2)).max(axis=1)
        self.rating_tenths = RATED_FROM + np.floor(two * (50 - RATED_FROM + 1)).astype(np.int64)
        popularity = generator(shop.seed, Purpose.ITEM_POPULARITY).random(self.size)
        self._order = np.lexsort((popularity, self.group)).astype(np.int32)

    def leaf_of_group(self, group: int) -> tuple[Department, Leaf]:
        """Name the department and leaf category of a group; groups after the leaves are collections."""
        if group < len(LEAVES):
            return DEPARTMENTS[LEAF_DEPARTMENT[group]], LEAVES[group]
        return COLLECTIBLES, COLLECTIBLES.leaves[(group - len(LEAVES)) % len(COLLECTIBLES.leaves)]

    def prices(self, items: npt.NDArray[np.integer], days: npt.NDArray[np.integer] | int) -> Ints:
        """Price in cents of each item on each day (shapes broadcast)."""
        on_sale = (days + self._sale_phase[items]) % self._sale_period[items] < self._sale_days[items]
        cents: Ints = np.where(on_sale, self._sale_cents[items], self._base_cents[items])
        return cents

    def stock(self, items: npt.NDArray[np.integer], days: npt.NDArray[np.integer] | int) -> Ints:
        """Pieces in stock of each item on each day (shapes broadcast); delisted items have none."""
        since_delivery = (days + self._stock_phase[items]) % self._stock_cycle[items]
        full = self._stock_full[items]
        left = np.maximum(full - since_delivery * full // self._stock_lasts[items], 0)
        collection = self.group[items] - len(LEAVES)
        sold_out = (collection >= 0) & ((days + collection) % SELLOUT_DAYS == 0)
        return np.where(sold_out | ~self.is_listed(items, days), 0, left)

    def is_listed(self, items: npt.NDArray[np.integer], days: npt.NDArray[np.integer] | int) -> Bools:
        """Whether each item is in the catalog on each day (shapes broadcast)."""
        listed: Bools = (self.created_day[items] <= days) & (days < self.delisted_day[items])
        return listed

    def assortment(self, day: int) -> Assortment:
        """List what people can come across on the day: everything listed that was created before the day."""
        order = self._order
        items = order[(self.created_day[order] < day) & (day < self.delisted_day[order])]
        groups = self.group[items]
        starts = np.searchsorted(groups, np.arange(len(LEAVES) + self.shop.collections + 1))
        rank = np.arange(len(items)) - starts[groups]
        reached = np.zeros(len(items) + 1)
        np.cumsum(1.0 / (rank + FIRST_RANK), out=reached[1:])
        return Assortment(items=items, starts=starts, reached=reached)

    def _groups(self) -> Ints:
        """Collections first, then a few sure items of every leaf, then leaves by their share."""
        random = generator(self.shop.seed, Purpose.ITEM_GROUP)
        groups = LEAF_BY_SHARE[below(random, self.size, len(LEAF_BY_SHARE))]
        numbers = np.arange(self.size)
        sure = self.collectibles + SURE_PER_LEAF * len(LEAVES)
        groups = np.where(numbers < sure, (numbers - self.collectibles) % len(LEAVES), groups)
        return np.where(numbers < self.collectibles, len(LEAVES) + numbers // COLLECTION_SIZE, groups)

    def _created(self) -> tuple[Ints, Ints]:
        shop = self.shop
        random = generator(shop.seed, Purpose.ITEM_CREATED)
        draws = random.random((self.size, 2))
        numbers = np.arange(self.size)
        before = shop.first_day - 1 - np.floor(draws[:, 0] * HISTORY_DAYS).astype(np.int64)
        after = shop.first_day + 1 + (numbers - shop.items) // shop.new_items_per_day
        day = np.where(numbers < shop.items, before, after)
        # Assortments are published between 06:00 and 18:00.
        return day, day * DAY_US + 6 * HOUR_US + np.floor(draws[:, 1] * 12 * HOUR_US).astype(np.int64)

    def _delisted(self) -> Ints:
        draws = generator(self.shop.seed, Purpose.ITEM_DELISTED).random(self.size)
        numbers = np.arange(self.size)
        first = self.shop.first_day + 1 + np.floor(draws * DELIST_SPREAD_DAYS).astype(np.int64)
        later = self.created_day + LATER_STAY_DAYS + np.floor(draws * LATER_SPREAD_DAYS).astype(np.int64)
        day = np.where(numbers < self.shop.items, first, later)
        return np.where(numbers < self.collectibles + SURE_PER_LEAF * len(LEAVES), NEVER, day)

    def _draw_prices(self, leaves: list[Leaf]) -> None:
        low = np.asarray([leaf.price_low for leaf in leaves])[self.group]
        high = np.asarray([leaf.price_high for leaf in leaves])[self.group]
        draws = generator(self.shop.seed, Purpose.ITEM_PRICE).random(self.size)
        # Squared: many cheap, few dear. Prices end in 49 or 99 cents.
        self._base_cents = np.floor(low + (high - low) * draws * draws).astype(np.int64) // 50 * 50 + 49
        sale = generator(self.shop.seed, Purpose.ITEM_SALE).integers(0, 1 << 30, size=(self.size, 4), dtype=np.int64)
        self._sale_period = 28 + sale[:, 0] % 43
        self._sale_phase = sale[:, 1] % self._sale_period
        # Half of the items have sales, of three to seven days every four to ten weeks, at 10 to 40 % off.
        self._sale_days = np.where(sale[:, 2] % 2 == 0, 3 + sale[:, 2] // 2 % 5, 0)
        percent = 90 - 10 * (sale[:, 3] % 4)
        self._sale_cents = np.maximum(self._base_cents * percent // 100 // 50 * 50 + 49, 49)

    def _draw_stock(self) -> None:
        random = generator(self.shop.seed, Purpose.ITEM_STOCK)
        draws = random.integers(0, 1 << 30, size=(self.size, 5), dtype=np.int64)
        self._stock_cycle = 12 + draws[:, 0] % 29
        self._stock_phase = draws[:, 1] % self._stock_cycle
        self._stock_full = 5 + draws[:, 2] % 60 * (1 + draws[:, 2] // 64 % 4)
        sells_out = draws[:, 3] % 256 < SELLS_OUT
        # Stock lasts for 75 to 100 % of the cycle if the item sells out, else for 110 to 300 %.
        percent = np.where(sells_out, 75 + draws[:, 4] % 26, 110 + draws[:, 4] % 191)
        collectible = self.group >= len(LEAVES)
        self._stock_lasts = np.where(collectible, NEVER, np.maximum(self._stock_cycle * percent // 100, 1))
        self._stock_full = np.where(collectible, 2 + draws[:, 2] % 4, self._stock_full)


def item_words(catalog: Catalog, items: Ints, kinds: int) -> npt.NDArray[np.uint8]:
    """Draw the bytes that choose an item's words, `kinds` for each item; shape (len(items), kinds)."""
    drawn = random_bytes(generator(catalog.shop.seed, Purpose.ITEM_WORDS), catalog.size * kinds)
    return drawn.reshape(catalog.size, kinds)[items]
