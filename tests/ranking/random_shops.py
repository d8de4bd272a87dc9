"""Random small shops and campaigns in which every rule is in play, made from a seed.

Ages are whole half-lives, and scores, weights and boosts small binary fractions: sums are exact in single precision
whatever their order, so that items with equal scores are equal to the ranking and to the oracle.
"""

import random

from shop_oracle import Shop, item_id

from schemas.ranking_rules import RankingSettings
from schemas.tables import EVENT_TYPES

USERS = ("ann", "bob", "Bob", "007", "7 ", "ü")
CATEGORIES = (None, "Home", "Home > Kitchen", "Home > Kitchen > Knives", "Homeland", "Garden", "Garden > Pots")
BRANDS = (None, "Acme", "Bolt", "acme")
COLORS = ("red", "blue", " red")
RULES = ("bought", "in_cart", "wishlisted", "seen", "mailed")


def random_shop(rnd: random.Random) -> Shop:
    items = rnd.choice((4, 12, 20, 30))
    catalog = {item: random_item(rnd, items) for item in range(items) if rnd.random() < 0.9}
    density, steps = rnd.choice((0.2, 0.5, 0.9)), rnd.choice((2, 16))  # few steps make many ties
    correlations = {
        (i, j): rnd.randint(1, steps) / 16
        for i in range(items)
        for j in range(items)
        if i != j and rnd.random() < density
    }
    users = rnd.sample(USERS, rnd.randint(1, 4))
    events = [
        (rnd.choice(users), rnd.randrange(items), rnd.choice(EVENT_TYPES), 24 * rnd.randint(0, 8))
        for _ in range(rnd.randint(1, 30))
    ]
    mails = [(rnd.choice(users), rnd.randrange(items), rnd.randint(1, 6)) for _ in range(rnd.randint(0, 20))]

    def scores(limit):
        return {item: rnd.randint(1, steps) / 4 for item in rnd.sample(range(items), rnd.randint(2, min(limit, items)))}

    groups = ("de", "en")
    paths = [path for path in CATEGORIES if path and rnd.random() < 0.8]
    return Shop(
        catalog=catalog,
        items=items,
        correlations=correlations,
        events=events,
        mails=list(dict.fromkeys(mails)),
        was_out={item for item in range(items) if rnd.random() < 0.5},
        hybrid={group: scores(12) for group in groups} if rnd.random() < 0.7 else {},
        features={user: rnd.choice(groups) for user in users if rnd.random() < 0.7},
        trending={path: scores(12) for path in paths} | ({"": scores(15)} if rnd.random() < 0.7 else {}),
        cold_users=set(rnd.sample(("cold", "new"), rnd.randint(0, 2))),
    )


def random_item(rnd, items):
    properties = {}
    if rnd.random() < 0.6:
        properties["color"] = rnd.choice(COLORS)
    if rnd.random() < 0.5:
        properties["parent"] = rnd.choice(("group-1", "group-2", item_id(rnd.randrange(items))))
    if rnd.random() < 0.5:
        properties["weight"] = rnd.choice(("5", " 7.5", "1e1", "heavy", ""))
    return {
        "category": rnd.choice(CATEGORIES), "brand": rnd.choice(BRANDS), "price": rnd.choice((0.5, 9.99, 10.0, 250.25)),
        "stock": rnd.choice((0, 1, 5, 9)), "rating": rnd.choice((None, 0.0, 3.5, 4.5)),
        "image": rnd.choice(("", " ", "https://shop.example.com/a.png")),
        "age_days": rnd.choice((None, 0, 3, 30)), "properties": properties,
    }  # fmt: skip


def random_condition(rnd):
    return rnd.choice(
        (
            {"field": "category", "any_of": ["Home", "Garden > Pots"]},
            {"field": "category", "none_of": ["Home > Kitchen"]},
            {"field": "brand", "any_of": ["Acme"]},
            {"field": "brand", "is_present": False},
            {"field": "price", "at_least": 9.99, "at_most": 10},
            {"field": "rating", "at_most": 4},
            {"field": "properties.color", "none_of": ["red"]},
            {"field": "properties.weight", "at_least": 7.5},
            {"field": "properties.parent", "is_present": True},
            {"any": [{"field": "stock", "at_least": 5}, {"field": "item_id", "any_of": [item_id(1), item_id(2)]}]},
        )
    )


def random_settings(rnd: random.Random) -> RankingSettings:
    def maybe(value, likely=0.5):
        return value() if rnd.random() < likely else None

    def some(make, most):
        return [make(rnd) for _ in range(rnd.randint(0, most))]

    slots = rnd.randint(1, 6)
    restocked = rnd.random() < 0.25
    look_back = (0, 0, 1, 3, "for_ever")
    exclude = {f"{rule}_days": rnd.choice(look_back) for rule in RULES[:4]}
    exclude |= {"mailed_days": rnd.choice((0, 1, 3, 62)), "mailed_times": rnd.randint(1, 3)}
    if restocked:
        exclude["wishlisted_days"] = 0
    if rnd.random() < 0.4:
        exclude["twins"] = {"property": "parent", "of": rnd.sample(RULES, rnd.randint(1, 5))}
    catalog = {
        "in_stock": restocked or rnd.random() < 0.6,
        "min_price": maybe(lambda: 1.0, 0.1), "max_price": maybe(lambda: 10.0, 0.1),
        "min_rating": maybe(lambda: rnd.choice((0.0, 3.5)), 0.1), "has_image": rnd.random() < 0.1,
        "created_within_days": rnd.choice((0, 0, 0, 0, 0, 0, 3, 31)),
        "include": maybe(lambda: {"category": ["Home", "Garden"]}, 0.1) or {},
        "exclude": maybe(lambda: {"category": ["Home > Kitchen"], "properties.color": ["blue"]}, 0.15) or {},
        "where": rnd.choice(
            ({}, {}, {}, {}, {"all": some(random_condition, 1)}, {"any": some(random_condition, 2)},
             {"none": some(random_condition, 1)})
        ),
    }  # fmt: skip
    weights = {"view": 1.0, "cart_add": 2.0, "wishlist_add": 2.0, "purchase": 3.0}
    chosen = rnd.sample(sorted(weights), rnd.randint(1, 4))
    return RankingSettings.model_validate(
        {
            "slots": slots,
            "min_items": rnd.randint(1, max(1, slots // 2)),
            "history": {
                "items": rnd.randint(1, 5), "half_life_days": rnd.choice((1.0, 2.0)) if not restocked else 1.0,
                "weights": {name: weights[name] for name in chosen},
            },
            "candidates": {"kind": "back_in_stock", "wished_days": 5}
            if restocked
            else {"kind": "correlations", "neighbours": rnd.choice((1, 2, 4, 50))},
            "exclude": exclude,
            "catalog": catalog,
            "boosts": [
                {"multiply_by": rnd.choice((0.5, 2, 3)), "all": some(random_condition, 1)}
                for _ in range(rnd.randint(0, 2))
            ],
            "diversity": {
                "max_per_category": maybe(lambda: rnd.randint(1, 2)), "category_level": rnd.randint(1, 2),
                "max_per_brand": maybe(lambda: rnd.randint(1, 2)),
            },
            "fallback": {
                "steps": rnd.sample(("hybrid", "trending_in_categories", "trending"), rnd.randint(0, 3)),
                "lists": rnd.choice(("short", "all")),
            },
        }
    )  # fmt: skip
