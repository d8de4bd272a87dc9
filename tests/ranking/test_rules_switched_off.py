"""Each rule decides one list here, and a ranking with that rule switched off is caught by the test of its name."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import shop_oracle
from shop_oracle import Shop, item_id, recommend_to

from jobs.profiles.pairs import Pairs
from jobs.ranking import recommend as recommend_module
from jobs.ranking import user_batch
from jobs.ranking.item_facts import FILTERS, NO_FILTER
from jobs.ranking.recommend import recommend
from jobs.ranking.rules import EXCLUSION_RULES
from schemas.ranking_rules import RankingSettings

DAY = 24


def shop(**changes):
    """`u` looked at item 0 and at nothing else. Item 1 goes with it best, then 2, 3 … 7."""
    plain = {
        "category": "Home", "brand": None, "price": 10.0, "stock": 5, "rating": 4.0,
        "image": "https://shop.example.com/a.png", "age_days": 3, "properties": {},
    }  # fmt: skip
    made = Shop(
        catalog={item: dict(plain) | {"properties": {}} for item in range(9)},
        items=9,
        correlations={(0, other): (16 - other) / 16 for other in range(1, 8)},
        events=[("u", 0, "view", 1)],
    )
    for item, columns in changes.pop("catalog", {}).items():
        made.catalog[item] = None if columns is None else made.catalog[item] | columns
    made.catalog = {item: row for item, row in made.catalog.items() if row is not None}
    made.events += changes.pop("events", [])
    return dataclasses.replace(made, **changes)


def campaign(**changes):
    nothing = {f"{rule}_days": 0 for rule in ("bought", "wishlisted", "in_cart", "seen")}
    settings = {"slots": 3, "min_items": 1, "exclude": nothing | changes.pop("exclude", {}), **changes}
    return RankingSettings.model_validate(settings)


@dataclasses.dataclass(frozen=True)
class Case:
    """Where one rule decides: the list with it. `switch_off` plants the fault."""

    shop: Shop
    settings: RankingSettings
    expected: list[int]
    switch_off: Callable[[pytest.MonkeyPatch], None]


def without_filter(name):
    def plant(monkeypatch):
        def facts(*args, real=shop_oracle.item_facts, **kwargs):
            right = real(*args, **kwargs)
            off = right.dropped_by == FILTERS.index(name)
            return dataclasses.replace(right, dropped_by=np.where(off, NO_FILTER, right.dropped_by).astype(np.int8))

        monkeypatch.setattr(shop_oracle, "item_facts", facts)

    return plant


def without_exclusion(name):
    def plant(monkeypatch):
        def some(*args, real=user_batch.exclusions):
            found = [rule for rule in real(*args) if rule.name != name]
            if not name.startswith("twin_of_"):
                return found
            own = name.removeprefix("twin_of_")
            return [dataclasses.replace(r, reaches_twins=r.reaches_twins and r.name != own) for r in found]

        monkeypatch.setattr(user_batch, "exclusions", some)

    return plant


def without_cap(name):
    def plant(monkeypatch):
        real = recommend_module.caps_of
        monkeypatch.setattr(recommend_module, "caps_of", lambda *args: [cap for cap in real(*args) if cap.name != name])

    return plant


def without_boosts(monkeypatch):
    real = shop_oracle.item_facts
    monkeypatch.setattr(
        shop_oracle, "item_facts",
        lambda *a, **k: dataclasses.replace(real(*a, **k), boost=np.ones(9, np.float32)),
    )  # fmt: skip


def without_step(name):
    def plant(monkeypatch):
        real = shop_oracle.ladder
        monkeypatch.setattr(shop_oracle, "ladder", lambda steps, *rest: real([s for s in steps if s != name], *rest))

    return plant


def without_min_items(monkeypatch):
    real = recommend_module._as_table
    monkeypatch.setattr(
        recommend_module, "_as_table",
        lambda *args: real(*args[:-1], args[-1].model_copy(update={"min_items": 1})),
    )  # fmt: skip


def without_the_whole_table(monkeypatch):
    real = recommend_module.own_lists
    monkeypatch.setattr(
        recommend_module, "own_lists",
        lambda batch, shared, *more: real(batch, dataclasses.replace(shared, table=None), *more),
    )  # fmt: skip


def without_history_items(monkeypatch):
    real = Pairs.newest_interest
    monkeypatch.setattr(Pairs, "newest_interest", lambda self, limit, *how: real(self, 1_000, *how))


def without_half_life(monkeypatch):
    real = Pairs.newest_interest
    monkeypatch.setattr(
        Pairs, "newest_interest", lambda self, limit, weights, days, now: real(self, limit, weights, 1e9, now)
    )


EVENTS = {"bought": "purchase", "in_cart": "cart_add", "wishlisted": "wishlist_add", "seen": "view"}
UNDONE = {"bought": "refund", "in_cart": "cart_remove", "wishlisted": "wishlist_remove"}
VIEWS_ONLY = {"weights": {"view": 1.0}}

FILTER_CASES = {
    "not_in_catalog": (shop(catalog={1: None}), {}),
    "sold_out": (shop(catalog={1: {"stock": 0}}), {}),
    "price": (shop(catalog={1: {"price": 99.0}}), {"max_price": 50.0}),
    "rating": (shop(catalog={1: {"rating": None}}), {"min_rating": 1.0}),
    "no_image": (shop(catalog={1: {"image": " "}}), {"has_image": True}),
    "too_old": (shop(catalog={1: {"age_days": 30}}), {"created_within_days": 30}),
    "not_included": (shop(catalog={1: {"category": "Homeland"}}), {"include": {"category": ["Home"]}}),
    # Excluded wins over included.
    "excluded": (
        shop(catalog={1: {"category": "Home > Knives"}}),
        {"include": {"category": ["Home"]}, "exclude": {"category": ["Home > Knives"]}},
    ),
    "conditions": (
        shop(catalog={1: {"properties": {"color": "red"}}}),
        {"where": {"none": [{"field": "properties.color", "any_of": ["red"]}]}},
    ),
}


def exclusion_case(rule):
    """Item 1 had the event within the look-back, item 2 before it; item 3 had it and it was undone."""
    if rule == "mailed":
        mails = [("u", 1, 2), ("u", 1, 3), ("u", 2, 2), ("u", 2, 9)]
        settings = campaign(exclude={"mailed_days": 3, "mailed_times": 2})
        return Case(shop(mails=mails), settings, [2, 3, 4], without_exclusion(rule))
    kind, events = EVENTS[rule], [("u", 1, EVENTS[rule], 2 * DAY), ("u", 2, EVENTS[rule], 5 * DAY)]
    if rule in UNDONE:
        events += [("u", 3, kind, 2 * DAY), ("u", 3, UNDONE[rule], DAY)]
    # The look at item 0 is the only interest, and too fresh for the others to rule it out.
    history = {"weights": {"view": 1.0}, "items": 1}
    exclude = {f"{rule}_days": 3}
    return Case(shop(events=events), campaign(exclude=exclude, history=history), [2, 3, 4], without_exclusion(rule))


def twin_case(rule):
    """Item 1 has the parent of item 8, which had the event."""
    same = {"properties": {"parent": "p"}}
    case = exclusion_case(rule)
    moved = [("u", 8, kind, hours) for _, item, kind, hours in case.shop.events if item == 1]
    mails = [("u", 8, days) for _, item, days in case.shop.mails if item == 1]
    twins = {"property": "parent", "of": [rule]}
    exclude = case.settings.exclude.model_dump() | {"twins": twins}
    settings = campaign(exclude=exclude, history={"weights": {"view": 1.0}, "items": 1})
    made = shop(catalog={1: same, 8: same}, events=moved, mails=mails)
    return Case(made, settings, [2, 3, 4], without_exclusion("twin_of_" + rule))


CASES = {name: Case(made, campaign(catalog=catalog), [2, 3, 4], without_filter(name))
         for name, (made, catalog) in FILTER_CASES.items()}  # fmt: skip
CASES |= {rule: exclusion_case(rule) for rule in ("bought", "in_cart", "wishlisted", "seen", "mailed")}
CASES |= {"twin_of_" + rule: twin_case(rule) for rule in ("bought", "in_cart", "wishlisted", "seen", "mailed")}
CASES |= {
    "not_back_in_stock": Case(
        shop(events=[("u", 1, "wishlist_add", 5), ("u", 2, "wishlist_add", 5)], was_out={2}),
        campaign(candidates={"kind": "back_in_stock"}), [2], without_filter("not_back_in_stock"),
    ),
    "category_full": Case(
        shop(catalog={item: {"category": f"Garden > Pots {item}"} for item in (4, 5)}),
        campaign(diversity={"max_per_category": 1}), [1, 4], without_cap("category_full"),
    ),
    "brand_full": Case(
        shop(catalog={item: {"brand": "Acme"} for item in (1, 2, 3)}),
        campaign(diversity={"max_per_brand": 2}), [1, 2, 4], without_cap("brand_full"),
    ),
    "boosts": Case(
        shop(catalog={3: {"brand": "Acme"}}),
        campaign(boosts=[{"multiply_by": 2.0, "all": [{"field": "brand", "any_of": ["Acme"]}]}]), [3, 1, 2],
        without_boosts,
    ),
    "min_items": Case(
        shop(catalog={item: {"stock": 0} for item in range(3, 8)}), campaign(min_items=3), [], without_min_items
    ),
    "whole_table": Case(
        shop(), campaign(candidates={"kind": "correlations", "neighbours": 1}), [1, 2, 3], without_the_whole_table
    ),
    "history_items": Case(
        shop(events=[("u", 8, "view", 30)], correlations={(0, 1): 0.5, (8, 2): 1.0}),
        campaign(history={"items": 1}), [1], without_history_items,
    ),
    "half_life": Case(
        shop(events=[("u", 8, "view", 10 * DAY)], correlations={(0, 1): 0.5, (8, 2): 1.0}),
        campaign(history={"half_life_days": 1.0}), [1, 2], without_half_life,
    ),
    "hybrid": Case(
        shop(correlations={(0, 1): 1.0}, hybrid={"de": {3: 1.0, 1: 2.0}}, features={"u": "de"}),
        campaign(min_items=2), [1, 3], without_step("hybrid"),
    ),
    "trending_in_categories": Case(
        shop(correlations={(0, 1): 1.0}, trending={"Home": {4: 1.0}, "Garden": {5: 2.0}}),
        campaign(min_items=2), [1, 4], without_step("trending_in_categories"),
    ),
    "trending": Case(
        shop(correlations={(0, 1): 1.0}, trending={"": {5: 1.0}}), campaign(min_items=2), [1, 5],
        without_step("trending"),
    ),
}  # fmt: skip


def lists(case):
    got = recommend(
        case.shop.batch(case.settings), case.shop.shared(case.settings), case.settings, case.shop.feature_groups()
    )
    return dict(zip(got["user_id"].to_pylist(), got["item"].to_pylist(), strict=True))["u"]


def test_every_rule_has_a_case():
    assert set(FILTERS) | set(EXCLUSION_RULES) | {"category_full", "brand_full"} <= set(CASES)
    assert len(CASES) >= 29
    assert item_id(1) == "item-001"


@pytest.mark.parametrize("rule", CASES)
def test_the_rule_decides(rule):
    case = CASES[rule]
    assert lists(case) == case.expected
    expected, _ = recommend_to(case.shop, "u", case.settings)
    enough = len(expected) >= case.settings.min_items
    assert [item for item, _, _ in expected if enough] == case.expected


@pytest.mark.parametrize("rule", CASES)
def test_the_rule_switched_off_is_caught(rule, monkeypatch):
    case = CASES[rule]
    case.switch_off(monkeypatch)
    assert lists(case) != case.expected
