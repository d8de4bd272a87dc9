"""The demo shop's catalog and users: identities, growth, and state that depends on the day alone."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from jobs.demo_shop.catalog_model import NEVER, Catalog
from jobs.demo_shop.category_tree import COLLECTIBLES, DEPARTMENTS, LEAVES
from jobs.demo_shop.draws import table
from jobs.demo_shop.shop_plan import BLOCK, DAY_US, Shop, day_number
from jobs.demo_shop.shop_tables import cents, items_table, money, padded, users_table
from jobs.demo_shop.user_model import UserBlock
from schemas.errors import ConfigError

FIRST, LAST = dt.date(2026, 9, 4), dt.date(2026, 11, 4)
IMAGES = "http://127.0.0.1:8085/images"


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop.plan(seed=7, users=5_000, first_date=FIRST)


@pytest.fixture(scope="module")
def catalog(shop: Shop) -> Catalog:
    return Catalog(shop, day_number(LAST))


def test_sizes(shop: Shop) -> None:
    assert (shop.items, shop.new_items_per_day, shop.new_users_per_day) == (1_000, 5, 5)
    assert Shop.plan(seed=7, users=100, first_date=FIRST).items == 600
    assert Shop.plan(seed=7, users=10_000_000, first_date=FIRST).items == 200_000


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": -1}, "seed is -1"), ({"users": 99}, "users is 99"), ({"items": 599}, "items is 599")],
)
def test_impossible_shops_are_refused(changed: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Shop.plan(**({"seed": 7, "users": 5_000, "first_date": FIRST} | changed))


def test_the_tree_has_eight_departments_and_about_sixty_leaves() -> None:
    assert len(DEPARTMENTS) + 1 == 8
    paths = [leaf.path for leaf in LEAVES + COLLECTIBLES.leaves]
    assert len(set(paths)) == len(paths) == 64
    assert all(path.split(" > ")[0] == department.name for department in DEPARTMENTS for path in
               [leaf.path for leaf in department.leaves])  # fmt: skip


def test_a_larger_catalog_keeps_its_older_items(shop: Shop, catalog: Catalog) -> None:
    day = day_number(LAST)
    later = Catalog(shop, day + 100)
    assert later.size == catalog.size + 500
    items = np.arange(catalog.size)
    assert items_table(later, items, day, IMAGES).equals(items_table(catalog, items, day, IMAGES))
    early, late = catalog.assortment(day), later.assortment(day)
    assert np.array_equal(early.items, late.items)


def test_ids_keep_their_zeros_and_are_unique(shop: Shop, catalog: Catalog) -> None:
    ids = items_table(catalog, np.arange(catalog.size), day_number(LAST), IMAGES)["item_id"].to_pylist()
    assert len(set(ids)) == catalog.size == 1_305
    assert ids[7] == "000007"
    people = users_table(UserBlock(shop, 0), np.arange(5_305), day_number(LAST))
    assert people["user_id"][42].as_py() == "0000042"
    assert len(set(people["user_id"].to_pylist())) == 5_305
    emails = [email for email in people["email"].to_pylist() if email is not None]
    assert len(emails) > 5_200
    assert len(set(emails)) == len(emails)
    assert all(email.endswith("@example.com") for email in emails)
    assert padded(np.asarray([9_999_999, 10_000_000]), 7).to_pylist() == ["9999999", "10000000"]


def test_new_items_every_day(shop: Shop, catalog: Catalog) -> None:
    created = np.bincount(catalog.created_day[shop.items :] - shop.first_day, minlength=62)
    assert created.tolist() == [0] + [5] * 61
    assert np.all(catalog.created_us[: shop.items] < shop.first_day * DAY_US)
    assert np.array_equal(catalog.created_us // DAY_US, catalog.created_day)


def test_prices_fit_the_category_and_have_sales(shop: Shop, catalog: Catalog) -> None:
    items = np.arange(catalog.size)
    days = np.arange(shop.first_day, day_number(LAST) + 1)
    prices = catalog.prices(items[None, :], days[:, None])
    leaves = [catalog.leaf_of_group(group)[1] for group in catalog.group]
    regular = prices.max(axis=0)
    assert np.all(regular >= [leaf.price_low for leaf in leaves])
    assert np.all(regular <= [leaf.price_high + 49 for leaf in leaves])
    had_sale = prices.min(axis=0) < regular
    assert 0.3 < had_sale.mean() < 0.6
    assert np.all(prices.min(axis=0) >= 0.55 * regular)


def test_items_sell_out_and_come_back(shop: Shop, catalog: Catalog) -> None:
    listed = np.flatnonzero((catalog.delisted_day == NEVER) | (catalog.delisted_day > day_number(LAST)))
    listed = listed[(listed < shop.items) & (listed >= catalog.collectibles)]
    assert len(listed) > 700
    days = np.arange(shop.first_day, day_number(LAST) + 1)
    in_stock = catalog.stock(listed[None, :], days[:, None]) > 0
    assert 0.02 < 1 - in_stock.mean() < 0.08
    came_back = (~in_stock[:-1] & in_stock[1:]).any(axis=0)
    assert came_back.mean() > 0.2


def test_delisted_items_are_gone_for_good_and_no_leaf_is_ever_empty(shop: Shop, catalog: Catalog) -> None:
    gone = np.flatnonzero(catalog.delisted_day <= day_number(LAST))
    assert 50 < len(gone) < 300
    assert np.all(catalog.stock(gone, catalog.delisted_day[gone]) == 0)
    assert np.all(catalog.created_day[gone] < catalog.delisted_day[gone])
    for day in (shop.first_day, day_number(LAST), day_number(LAST) + 2_000):
        assortment = Catalog(shop, day).assortment(day)
        assert np.all(np.diff(assortment.starts)[: len(LEAVES)] > 0)


def test_picks_are_of_the_group_and_popular_items_are_picked_more(shop: Shop, catalog: Catalog) -> None:
    assortment = catalog.assortment(day_number(LAST))
    assert catalog.is_listed(assortment.items, day_number(LAST)).all()
    assert np.all(catalog.created_day[assortment.items] < day_number(LAST))
    assert len(assortment.items) > 1_000
    group = np.full(20_000, 8)
    chance = (np.arange(20_000) + 0.5) / 20_000
    plain = assortment.pick(group, chance, np.zeros_like(group), np.zeros(20_000, dtype=np.bool_))
    assert np.all(catalog.group[plain] == 8)
    members = assortment.items[assortment.starts[8] : assortment.starts[9]]
    counts = [int((plain == item).sum()) for item in members]
    assert len(counts) > 10
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.01)  # Zipf: half as often at the second rank
    styled = assortment.pick(group, chance, np.full_like(group, 2), np.ones(20_000, dtype=np.bool_))
    ranks = np.searchsorted(np.arange(len(members)), [members.tolist().index(item) for item in np.unique(styled)])
    assert all(rank % 4 == 2 or rank >= len(members) - len(members) % 4 for rank in ranks)


def test_titles_are_believable(catalog: Catalog) -> None:
    rows = items_table(catalog, np.arange(catalog.size), day_number(LAST), IMAGES).to_pylist()
    by_path = {leaf.path: (each, leaf) for each in (*DEPARTMENTS, COLLECTIBLES) for leaf in each.leaves}
    for row in rows:
        department, leaf = by_path[row["category"]]
        assert row["brand"] in department.brands
        assert row["title"].startswith(row["brand"])
        assert any(f" {row['material']} {noun}, {row['color']}" in row["title"] for noun in leaf.nouns)
        assert 2.5 <= row["rating"] <= 5.0
        assert row["image_url"] == f"{IMAGES}/{row['item_id']}.svg"
    assert len({row["title"] for row in rows}) > 0.97 * len(rows)


def test_users_grow_unsubscribe_and_lack_addresses(shop: Shop) -> None:
    users = UserBlock(shop, 0)
    early = users_table(users, np.arange(users.members(shop.first_day)), shop.first_day)
    late = users_table(users, np.arange(users.members(day_number(LAST))), day_number(LAST))
    assert (early.num_rows, late.num_rows) == (5_000, 5_305)
    cannot_be_mailed = [row["email"] is None or not row["is_subscribed"] for row in early.to_pylist()]
    assert 0.015 < np.mean(cannot_be_mailed) < 0.025
    left = early["is_subscribed"].to_numpy() & ~late["is_subscribed"].to_numpy()[:5_000]
    assert 40 < left.sum() < 120
    for row in late.to_pylist():
        assert row["is_subscribed"] == (row["unsubscribed_at"] is None)
        assert row["locale"].endswith(f"-{row['country']}")
        assert row["unsubscribed_at"] is None or row["unsubscribed_at"] > row["created_at"]


def test_blocks_differ_and_hold_everyone_once() -> None:
    shop = Shop.plan(seed=7, users=300_000, first_date=FIRST)
    day = shop.first_day + 3
    blocks = [UserBlock(shop, block) for block in range(shop.blocks_on(day))]
    assert [users.members(day) for users in blocks] == [BLOCK, BLOCK, 300_900 - 2 * BLOCK]
    assert blocks[1].numbers[0] == BLOCK
    assert not np.array_equal(blocks[0].activity, blocks[1].activity)


def test_tables_keep_their_proportions() -> None:
    assert np.bincount(table({0: 1, 1: 1, 3: 2})).tolist() == [64, 64, 0, 128]
    assert len(table(dict.fromkeys(range(7), 1))) == 256


def test_money_is_exact() -> None:
    amounts = np.asarray([0, 1, 49, 1_999, 10**12, -5])
    column = money(amounts)
    assert [str(value) for value in column.to_pylist()] == [
        "0.0000", "0.0100", "0.4900", "19.9900", "10000000000.0000", "-0.0500",
    ]  # fmt: skip
    assert cents(column).tolist() == amounts.tolist()
    assert cents(pa.chunked_array([column.slice(2, 2), column.slice(5)])).tolist() == [49, 1_999, -5]
