"""Every table of the lake: its Arrow schema, key, grain and layout. The only place where columns are named.

Instants are UTC with microseconds and end in `_at`. `item` is a position in the item index (int32), `item_id` the
shop's own id (a string, to the byte). E-mail addresses live in `users` and nowhere else.
"""

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

INSTANT: Final = pa.timestamp("us", tz="UTC")
# 14 digits with 4 decimals hold every ISO 4217 currency (the finest has 4) up to ten thousand million.
MONEY: Final = pa.decimal128(14, 4)
PROPERTIES: Final = pa.map_(pa.string(), pa.string())

# The order is the code that `profiles.event_type` stores: append only.
EVENT_TYPES: Final = (
    "view",
    "cart_add",
    "cart_remove",
    "wishlist_add",
    "wishlist_remove",
    "purchase",
    "refund",
)

QUARANTINE_REASONS: Final = (
    "bad_encoding",
    "null_user",
    "null_item",
    "unknown_event_type",
    "bad_timestamp",
    "outside_window",
    "future_timestamp",
    "bad_quantity",
    "bad_price",
    "id_too_long",
    "duplicate_event",
    "duplicate_item",
    "duplicate_user",
    "missing_field",
    "bad_email",
    "email_collision",
    "rejected_by_provider",
)


@dataclass(frozen=True)
class Table:
    """One table: its columns and how its partitions are laid out.

    `bucketed`: a partition has one file per user bucket, in bucket order.
    `per_campaign`: partitions are kept apart by campaign.
    `dated`: one partition a UTC day; an undated table has one partition in all.
    `repeating`: the columns whose values come again and again, which Parquet stores as a dictionary and positions in
    it. None: it tries that with every column, and gives up where the dictionary grows too large.
    """

    name: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema
    bucketed: bool = False
    per_campaign: bool = False
    dated: bool = True
    repeating: tuple[str, ...] | None = None
    version: int = 1


def _schema(*fields: "pa.Field[Any]") -> pa.Schema:
    return pa.schema(fields)


def _required(name: str, kind: pa.DataType) -> "pa.Field[Any]":
    return pa.field(name, kind, nullable=False)


def _list(name: str, kind: pa.DataType) -> "pa.Field[Any]":
    return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)


EVENTS: Final = Table(
    name="events",
    grain="one row per thing a user did with an item",
    key=("user_id", "item_id", "event_type", "occurred_at"),
    bucketed=True,
    # Trying it with all six takes 1.6 times the CPU and a quarter more bytes.
    repeating=("item_id", "event_type"),
    schema=_schema(
        _required("user_id", pa.string()),
        _required("item_id", pa.string()),
        _required("event_type", pa.string()),
        _required("occurred_at", INSTANT),
        _required("quantity", pa.int32()),
        pa.field("price", MONEY),
    ),
)

RECENT_EVENTS: Final = Table(
    name="recent_events",
    grain="one row per thing a user did after the date, up to the moment before the push",
    key=EVENTS.key,
    bucketed=True,
    per_campaign=True,
    schema=EVENTS.schema,
)

CATALOG: Final = Table(
    name="catalog",
    grain="one row per item that the shop knows on that day",
    key=("item_id",),
    schema=_schema(
        _required("item_id", pa.string()),
        _required("title", pa.string()),
        _required("url", pa.string()),
        _required("image_url", pa.string()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        _required("price", MONEY),
        _required("currency", pa.string()),
        _required("stock", pa.int32()),
        pa.field("rating", pa.float32()),
        pa.field("created_at", INSTANT),
        pa.field("properties", PROPERTIES),
    ),
)

USERS: Final = Table(
    name="users",
    grain="one row per user that the shop knows on that day",
    key=("user_id",),
    bucketed=True,
    schema=_schema(
        _required("user_id", pa.string()),
        pa.field("email", pa.string()),
        _required("is_subscribed", pa.bool_()),
        pa.field("locale", pa.string()),
        pa.field("properties", PROPERTIES),
    ),
)

ITEM_INDEX: Final = Table(
    name="item_index",
    grain="one row per item id ever seen; row i holds item i; rows are only ever appended",
    key=("item",),
    dated=False,
    schema=_schema(_required("item", pa.int32()), _required("item_id", pa.string())),
)

PROFILES: Final = Table(
    name="profiles",
    grain="one row per user ever seen, in user_id order within the bucket; the lists are parallel, newest first",
    key=("user_id",),
    bucketed=True,
    version=2,
    schema=_schema(
        _required("user_id", pa.string()),
        _list("item", pa.int32()),
        _list("event_type", pa.int8()),
        _list("last_at", INSTANT),
        _list("count", pa.int32()),  # events at that instant
        # What the user was mailed: see jobs/profiles/mails.py.
        _list("mailed_item", pa.int32()),
        _list("mailed_last_on", pa.date32()),
        _list("mailed_days", pa.int64()),
    ),
)

CORRELATIONS: Final = Table(
    name="correlations",
    grain="one row per item that has a correlated item, in item order; the lists are parallel, best first",
    key=("item",),
    per_campaign=True,
    version=2,
    schema=_schema(
        _required("item", pa.int32()),
        _list("other_item", pa.int32()),
        _list("score", pa.float32()),
        _list("support", pa.int32()),  # users in common
        _list("source", pa.int8()),  # a position in CORRELATION_SOURCES
    ),
)
# The order is the code that `correlations.source` stores: append only.
CORRELATION_SOURCES: Final = ("co-occurrence", "hybrid", "both")

PRODUCT_CORRELATIONS: Final = Table(
    name="product_correlations",
    grain="one row per item that has a correlated item, in item order: the 20 that it is shown with, best first",
    key=("item_id",),
    per_campaign=True,
    schema=_schema(
        _required("item_id", pa.string()),
        _list("other_item_id", pa.string()),
        _list("score", pa.float32()),
        _list("support", pa.int32()),
        _list("source", pa.int8()),
    ),
)

BACKTESTS: Final = Table(
    name="backtests",
    grain="one row per model and measure: how well it predicted the days that it did not see",
    key=("model", "measure"),
    per_campaign=True,
    schema=_schema(
        _required("model", pa.string()),
        _required("role", pa.string()),
        _required("measure", pa.string()),
        _required("value", pa.float64()),
        _required("is_chosen", pa.bool_()),
    ),
)
BACKTEST_ROLES: Final = ("popularity", "candidate", "last_good", "short_lists")

HYBRID_FEATURES: Final = Table(
    name="hybrid_features",
    grain="one row per feature of the hybrid model, items' first, in byte order; the model is these numbers",
    key=("side", "feature"),
    per_campaign=True,
    schema=_schema(
        _required("side", pa.string()),
        _required("feature", pa.string()),
        _required("bias", pa.float32()),
        _list("vector", pa.float32()),
    ),
)
HYBRID_SIDES: Final = ("item", "user")

HYBRID_ITEMS: Final = Table(
    name="hybrid_items",
    grain="one row per item of the catalog that has a feature of the model, in item order; its vector in whole numbers",
    key=("item",),
    per_campaign=True,
    schema=_schema(_required("item", pa.int32()), _list("vector", pa.int16())),
)

HYBRID_USERS: Final = Table(
    name="hybrid_users",
    grain="one row per combination of what is known of users; the lists are parallel, best first",
    key=("key",),
    per_campaign=True,
    schema=_schema(_required("key", pa.string()), _list("item", pa.int32()), _list("score", pa.float32())),
)

TRENDING: Final = Table(
    name="trending",
    grain="one row per category path, and one with an empty key for all; the lists are parallel, most in demand first",
    key=("key",),
    per_campaign=True,
    schema=_schema(_required("key", pa.string()), _list("item", pa.int32()), _list("score", pa.float32())),
)

RECOMMENDATIONS: Final = Table(
    name="recommendations",
    grain="one row per user of profiles or users, in user_id order within the bucket; the lists are parallel, best "
    "first, those of each source behind those of the one before",
    key=("user_id",),
    bucketed=True,
    per_campaign=True,
    version=2,
    schema=_schema(
        _required("user_id", pa.string()),
        _list("item", pa.int32()),
        _list("score", pa.float32()),
        _list("source", pa.int8()),  # a position in RECOMMENDATION_SOURCES
        _required("outcome", pa.string()),
    ),
)
# Where an item of a list came from: the user's own history or wishlist, a step of the fallback ladder, or the quota of
# new items. The order is the code that `recommendations.source` stores: append only.
RECOMMENDATION_SOURCES: Final = ("history", "wishlist", "hybrid", "trending_in_categories", "trending", "exposure")
RECOMMEND_OUTCOMES: Final = ("recommended", "too_few", "no_history")

CHUNKS: Final = Table(
    name="chunks",
    grain="one row per user of recommendations, users or mirror; what the push does with them",
    key=("user_id",),
    bucketed=True,
    per_campaign=True,
    schema=_schema(
        _required("user_id", pa.string()),
        _required("action", pa.string()),
        _required("reason", pa.string()),
        _list("item", pa.int32()),
        # Digest of the content that the provider is known to hold; null where nothing is known, or all is to be pushed.
        pa.field("held", pa.int64()),
        # Which of the bucket's chunks pushes the row, from 0; -1 where nothing is pushed.
        _required("part", pa.int32()),
        # Which of the campaign's variants an upserted user gets; an empty text where it has none.
        _required("variant", pa.string()),
    ),
    version=2,
)
PLAN_ACTIONS: Final = ("upsert", "clear", "unchanged", "withheld")
# Why a user has the action that they have. `withheld` users are neither pushed nor mailed.
PLAN_REASONS: Final = (
    "has_recommendations",
    "nothing_any_more",
    "held_nothing",
    "erased",
    "no_address",
    "unsubscribed",
    "suppressed",
    "not_in_users",
    "other_locale",
    "not_in_segments",
    "holdout",
)

RECEIPTS: Final = Table(
    name="receipts",
    grain="one row per contact that a chunk pushed, in request order; one file per request",
    key=("user_id",),
    per_campaign=True,
    version=2,
    schema=_schema(
        _required("user_id", pa.string()),
        _required("chunk", pa.int32()),
        _list("item", pa.int32()),
        _required("outcome", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("content", pa.int64()),  # digest of what the contact holds now
    ),
)
RECEIPT_OUTCOMES: Final = ("delivered", "cleared", "quarantined")
# Of a push by Mail Send: `unknown` was in a request whose answer was never heard, `not_sent` turned out not to have
# left, `withheld` was planned and got no mail after all.
MAIL_OUTCOMES: Final = ("delivered", "unknown", "not_sent", "withheld", "quarantined")
# What counts as mailed: who may have been is not mailed the same again.
MAILED_OUTCOMES: Final = ("delivered", "unknown")
# Why a contact is quarantined: it alone made its request invalid, or its import job refused it twice. Why a user is
# withheld from Mail Send at the last moment: too few items are left, or they were erased since the plan.
RECEIPT_REASONS: Final = ("refused_request", "refused_import", "too_few_left", "erased")

MIRROR: Final = Table(
    name="mirror",
    grain="one row per user whose contact the provider is known to hold",
    key=("user_id",),
    version=2,
    bucketed=True,
    per_campaign=True,
    schema=_schema(
        _required("user_id", pa.string()),
        _list("item", pa.int32()),
        _required("send_date", pa.date32()),
        pa.field("content", pa.int64()),  # digest of the content; null where it is not known for certain
    ),
)

SUPPRESSIONS: Final = Table(
    name="suppressions",
    grain="one row per suppressed address and kind; the address is a keyed hash",
    key=("address_key", "kind"),
    per_campaign=True,
    # Signed, bit for bit: Spark has no unsigned type of 64 bits.
    schema=_schema(_required("address_key", pa.int64()), _required("kind", pa.string())),
)

MAIL_EVENTS: Final = Table(
    name="mail_events",
    grain="one row per thing that happened to a mail",
    key=("mail_event_id",),
    per_campaign=True,
    schema=_schema(
        _required("mail_event_id", pa.string()),
        _required("mail_event_type", pa.string()),
        _required("uid", pa.string()),
        pa.field("slot", pa.int8()),
        _required("occurred_at", INSTANT),
    ),
)

FUNNEL: Final = Table(
    name="funnel",
    grain="one row per measure of one send",
    key=("measure",),
    per_campaign=True,
    schema=_schema(_required("measure", pa.string()), _required("value", pa.float64())),
)

QUARANTINE: Final = Table(
    name="quarantine",
    grain="one row per input row that was not used; no value of the row itself",
    key=("source_table", "source_position"),
    schema=_schema(
        _required("source_table", pa.string()),
        _required("reason", pa.string()),
        _required("row_hash", pa.string()),
        _required("source_position", pa.int64()),
    ),
)

# The three exports of a date publish on their own, so each has a partition of its own for what it set aside.
QUARANTINE_EVENTS, QUARANTINE_CATALOG, QUARANTINE_USERS = (
    Table(
        name=f"quarantine_{source.name}",
        grain=f"one row per row of the source of {source.name} that was not used, or whose address was not used; "
        "no value of the row itself",
        key=QUARANTINE.key,
        schema=QUARANTINE.schema,
    )
    for source in (EVENTS, CATALOG, USERS)
)

BUILDS: Final = Table(
    name="builds",
    grain="one row per partition that a finished, checked build consists of",
    key=("partition",),
    per_campaign=True,
    schema=_schema(
        _required("partition", pa.string()),
        _required("content_sha256", pa.string()),
        _required("rows", pa.int64()),
    ),
)

TABLES: Final = {
    table.name: table
    for table in (
        EVENTS, CATALOG, USERS, ITEM_INDEX, PROFILES, BACKTESTS, CORRELATIONS, PRODUCT_CORRELATIONS, HYBRID_FEATURES,
        HYBRID_ITEMS, HYBRID_USERS, TRENDING, RECOMMENDATIONS, RECENT_EVENTS, CHUNKS, RECEIPTS, MIRROR, SUPPRESSIONS,
        MAIL_EVENTS, FUNNEL, BUILDS, QUARANTINE, QUARANTINE_EVENTS, QUARANTINE_CATALOG, QUARANTINE_USERS,
    )
}  # fmt: skip
