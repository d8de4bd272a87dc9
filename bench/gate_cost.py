"""What the gates cost at ten million users: counting the figures with Arrow, and judging them with Great Expectations.

One bucket of 64 is made per table and counted; the rest is arithmetic. Run: .venv/bin/python -m bench.gate_cost
"""

import math
import resource
import time

import numpy as np
import pyarrow as pa

from jobs.quality.figures import observe
from jobs.quality.gates import evaluate
from jobs.quality.list_figures import observe_lists
from schemas.contracts import CONTRACTS
from schemas.tables import CATALOG, EVENT_TYPES, EVENTS, MONEY, PROFILES, RECOMMENDATIONS, USERS

USERS_IN_ALL, BUCKETS, ITEMS, SLOTS = 10_000_000, 64, 200_000, 6
RECORDS, EVENTS_PER_USER = 20, 3
DAY = 1_770_000_000_000_000


def money(rng, rows):
    """Prices of 0.01 to 9.99."""
    return pa.array(rng.integers(1, 1000, rows) / 100).cast(MONEY, safe=False)


def lists(values, kind, length):
    """Cut values into lists of one length."""
    offsets = np.arange(0, len(values) + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values, kind.value_type), type=kind)


def buckets():
    """One bucket of every per-user table, and the whole catalog."""
    rng, users = np.random.default_rng(7), USERS_IN_ALL // BUCKETS
    ids = pa.array([f"user-{n:09}" for n in range(users)])
    events = users * EVENTS_PER_USER
    items = pa.array([f"item-{n:07}" for n in range(ITEMS)])
    text = pa.array(["https://shop.example.com/an-item-with-a-name"] * ITEMS)
    field = {table.name: table.schema.field for table in (PROFILES, RECOMMENDATIONS)}
    many, shown = users * RECORDS, users * SLOTS
    yield EVENTS, BUCKETS, {
        "user_id": ids.take(pa.array(rng.integers(0, users, events))),
        "item_id": items.take(pa.array(rng.integers(0, ITEMS, events))),
        "event_type": pa.array(EVENT_TYPES).take(pa.array(rng.integers(0, len(EVENT_TYPES), events))),
        "occurred_at": pa.array(DAY + rng.integers(0, 86_400_000_000, events), EVENTS.schema.field("occurred_at").type),
        "quantity": pa.array(np.ones(events, np.int32)),
        "price": money(rng, events),
    }  # fmt: skip
    yield USERS, BUCKETS, {
        "user_id": ids,
        "email": pa.array([f"user.{n:09}@example.com" for n in range(users)]),
        "is_subscribed": pa.array(np.ones(users, np.bool_)),
    }  # fmt: skip
    yield CATALOG, 1, {
        "item_id": items, **dict.fromkeys(("title", "url", "image_url"), text),
        "price": money(rng, ITEMS),
        "currency": pa.array(["EUR"] * ITEMS), "stock": pa.array(np.ones(ITEMS, np.int32)),
    }  # fmt: skip
    yield PROFILES, BUCKETS, {
        "user_id": ids,
        "item": lists(rng.integers(0, ITEMS, many), field["profiles"]("item").type, RECORDS),
        "event_type": lists(np.zeros(many, np.int8), field["profiles"]("event_type").type, RECORDS),
        "last_at": lists(np.full(many, DAY), field["profiles"]("last_at").type, RECORDS),
        "count": lists(np.ones(many, np.int32), field["profiles"]("count").type, RECORDS),
    }  # fmt: skip
    yield RECOMMENDATIONS, BUCKETS, {
        "user_id": ids,
        "item": lists(rng.integers(0, ITEMS, shown), field["recommendations"]("item").type, SLOTS),
        "score": lists(rng.random(shown), field["recommendations"]("score").type, SLOTS),
        "source": lists(np.zeros(shown, np.int8), field["recommendations"]("source").type, SLOTS),
        "outcome": pa.array(["recommended"] * users),
    }  # fmt: skip


def main():
    """Print one line a table."""
    print(f"{'table':16} {'rows':>12} {'a file':>8} {'in all':>8} {'judging':>8}   (CPU seconds)")
    everything = np.ones(ITEMS, np.bool_)
    evaluate("events", {check.figure: math.nan for check in CONTRACTS["events"].checks})  # imports Great Expectations
    for table, files, columns in buckets():
        rows = next(len(column) for column in columns.values())
        whole = [columns.get(field.name, pa.nulls(rows, field.type)) for field in table.schema]
        data = pa.table(whole, schema=table.schema)
        start = time.process_time()
        if table is RECOMMENDATIONS:
            observe_lists(data, in_catalog=everything, in_stock=everything, slots=SLOTS, min_items=3)
        else:
            observe(CONTRACTS[table.name], data)
        counted = time.process_time() - start
        start = time.process_time()
        evaluate(table.name, {check.figure: 1.0 for check in CONTRACTS[table.name].checks})
        judged = time.process_time() - start
        print(f"{table.name:16} {rows * files:12,} {counted:8.2f} {counted * files:8.1f} {judged:8.3f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB, Great Expectations included")


if __name__ == "__main__":
    main()
