"""The shop's three tables as Arrow tables: what the SQLite database and the Parquet files both hold."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.demo_shop.catalog_model import NEVER, Catalog, item_words
from jobs.demo_shop.category_tree import COLORS, LINES, Department, Leaf
from jobs.demo_shop.draws import Ints
from jobs.demo_shop.event_model import Events
from jobs.demo_shop.person_names import FIRST_NAMES, LAST_NAMES
from jobs.demo_shop.shop_plan import DAY_US
from jobs.demo_shop.user_model import (
    AGE_BANDS,
    AGE_TABLE,
    COUNTRIES,
    COUNTRY_TABLE,
    GENDER_TABLE,
    GENDERS,
    NEVER_US,
    UserBlock,
)
from schemas.tables import EVENT_TYPES, INSTANT, MONEY

USER_ID_DIGITS: Final = 7  # "0000042"; shops beyond ten million users get longer ids, never cut ones
ITEM_ID_DIGITS: Final = 6
CURRENCY: Final = "EUR"
ITEM_URL: Final = "https://shop.example.com/items/"
IMAGE_SUFFIX: Final = ".svg"
MONEY_UNITS_PER_CENT: Final = 100  # MONEY has four decimals

EVENTS_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.int64(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("occurred_at", INSTANT, nullable=False),
        pa.field("received_at", INSTANT, nullable=False),
        pa.field("quantity", pa.int32(), nullable=False),
        pa.field("price", MONEY, nullable=False),
    ]
)
ITEMS_SCHEMA: Final = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("brand", pa.string(), nullable=False),
        pa.field("price", MONEY, nullable=False),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("stock", pa.int32(), nullable=False),
        pa.field("rating", pa.float64(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("color", pa.string(), nullable=False),
        pa.field("material", pa.string(), nullable=False),
        pa.field("weight_grams", pa.int32(), nullable=False),
        pa.field("created_at", INSTANT, nullable=False),
        pa.field("delisted_at", INSTANT),
    ]
)
USERS_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("email", pa.string()),
        pa.field("is_subscribed", pa.bool_(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("country", pa.string(), nullable=False),
        pa.field("age_band", pa.string()),
        pa.field("gender", pa.string()),
        pa.field("created_at", INSTANT, nullable=False),
        pa.field("unsubscribed_at", INSTANT),
    ]
)


def padded(numbers: Ints, digits: int) -> Any:
    """Write numbers with leading zeros."""
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width=digits, padding="0")


def instants(microseconds: Ints, *, known: npt.NDArray[np.bool_] | None = None) -> Any:
    """Turn microseconds from 1970 into UTC instants, null where not known."""
    return pa.array(microseconds, INSTANT, mask=None if known is None else ~known)


def money(cents: Ints) -> Any:
    """Turn cents into MONEY without going through floating point: 128-bit integers, the lower half first."""
    halves = np.empty((len(cents), 2), dtype="<i8")
    halves[:, 0] = cents * MONEY_UNITS_PER_CENT
    halves[:, 1] = halves[:, 0] >> 63
    return pa.Array.from_buffers(MONEY, len(cents), [None, pa.py_buffer(halves)])


def cents(amounts: Any) -> Ints:
    """Turn MONEY back into cents, exactly."""
    whole = pa.chunked_array([amounts]) if isinstance(amounts, pa.Array) else amounts
    halves = [
        np.frombuffer(chunk.buffers()[1], dtype="<i8").reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk), 0]
        for chunk in whole.chunks
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *halves]) // MONEY_UNITS_PER_CENT


def image_urls(ids: Any, image_base_url: str) -> Any:
    """Where the picture of each item is."""
    return pc.binary_join_element_wise(f"{image_base_url.rstrip('/')}/", ids, IMAGE_SUFFIX, "")


def item_ids(catalog: Catalog) -> Any:
    """The ids of all items, by item number."""
    return padded(np.arange(catalog.size), ITEM_ID_DIGITS)


def events_table(events: Events, user_ids: Any, ids: Any, first_event_id: int) -> pa.Table:
    """Name users and items by their ids and number the events on from `first_event_id`."""
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(first_event_id, first_event_id + len(events), dtype=np.int64)),
            user_ids.take(pa.array(events.place)),
            ids.take(pa.array(events.item)),
            pa.array(EVENT_TYPES).take(pa.array(events.event_type)),
            instants(events.occurred_us),
            instants(events.received_us),
            pa.array(events.quantity),
            money(events.price_cents),
        ],
        schema=EVENTS_SCHEMA,
    )


def items_table(catalog: Catalog, items: Ints, day: int, image_base_url: str) -> pa.Table:
    """Describe the items as they are at the end of the day."""
    ids = padded(items, ITEM_ID_DIGITS)
    words = _Words(catalog, items)
    delisted_day = catalog.delisted_day[items]
    count = len(items)
    return pa.Table.from_arrays(
        [
            ids,
            words.title(),
            words.of_leaf(lambda leaf: (leaf.path,)),
            words.brand,
            money(catalog.prices(items, day)),
            pa.repeat(CURRENCY, count),
            pa.array(catalog.stock(items, day), pa.int32()),
            pa.array(catalog.rating_tenths[items] / 10),
            pc.binary_join_element_wise(ITEM_URL, ids, ""),
            image_urls(ids, image_base_url),
            words.color,
            words.material,
            words.grams(),
            instants(catalog.created_us[items]),
            instants(np.where(delisted_day < NEVER, delisted_day, 0) * DAY_US, known=delisted_day <= day),
        ],
        schema=ITEMS_SCHEMA,
    )


def users_table(users: UserBlock, places: Ints, day: int) -> pa.Table:
    """Describe the users at these places of the block as they are at the end of the day."""
    ids = padded(users.numbers[places], USER_ID_DIGITS)
    person = users.person[places]
    # Personal names and country do not go together: in a union where people move, nobody expects them to.
    first = pa.array(FIRST_NAMES).take(pa.array(person[:, 0] % len(FIRST_NAMES)))
    last = pa.array(LAST_NAMES).take(pa.array(person[:, 1] % len(LAST_NAMES)))
    address = pc.binary_join_element_wise(
        pc.binary_join_element_wise(first, last, ids, "."), pa.scalar("example.com"), "@"
    )
    country = pa.array(COUNTRY_TABLE[person[:, 2]])
    unsubscribed_us = users.unsubscribed_us[places]
    has_left = unsubscribed_us < (day + 1) * DAY_US
    return pa.Table.from_arrays(
        [
            ids,
            pc.if_else(pa.array(users.has_address[places]), address, pa.scalar(None, pa.string())),
            pa.array(~has_left),
            pa.array([locale for locale, _, _ in COUNTRIES]).take(country),
            pa.array([code for _, code, _ in COUNTRIES]).take(country),
            pa.array(AGE_BANDS).take(pa.array(AGE_TABLE[person[:, 3]])),
            pa.array(GENDERS).take(pa.array(GENDER_TABLE[person[:, 4]])),
            instants(users.created_us[places]),
            instants(np.where(unsubscribed_us < NEVER_US, unsubscribed_us, 0), known=has_left),
        ],
        schema=USERS_SCHEMA,
    )


class _Words:
    """Chooses each item's words from those of its department and leaf."""

    def __init__(self, catalog: Catalog, items: Ints) -> None:
        self._group = catalog.group[items]
        self._groups = [catalog.leaf_of_group(group) for group in range(int(catalog.group.max()) + 1)]
        self._bytes = item_words(catalog, items, 7)
        self.brand = self._choose(lambda department, leaf: department.brands, 0)
        self.material = self._choose(lambda department, leaf: department.materials, 1)
        self.color = pa.array(COLORS).take(pa.array(self._bytes[:, 2] % len(COLORS)))

    def title(self) -> Any:
        """Put the words together, as in: Northfield Hearth Matte Stoneware Mug, Sand."""
        line = pa.array(LINES).take(pa.array(self._bytes[:, 3] % len(LINES)))
        adjective = self._choose(lambda department, leaf: department.adjectives, 4)
        noun = self._choose(lambda department, leaf: leaf.nouns, 5)
        name = pc.binary_join_element_wise(self.brand, line, adjective, self.material, noun, " ")
        return pc.binary_join_element_wise(name, self.color, ", ")

    def of_leaf(self, words: Callable[[Leaf], Iterable[str]]) -> Any:
        """The first of the leaf's words, such as its path."""
        return self._choose(lambda department, leaf: tuple(words(leaf)), 0)

    def grams(self) -> Any:
        """The leaf's weight, 70 to 130 % of it."""
        typical = np.asarray([leaf.grams for _, leaf in self._groups])[self._group]
        return pa.array(typical * (70 + self._bytes[:, 6].astype(np.int64) % 61) // 100, pa.int32())

    def _choose(self, words: Callable[[Department, Leaf], tuple[str, ...]], kind: int) -> Any:
        lists = [words(department, leaf) for department, leaf in self._groups]
        counts = np.asarray([len(each) for each in lists])
        starts = np.cumsum(counts) - counts
        chosen = starts[self._group] + self._bytes[:, kind] % counts[self._group]
        return pa.array([word for each in lists for word in each]).take(pa.array(chosen))
