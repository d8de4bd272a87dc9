"""A lake as it stands before the fold of one night: seeded, of any number of users, made bucket by bucket.

Per user some 15 records (5 recent views, 4 older ones, 3 purchases, 2 wishes, a cart) and the 6 items of the last mail,
which together rule out about 17 items; of the day itself events for a fifth of the users, and the receipts of last
night's mail for all. Items are of very different popularity. User ids stand in their bucket without being hashed.
"""

import datetime as dt
import decimal
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import list_column
from jobs.lake.manifest import FileEntry, Window
from schemas.layout import UNDATED, Partition
from schemas.tables import (
    CATALOG,
    CORRELATIONS,
    EVENT_TYPES,
    EVENTS,
    INSTANT,
    ITEM_INDEX,
    PROFILES,
    RECEIPTS,
    TRENDING,
    USERS,
)

BUCKETS = 64
DATE = dt.date(2026, 3, 2)
BEFORE = DATE - dt.timedelta(days=1)
END = int(Window.of_days(BEFORE, BEFORE).end_at.timestamp() * 1e6)
DAY = 86_400_000_000
# What a user did before the day: how often, what, and how many days ago.
RECORDS = (
    (5, "view", 0, 10),
    (4, "view", 10, 60),
    (3, "purchase", 5, 300),
    (2, "wishlist_add", 5, 60),
    (1, "cart_add", 1, 5),
)
DEPTH = 200  # correlations kept of each item
CORRELATION_BLOCK = 5_000
MAILED = 6
PATHS = [f"{top} > {leaf}" for top in ("Home", "Garden", "Office", "Sport", "Toys") for leaf in range(20)]


@dataclass(frozen=True)
class Plan:
    """Where the lake goes and how large it is."""

    folder: Path
    users: int
    items: int
    campaign: str

    @property
    def lake(self) -> Lake:
        return Lake.open(str(self.folder / "lake"), buckets=BUCKETS)

    def users_of(self, bucket: int) -> int:
        return self.users // BUCKETS + (bucket < self.users % BUCKETS)


def make_lake(plan: Plan) -> None:
    """Make all of it, two buckets at a time."""
    lake = plan.lake
    attempts = {
        name: lake.attempt(Partition(name, date, plan.campaign if campaign else None), "bench")
        for name, date, campaign in (
            ("profiles", BEFORE, False), ("events", DATE, False), ("receipts", BEFORE, True), ("users", DATE, False),
        )
    }  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.starmap(_bucket, [(plan, attempts, bucket) for bucket in range(BUCKETS)], chunksize=1)
    window = Window.of_days(DATE, DATE)
    for name, attempt in attempts.items():
        attempt.publish(
            [files[name] for files in made], inputs=[], parameters={},
            window=window if name == "events" else None, metrics={"receipts": {}} if name == "profiles" else {},
        )  # fmt: skip
    _publish_items(plan)
    _publish_correlations(plan)


def _bucket(plan: Plan, attempts: dict[str, Attempt], bucket: int) -> dict[str, FileEntry]:
    count, rng = plan.users_of(bucket), np.random.default_rng((7, bucket))
    ids = pa.array(np.char.add(f"{bucket:02d}-", np.char.zfill(np.arange(count).astype("U7"), 7)))
    mailed = _distinct(rng, plan.items, count, MAILED)
    rows = {
        "profiles": _profiles(ids, rng, plan.items),
        "events": _events(ids, rng, plan.items),
        "receipts": pa.table(
            {
                "user_id": ids,
                "chunk": pa.array(np.full(count, bucket), pa.int32()),
                "item": list_column(RECEIPTS, "item", mailed.ravel(), np.full(count, MAILED)),
                "outcome": pa.array(np.full(count, "delivered")),
                "reason": pa.nulls(count, pa.string()),
                "content": pa.array(rng.integers(0, 2**62, count)),
            },
            schema=RECEIPTS.schema,
        ),
        "users": pa.table(
            {
                "user_id": ids,
                "email": pa.nulls(count, pa.string()),
                "is_subscribed": pa.array(np.ones(count, np.bool_)),
                "locale": pa.nulls(count, pa.string()),
                "properties": pa.nulls(count, USERS.schema.field("properties").type),
            },
            schema=USERS.schema,
        ),
    }
    return {name: attempts[name].write(table, bucket=bucket) for name, table in rows.items()}


def popular(rng: np.random.Generator, items: int, shape: tuple[int, ...] | int) -> np.ndarray:
    """Draw items: a tenth of them gets nearly half of all draws."""
    return (items * rng.random(shape) ** 3).astype(np.int64)


def _distinct(rng: np.random.Generator, items: int, rows: int, count: int) -> np.ndarray:
    """Draw as many different items per row: repeats move to the item behind."""
    drawn = np.sort(popular(rng, items - 50, (rows, count)), axis=1)
    for place in range(1, count):
        drawn[:, place] = np.maximum(drawn[:, place], drawn[:, place - 1] + 1)
    return drawn


def _profiles(ids: pa.Array, rng: np.random.Generator, items: int) -> pa.Table:
    users, per_user = len(ids), sum(count for count, *_ in RECORDS)
    drawn = rng.permuted(_distinct(rng, items, users, per_user), axis=1)
    kind = np.concatenate([np.full(count, EVENT_TYPES.index(name)) for count, name, _, _ in RECORDS])
    ages = [rng.integers(low * DAY + 1, high * DAY, (users, count)) for count, _, low, high in RECORDS]
    at = END - np.concatenate(ages, axis=1)
    order = np.argsort(-at, axis=1)
    counts = np.full(users, per_user)

    def column(name: str, values: np.ndarray) -> pa.Array:
        return list_column(PROFILES, name, np.take_along_axis(values, order, axis=1).ravel(), counts)

    empty = np.zeros(users, np.int64)
    return pa.table(
        {
            "user_id": ids,
            "item": column("item", drawn),
            "event_type": column("event_type", np.broadcast_to(kind.astype(np.int8), drawn.shape)),
            "last_at": column("last_at", at),
            "count": column("count", np.ones_like(drawn)),
            "mailed_item": list_column(PROFILES, "mailed_item", empty[:0], empty),
            "mailed_last_on": list_column(PROFILES, "mailed_last_on", empty[:0].astype(np.int32), empty),
            "mailed_days": list_column(PROFILES, "mailed_days", empty[:0], empty),
        },
        schema=PROFILES.schema,
    )


def _events(ids: pa.Array, rng: np.random.Generator, items: int) -> pa.Table:
    """Five events each for a fifth of the users."""
    user = np.repeat(rng.choice(len(ids), len(ids) // 5, replace=False), 5)
    kinds = rng.choice(len(EVENT_TYPES), len(user), p=(0.84, 0.07, 0.02, 0.03, 0.01, 0.02, 0.01))
    return pa.table(
        {
            "user_id": ids.take(pa.array(user)),
            "item_id": _ids(popular(rng, items, len(user))),
            "event_type": pa.array(EVENT_TYPES).take(pa.array(kinds)),
            "occurred_at": pa.array(np.sort(END + rng.integers(0, DAY, len(user))), INSTANT),
            "quantity": pa.array(np.ones(len(user)), pa.int32()),
            "price": pa.nulls(len(user), EVENTS.schema.field("price").type),
        },
        schema=EVENTS.schema,
    )


def _ids(items: np.ndarray) -> pa.Array:
    return pa.array(np.char.zfill(items.astype("U6"), 6))


def _publish_items(plan: Plan) -> None:
    rng, items = np.random.default_rng(11), plan.items
    ids = _ids(np.arange(items))
    index = {"item": pa.array(range(items), pa.int32()), "item_id": ids}
    _publish(plan, "item_index", UNDATED, pa.table(index, schema=ITEM_INDEX.schema))
    cents = rng.integers(100, 50_000, items)
    parents = _ids(np.arange(items) // 3)  # variants: three items each
    properties = pa.MapArray.from_arrays(
        np.arange(items + 1, dtype=np.int32), pa.array(np.full(items, "parent")), parents
    )
    catalog = {
        "item_id": ids,
        "title": pa.array(np.full(items, "Title")),
        "url": pa.array(np.full(items, "https://shop.example.com/item")),
        "image_url": pa.array(np.full(items, "https://shop.example.com/item.png")),
        "category": pa.array(PATHS).take(pa.array(rng.integers(0, len(PATHS), items))),
        "brand": pa.array([f"Brand {n}" for n in range(500)]).take(pa.array(rng.integers(0, 500, items))),
        "price": pa.array([decimal.Decimal(int(n)).scaleb(-2) for n in cents], CATALOG.schema.field("price").type),
        "currency": pa.array(np.full(items, "EUR")),
        "stock": pa.array(rng.integers(0, 20, items), pa.int32()),
        "rating": pa.array(rng.uniform(1, 5, items), pa.float32()),
        "created_at": pa.array(END - rng.integers(DAY, 900 * DAY, items), INSTANT),
        "properties": properties.cast(CATALOG.schema.field("properties").type),
    }
    _publish(plan, "catalog", DATE, pa.table(catalog, schema=CATALOG.schema))
    in_demand = [popular(rng, items, 400) for _ in range(len(PATHS) + 1)]
    lists = [np.unique(drawn)[:100] for drawn in in_demand]
    trending = {
        "key": pa.array(["", *PATHS]),
        "item": list_column(TRENDING, "item", np.concatenate(lists), np.array([len(one) for one in lists])),
        "score": list_column(
            TRENDING, "score", np.concatenate([1 / (1 + np.arange(len(one))) for one in lists]),
            np.array([len(one) for one in lists]),
        ),
    }  # fmt: skip
    _publish(plan, "trending", DATE, pa.table(trending, schema=TRENDING.schema))


def _publish(plan: Plan, table: str, date: dt.date, rows: pa.Table) -> None:
    campaign = plan.campaign if table in ("trending", "correlations") else None
    attempt = plan.lake.attempt(Partition(table, date, campaign), "bench")
    attempt.publish([attempt.write(rows)], inputs=[], parameters={})


def _publish_correlations(plan: Plan) -> None:
    attempt = plan.lake.attempt(Partition("correlations", DATE, plan.campaign), "bench")
    files = []
    for block, first in enumerate(range(0, plan.items, CORRELATION_BLOCK)):
        rng, count = np.random.default_rng((13, first)), min(CORRELATION_BLOCK, plan.items - first)
        item = np.arange(first, first + count)
        other = rng.permuted(_distinct(rng, plan.items, count, DEPTH), axis=1)
        other = np.where(other == item[:, None], (other + 49) % plan.items, other)
        score = -np.sort(-(rng.random((count, DEPTH)).astype(np.float32) ** 2) - 0.001, axis=1)
        counts = np.full(count, DEPTH)
        rows = {
            "item": pa.array(item, pa.int32()),
            "other_item": list_column(CORRELATIONS, "other_item", other.ravel(), counts),
            "score": list_column(CORRELATIONS, "score", score.ravel(), counts),
            "support": list_column(CORRELATIONS, "support", np.full(other.size, 5), counts),
            "source": list_column(CORRELATIONS, "source", np.zeros(other.size, np.int8), counts),
        }
        files.append(attempt.write(pa.table(rows, schema=CORRELATIONS.schema), bucket=block))
    attempt.publish(files, inputs=[], parameters={})
