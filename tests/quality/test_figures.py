"""Figures against plain Python, however the rows are cut into files, and what they must never hold."""

import datetime as dt
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lake.lake import Lake
from jobs.quality.figures import Observed, figures_of, hours_before, observe, observe_files
from jobs.quality.list_figures import FOLLOWS_STOCK, list_figures, list_metrics, observe_lists
from schemas.contracts import CONTRACTS
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.tables import CATALOG, CORRELATIONS, EVENTS, PROFILES, RECOMMENDATION_SOURCES, RECOMMENDATIONS, USERS

DATE = dt.date(2026, 3, 2)
AT = dt.datetime(2026, 3, 2, 18, tzinfo=dt.UTC)

EVENT = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["007", "7", "ü", "😀" * 3]),
        "item_id": st.sampled_from(["a", "b"]),
        "event_type": st.sampled_from(["view", "purchase", "something"]),
        "occurred_at": st.sampled_from([AT, AT - dt.timedelta(days=1)]),
        "quantity": st.integers(-2, 5),
        "price": st.none() | st.integers(0, 99),
    }
)


def table_of(table, rows):
    columns = {name: pa.array([row[name] for row in rows], table.schema.field(name).type) for name in rows[0]}
    for field in table.schema:
        columns.setdefault(field.name, pa.nulls(len(rows), field.type))
    return pa.table([columns[name] for name in table.schema.names], names=table.schema.names)


@given(st.lists(EVENT, min_size=1, max_size=20), st.integers(1, 5))
@settings(deadline=None)
def test_event_figures_are_those_of_plain_python_however_the_rows_are_cut(rows, step):
    contract = CONTRACTS["events"]
    parts = [observe(contract, table_of(EVENTS, rows[at : at + step])) for at in range(0, len(rows), step)]
    figures = figures_of(contract, Observed.total(parts))
    prices = [row["price"] for row in rows if row["price"] is not None]
    expected = {
        "rows": len(rows),
        "event_type_unknown": sum(row["event_type"] == "something" for row in rows),
        "quantity_least": min(row["quantity"] for row in rows),
        "quantity_most": max(row["quantity"] for row in rows),
        "user_id_bytes_most": max(len(row["user_id"].encode()) for row in rows),
        "user_id_nulls": 0,
        **({"price_least": min(prices), "price_most": max(prices)} if prices else {}),
    }
    assert {name: figures[name] for name in expected} == expected
    assert ("price_least" in figures) == bool(prices)


def test_values_that_come_twice_are_found_across_files_and_within_one():
    def users(*pairs):
        return table_of(USERS, [{"user_id": u, "email": e, "is_subscribed": True} for u, e in pairs])

    contract = CONTRACTS["users"]
    files = [
        users(("1", "a@example.com"), ("1", None)),
        users(("2", "a@example.com"), ("3", "no address"), ("4", None)),
    ]
    figures = figures_of(contract, Observed.total(observe(contract, rows) for rows in files))
    assert (figures["user_id_repeats"], figures["email_repeats"]) == (1, 1)
    assert figures["email_malformed_share"] == pytest.approx(1 / 3)
    assert (figures["email_share"], figures["subscribed_share"]) == (3 / 5, 1.0)


def catalog_rows(count=4, **changes):
    row = {
        "title": "T", "url": "https://shop.example.com/1", "image_url": "http://shop.example.com/1.png", "price": 2,
        "currency": "EUR", "stock": 1,
    }  # fmt: skip
    return [{**row, "item_id": str(number), **changes} for number in range(count)]


def test_a_catalog_is_counted_from_its_files_as_they_lie_on_the_disk(tmp_path):
    lake, contract = Lake.open(str(tmp_path), buckets=1), CONTRACTS["catalog"]
    attempt = lake.attempt(Partition("catalog", DATE), "r")
    odd = catalog_rows(1, url="ftp://x", title=" ", stock=0, price=9)
    rows = [*catalog_rows(3), *odd]
    entry = attempt.write(table_of(CATALOG, rows))
    figures = figures_of(contract, observe_files(contract, attempt, [entry]))
    expected = {
        "rows": 4, "item_id_repeats": 1, "in_stock_share": 0.75, "url_malformed_share": 0.25, "price_median": 2.0,
        "title_malformed_share": 0.25, "image_url_malformed_share": 0.0, "columns_different": 0, "stock_least": 0,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == expected
    path = tmp_path / attempt.folder / entry.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="not what was just written"):
        observe_files(contract, attempt, [entry])


def test_other_columns_types_and_orders_are_counted():
    contract, good = CONTRACTS["catalog"], table_of(CATALOG, catalog_rows())
    retyped = good.set_column(good.column_names.index("price"), "price", good["price"].cast(pa.float64()))
    assert observe(contract, good).sums["columns_different"] == 0
    assert observe(contract, good.append_column("more", pa.nulls(len(good)))).sums["columns_different"] == 1
    assert observe(contract, retyped).sums["columns_different"] == 1
    assert observe(contract, good.select(good.column_names[::-1])).sums["columns_different"] == 1


def test_list_columns_are_held_element_by_element():
    rows = table_of(
        CORRELATIONS,
        [
            {"item": 1, "other_item": [2, 3], "score": [0.5, math.nan], "support": [2, 2], "source": [0, 0]},
            {"item": 1, "other_item": [-1], "score": [math.inf], "support": [2, 2], "source": [0, 0]},
        ],
    )
    figures = figures_of(CONTRACTS["correlations"], observe(CONTRACTS["correlations"], rows))
    expected = {
        "score_not_finite": 2, "rows_with_ragged_other_item_lists": 1, "other_item_least": -1, "item_repeats": 1,
        "support_least": 2,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == expected


def test_freshness_counts_from_the_end_and_is_left_out_where_only_days_are_known():
    contract, end_at = CONTRACTS["profiles"], dt.datetime(2026, 3, 3, tzinfo=dt.UTC)

    def observed(*instants):
        row = {"user_id": "u", "item": [1] * len(instants), "event_type": [0] * len(instants), "last_at": instants}
        return observe(contract, table_of(PROFILES, [{**row, "count": [1] * len(instants)}]))

    assert hours_before(end_at, observed(AT, AT - dt.timedelta(days=3)))["newest_hours_before_end"] == 6
    assert hours_before(end_at, observed(dt.datetime(2026, 3, 2, tzinfo=dt.UTC))) == {}


SHOWN = st.lists(st.lists(st.integers(0, 6), max_size=4), min_size=1, max_size=30)


@given(SHOWN, st.integers(1, 3))
@settings(deadline=None)
def test_list_figures_are_those_of_plain_python(lists, files):
    in_catalog, in_stock = np.array([True] * 5 + [False]), np.array([True] * 3 + [False] * 3)

    def rows(part):
        return table_of(
            RECOMMENDATIONS,
            [
                {
                    "user_id": str(n),
                    "item": items,
                    "score": [1.0] * len(items),
                    "source": [item % 5 for item in items],
                    "outcome": "recommended",
                }
                for n, items in enumerate(part)
            ],
        )

    parts = [part for part in (lists[start::files] for start in range(files)) if part]
    observed = Observed.total(
        observe_lists(rows(part), in_catalog=in_catalog, in_stock=in_stock, slots=3, min_items=2) for part in parts
    )
    figures = list_figures(observed, in_stock=True, eligible_items=8)
    full = [tuple(items) for items in lists if items]
    shown = [item for items in full for item in items]
    assert figures["lists_of_wrong_length"] == sum(len(items) not in (2, 3) for items in full)
    assert figures["repeats_in_lists"] == sum(len(items) - len(set(items)) for items in full)
    if full:
        assert figures["items_in_catalog_share"] == sum(item < 5 for item in shown) / len(shown)
        assert figures["items_in_stock_share"] == sum(item < 3 for item in shown) / len(shown)
        assert figures["top_list_share"] == max(Counter(full).values()) / len(full)
        assert figures["top_item_share"] == max(Counter(shown).values()) / len(full)
        distinct = sum(len({tuple(items) for items in part if items}) for part in parts)
        assert figures["distinct_lists_share"] == distinct / len(full)
    assert figures["recommended_share"] == len(full) / len(lists)
    assert figures["own_items_share"] == (sum(item % 5 < 2 for item in shown) / len(shown) if shown else 1.0)
    # Item 6 is not in the index of six items that the flags are for.
    assert figures["catalog_coverage"] == len({item for item in shown if item < 6}) / 8
    metrics = list_metrics(observed, slots=3, eligible_items=8)
    assert metrics["users_by_list_length"] == {str(n): sum(len(items) == n for items in lists) for n in range(4)}
    names = list(RECOMMENDATION_SOURCES)
    assert metrics["items_from"] == {name: sum(item % 5 == n for item in shown) for n, name in enumerate(names)}
    assert metrics["users_with_items_from"] == {
        name: sum(any(item % 5 == n for item in items) for items in lists) for n, name in enumerate(names)
    }
    assert "items_in_stock_share" not in list_figures(observed, in_stock=False, eligible_items=8)
    follows = list_figures(observed, in_stock=True, eligible_items=8, follows_stock=True)
    assert set(figures) - set(follows) == {"catalog_coverage", *FOLLOWS_STOCK} - {
        "recommended_share_of_last_good", "catalog_coverage_of_last_good",
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), max_size=8), st.booleans(), st.integers(0, 8))
def test_repeats_of_keys_are_counted_in_order_or_out_of_it(users, in_order, cut):
    users = sorted(users) if in_order else users
    parts = [
        pa.table(
            {"user_id": part, "item": [[]] * len(part), "score": [[]] * len(part), "source": [[]] * len(part),
             "outcome": ["no_history"] * len(part)}, schema=RECOMMENDATIONS.schema,
        )
        for part in (users[:cut], users[cut:])
    ]  # fmt: skip
    observed = observe(CONTRACTS[RECOMMENDATIONS.name], pa.concat_tables(parts))
    assert figures_of(CONTRACTS[RECOMMENDATIONS.name], observed)["user_id_repeats"] == len(users) - len(set(users))
