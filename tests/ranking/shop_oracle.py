"""A small shop in plain Python values, and what it would recommend: one user, one item and one rule at a time.

Nothing here is shared with the ranking but the settings and the tables' schemas.
"""

import datetime as dt
import decimal
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.profiles.fold import Caps, MailedLists, fold, with_rows_for
from jobs.ranking.correlation_table import correlation_table, items_of_groups
from jobs.ranking.fallback import ladder
from jobs.ranking.item_facts import NO_KIND, item_facts
from jobs.ranking.recommend import Shared, near_matrix
from jobs.ranking.user_batch import UserBatch
from schemas.ranking_rules import RankingSettings
from schemas.tables import CATALOG, CORRELATIONS, EVENT_TYPES, EVENTS

DATE = dt.date(2026, 3, 1)
END = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
NOW = int(END.timestamp()) * 1_000_000
CAPS = Caps(views=100, states=400)
KEYS = ("", "Home", "Home > Kitchen", "Garden")  # groups of trending; "" is everybody's


@dataclass
class Shop:
    """Users by name. Events: (user, item, type, hours ago). Mails: (user, item, days ago). Items are numbers."""

    catalog: dict[int, dict]  # what is in the catalog: columns by item
    items: int
    correlations: dict[tuple[int, int], float]
    events: list[tuple[str, int, str, int]]
    mails: list[tuple[str, int, int]] = field(default_factory=list)
    was_out: set[int] = field(default_factory=set)
    hybrid: dict[str, dict[int, float]] = field(default_factory=dict)  # per feature group
    features: dict[str, str] = field(default_factory=dict)  # user -> feature group
    trending: dict[str, dict[int, float]] = field(default_factory=dict)  # per category path; "" for all
    cold_users: set[str] = field(default_factory=set)

    @property
    def users(self):
        names = {e[0] for e in self.events} | {m[0] for m in self.mails} | self.cold_users
        return sorted(names, key=str.encode)

    # ---- the shop as the ranking's tables

    @property
    def index(self):
        return pa.array([item_id(n) for n in range(self.items)])

    def catalog_table(self):
        rows = [
            {
                "item_id": item_id(item), "title": "t", "url": "u", "image_url": row["image"],
                "category": row["category"], "brand": row["brand"], "price": decimal.Decimal(str(row["price"])),
                "currency": "EUR", "stock": row["stock"], "rating": row["rating"],
                "created_at": None if row["age_days"] is None else END - dt.timedelta(days=row["age_days"], hours=1),
                "properties": list(row["properties"].items()),
            }
            for item, row in self.catalog.items()
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=CATALOG.schema)

    def profiles(self):
        events = pa.table(
            {
                "user_id": pa.array([e[0] for e in self.events], pa.string()),
                "item_id": pa.array([item_id(e[1]) for e in self.events], pa.string()),
                "event_type": pa.array([e[2] for e in self.events], pa.string()),
                "occurred_at": pa.array(
                    [END - dt.timedelta(hours=e[3]) for e in self.events], EVENTS.schema.field("occurred_at").type
                ),
            }
        )
        mailed = []
        for days_ago in sorted({m[2] for m in self.mails}):
            lists = {}
            for user, item, ago in self.mails:
                if ago == days_ago:
                    lists.setdefault(user, []).append(item)
            day = (DATE - dt.timedelta(days=days_ago) - dt.date(1970, 1, 1)).days
            items = pa.array(list(lists.values()), pa.list_(pa.int32()))
            mailed.append(MailedLists(day, pa.table({"user_id": pa.array(lists), "item": items})))
        folded = fold(None, events, self.index, caps=CAPS, mailed=mailed)
        return with_rows_for(folded, [pa.chunked_array([pa.array(sorted(self.cold_users), pa.string())])])[0]

    def correlation_parts(self, size=3):
        by_item = {}
        for (item, other), score in self.correlations.items():
            by_item.setdefault(item, []).append((-np.float32(score), other))
        rows = [
            {
                "item": item, "other_item": [o for _, o in sorted(pairs)], "score": [-s for s, _ in sorted(pairs)],
                "support": [2] * len(pairs),
            }
            for item, pairs in sorted(by_item.items())
        ]  # fmt: skip
        names = ["item", "other_item", "score"]
        whole = pa.Table.from_pylist(rows, schema=CORRELATIONS.schema.remove_metadata()).select(names)
        return [whole.slice(first, size) for first in range(0, len(whole), size)]

    def shared(self, settings: RankingSettings) -> Shared:
        restocked = settings.candidates.kind == "back_in_stock"
        was_out = pa.chunked_array([pa.array([item_id(n) for n in sorted(self.was_out)], pa.string())])
        facts = item_facts(
            self.catalog_table(), self.index, settings, until=END, was_out=was_out if restocked else None
        )
        table = (
            None if restocked else correlation_table(self.correlation_parts(), facts, settings.candidates.neighbours)
        )
        lists = {
            "hybrid": group_table(self.hybrid),
            "trending_in_categories": group_table({k: v for k, v in self.trending.items() if k}),
            "trending": group_table({k: v for k, v in self.trending.items() if not k}),
        }
        steps = ladder(settings.fallback_steps, lists, facts)
        return Shared(facts, near_matrix(table, facts), table, steps, items_of_groups(facts))

    def batch(self, settings: RankingSettings) -> UserBatch:
        return UserBatch.of(self.profiles(), settings, self.items, NOW)

    def feature_groups(self):
        groups = {name: place for place, name in enumerate(self.hybrid)}
        return np.array([groups.get(self.features.get(user), NO_KIND) for user in self.users])


def item_id(item):
    return f"item-{item:03d}"


def group_table(groups):
    rows = [
        {"key": key, "item": list(scores), "score": [float(s) for s in scores.values()]}
        for key, scores in groups.items()
    ]
    schema = pa.schema([("key", pa.string()), ("item", pa.list_(pa.int32())), ("score", pa.list_(pa.float32()))])
    return pa.Table.from_pylist(rows, schema=schema)


# ---- the oracle


def number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def field_value(row, item, name):
    if name.startswith("properties."):
        return row["properties"].get(name.removeprefix("properties."))
    known = {"item_id": item_id(item), "title": "t", "url": "u", "image_url": row["image"], "currency": "EUR"}
    return known[name] if name in known else row[name]


def among(value, values, name):
    if value is None:
        return False
    return any(value == v or (name == "category" and value.startswith(v + " > ")) for v in values)


def holds(condition, row, item):
    value = field_value(row, item, condition.field)
    if condition.any_of is not None and not among(value, condition.any_of, condition.field):
        return False
    if condition.none_of is not None and among(value, condition.none_of, condition.field):
        return False
    if condition.is_present is not None and (value is not None) != condition.is_present:
        return False
    for bound, fits in ((condition.at_least, lambda v, b: v >= b), (condition.at_most, lambda v, b: v <= b)):
        if bound is not None and (number(value) is None or not fits(number(value), bound)):
            return False
    return True


def all_hold(conditions, row, item):
    def of(part):
        return holds(part, row, item) if hasattr(part, "field") else all_hold(part, row, item)

    return (
        all(map(of, conditions.all))
        and (not conditions.any or any(map(of, conditions.any)))
        and not any(map(of, conditions.none))
    )


def dropped_by(shop, item, settings):
    """The first filter that an item does not pass, or None."""
    rules, row = settings.catalog, shop.catalog.get(item)
    if row is None:
        return "not_in_catalog"
    if rules.in_stock and row["stock"] <= 0:
        return "sold_out"
    if settings.candidates.kind == "back_in_stock" and item not in shop.was_out:
        return "not_back_in_stock"
    if rules.min_price is not None and row["price"] < rules.min_price:
        return "price"
    if rules.max_price is not None and row["price"] > rules.max_price:
        return "price"
    if rules.min_rating is not None and (row["rating"] is None or row["rating"] < rules.min_rating):
        return "rating"
    if rules.has_image and not row["image"].strip():
        return "no_image"
    if rules.created_within_days and (row["age_days"] is None or row["age_days"] >= rules.created_within_days):
        return "too_old"
    if any(not among(field_value(row, item, name), values, name) for name, values in rules.include.items()):
        return "not_included"
    if any(among(field_value(row, item, name), values, name) for name, values in rules.exclude.items()):
        return "excluded"
    return None if all_hold(rules.where, row, item) else "conditions"


class User:
    """One user's events replayed in the order in which they happened."""

    def __init__(self, shop, name):
        self.shop, self.last, self.owned = shop, {}, {}
        mine = sorted((e for e in shop.events if e[0] == name), key=lambda e: -e[3])
        for _, item, kind, hours in mine:
            self.last[item, kind] = hours
        # What happens in one hour counts together; a shop's count does not go below nothing.
        for hours in sorted({e[3] for e in mine}, reverse=True):
            for item in {e[1] for e in mine}:
                change = sum((e[2] == "purchase") - (e[2] == "refund") for e in mine if e[1] == item and e[3] == hours)
                self.owned[item] = max(0, self.owned.get(item, 0) + change)
        self.items = {e[1] for e in mine}
        self.mailed = {}
        for user, item, days in shop.mails:
            if user == name:
                self.mailed.setdefault(item, set()).add(days)

    def since(self, item, kind):
        return self.last.get((item, kind), float("inf"))

    def has(self, rule, item):
        if rule == "bought":
            return self.owned.get(item, 0) > 0
        if rule == "wishlisted":
            added = self.since(item, "wishlist_add")
            return added < float("inf") and added <= self.since(item, "wishlist_remove")
        if rule == "in_cart":
            added = self.since(item, "cart_add")
            return added < float("inf") and added <= min(self.since(item, "cart_remove"), self.since(item, "purchase"))
        return self.since(item, "view") < float("inf")

    def ruled_out(self, settings):
        """Item -> the first rule that keeps it from the user."""
        rules, found = settings.exclude, {}
        trigger = {"bought": "purchase", "in_cart": "cart_add", "wishlisted": "wishlist_add", "seen": "view"}
        for rule in ("bought", "in_cart", "wishlisted", "seen", "mailed"):
            if rule == "mailed":
                hit = {
                    item
                    for item, days in self.mailed.items()
                    if rules.mailed_days and sum(d <= rules.mailed_days for d in days) >= rules.mailed_times
                }
            else:
                days = rules.look_back(rule)
                reach = float("inf") if days == "for_ever" else 24 * days
                hit = {
                    item
                    for item in self.items
                    if days != 0 and self.has(rule, item) and self.since(item, trigger[rule]) <= reach
                }
            for item in hit:
                found.setdefault(item, rule)
            if rules.twins and rule in rules.twins.of:
                for item in hit:
                    for other in range(self.shop.items):
                        if twins(self.shop, item, other, rules.twins.property):
                            found.setdefault(other, "twin_of_" + rule)
        return found

    def interest(self, settings):
        """Item -> weight, of the most recent items."""
        history = settings.history
        if settings.candidates.kind == "back_in_stock":
            reach = 24 * settings.candidates.wished_days
            wishes = {i: self.since(i, "wishlist_add") for i in self.items if self.has("wishlisted", i)}
            return {i: max(0.5 ** (h / 24 / history.half_life_days), 1e-6) for i, h in wishes.items() if h <= reach}
        weights = dict(zip(EVENT_TYPES, history.weights_by_type(), strict=True))
        weight, newest = {}, {}
        for (item, kind), hours in self.last.items():
            if weights[kind] and (kind != "purchase" or self.has("bought", item)):
                decay = 0.5 ** (hours / 24 / history.half_life_days)
                weight[item] = weight.get(item, 0.0) + weights[kind] * decay
        for item in weight:
            newest[item] = min(hours for (i, kind), hours in self.last.items() if i == item and weights[kind])
        recent = sorted(weight, key=lambda i: (newest[i], i))[: history.items]
        return {item: weight[item] for item in recent}


def twins(shop, item, other, name):
    group = [(shop.catalog[i]["properties"].get(name) if i in shop.catalog else None) for i in (item, other)]
    values = {row["properties"].get(name) for row in shop.catalog.values()}
    for place, i in enumerate((item, other)):
        if group[place] is None and i in shop.catalog and item_id(i) in values:
            group[place] = item_id(i)
    return group[0] is not None and group[0] == group[1]


def boost(shop, item, settings):
    factor = np.float32(1)
    for rule in settings.boosts:
        if item in shop.catalog and all_hold(rule, shop.catalog[item], item):
            factor *= np.float32(rule.multiply_by)
    return float(factor)


def walk(ranked, started, shop, settings):
    """Take from the ranking what the caps let through, until the list is full."""
    rules, taken = settings.diversity, list(started)

    def kinds(item):
        row = shop.catalog[item]
        path = row["category"]
        return (
            None if path is None else " > ".join(path.split(" > ")[: rules.category_level]),
            row["brand"],
        )

    for item, score, source in ranked:
        if len(taken) == settings.slots:
            break
        mine = kinds(item)
        held = [kinds(other) for other, _, _ in taken]
        full = [
            most is not None and mine[k] is not None and sum(h[k] == mine[k] for h in held) >= most
            for k, most in enumerate((rules.max_per_category, rules.max_per_brand))
        ]
        if not any(full):
            taken.append((item, score, source))
    return taken


def nearest(shop, item, settings, whole):
    others = sorted(
        ((other, s) for (i, other), s in shop.correlations.items() if i == item),
        key=lambda pair: (-np.float32(pair[1]), pair[0]),
    )
    if whole:
        return others
    reach, eligible = len(others), 0
    for place, (other, _) in enumerate(others):
        eligible += dropped_by(shop, other, settings) is None
        if eligible == settings.candidates.neighbours:
            reach = place + 1
            break
    return others[:reach]


def ranked(scores, shop, settings, out, source):
    found = {
        item: score * boost(shop, item, settings)
        for item, score in scores.items()
        if item not in out and dropped_by(shop, item, settings) is None
    }
    # Ranked as the tables keep scores: doubles would part what is equal by the order of their sums.
    return [(i, found[i], source) for i in sorted(found, key=lambda i: (-np.float32(found[i]), i))]


def own_scores(shop, interest, settings, whole):
    if settings.candidates.kind == "back_in_stock":
        return dict(interest)
    total = {}
    for item, weight in interest.items():
        for other, score in nearest(shop, item, settings, whole):
            total[other] = total.get(other, 0.0) + weight * score
    return total


def recommend_to(shop, name, settings, *, always_whole=False):
    """A user's list as (item, score, source), before min_items, and whether they have a history."""
    user = User(shop, name)
    out, interest = set(user.ruled_out(settings)), user.interest(settings)
    source = "wishlist" if settings.candidates.kind == "back_in_stock" else "history"

    def of_own(whole):
        scores = own_scores(shop, interest, settings, whole)
        return walk(ranked(scores, shop, settings, out, source), [], shop, settings)

    own = of_own(always_whole)
    if len(own) < settings.slots:
        own = of_own(True)
    wanted = settings.min_items if settings.fallback.lists == "short" else settings.slots
    found = list(own)
    if len(own) < wanted:
        for step in settings.fallback_steps:
            scores = fallback_scores(shop, name, interest, step)
            rest = ranked(scores, shop, settings, out | {i for i, _, _ in found}, step)
            found = walk(rest, found, shop, settings)
    return found, bool(interest)


def fallback_scores(shop, name, interest, step):
    if step == "hybrid":
        return shop.hybrid.get(shop.features.get(name), {})
    if step == "trending":
        return shop.trending.get("", {})
    total = {}
    for item, weight in interest.items():
        path = shop.catalog.get(item, {}).get("category")
        while path and path not in shop.trending:
            path = path.rpartition(" > ")[0]
        for other, score in shop.trending.get(path, {}).items() if path else ():
            total[other] = total.get(other, 0.0) + weight * score
    return total
