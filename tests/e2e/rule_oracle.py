"""What the rules of a campaign say of a user and an item, from the shop's own database, one event after the other."""

import datetime as dt
import sqlite3
from dataclasses import dataclass, field

VIEWS_KEPT = 100  # of a user's viewed items; the profile forgets older ones


@dataclass
class History:
    """What one user did with one item."""

    owned: int = 0
    last: dict[str, str] = field(default_factory=dict)


class RuleOracle:
    """The shop at an instant and what was done in it since another, for the rules of the campaigns that ship."""

    def __init__(self, shop, start_at, end_at, exclude, earlier=()):
        self.earlier = [one.stock for one in earlier]  # the shop on the days before, as far as they were exported
        self.end = end_at
        self.exclude = exclude
        start, end = self._text(start_at), self._text(end_at)
        with sqlite3.connect(shop) as connection:
            rows = connection.execute(
                """
                SELECT user_id, item_id, event_type, occurred_at, SUM(1) FROM events
                WHERE received_at >= ? AND received_at < ? GROUP BY 1, 2, 3, 4 ORDER BY occurred_at
                """,
                (start, end),
            ).fetchall()
            self.stock = dict(
                connection.execute(
                    """
                    SELECT i.item_id, h.stock FROM items i JOIN item_history h ON h.item_id = i.item_id
                    WHERE h.valid_from = (
                        SELECT MAX(valid_from) FROM item_history WHERE item_id = i.item_id AND valid_from < ?)
                      AND i.created_at < ? AND (i.delisted_at IS NULL OR i.delisted_at >= ?)
                    """,
                    (end, end, end),
                )
            )
        self.histories = {}
        self.views = {}
        for user, item, kind, at, count in rows:
            history = self.histories.setdefault((user, item), History())
            if kind == "purchase":
                history.owned += count
            elif kind == "refund":
                history.owned = max(0, history.owned - count)
            history.last[kind] = at
            if kind == "view":
                self.views.setdefault(user, set()).add(item)

    @staticmethod
    def _text(instant):
        return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def forgot(self, user):
        """Whether the profile may have forgotten something that the database has."""
        return len(self.views.get(user, ())) > VIEWS_KEPT

    def applies(self, rule, user, item):
        """Whether a rule of the item or of the user rules the item out."""
        history = self.histories.get((user, item), History())
        last = history.last
        if rule == "not_in_catalog":
            return item not in self.stock
        if rule == "sold_out":
            return self.stock.get(item, 1) <= 0
        if rule == "not_back_in_stock":
            return all(stock.get(item, 0) > 0 for stock in self.earlier)
        if rule == "bought":
            return history.owned > 0 and self._within(last.get("purchase"), self.exclude.bought_days)
        if rule == "in_cart":
            added = last.get("cart_add", "")
            is_in = added and added >= max(last.get("cart_remove", ""), last.get("purchase", ""))
            return bool(is_in) and self._within(added, self.exclude.in_cart_days)
        if rule == "wishlisted":
            added = last.get("wishlist_add", "")
            return bool(added and added >= last.get("wishlist_remove", "")) and self._within(
                added, self.exclude.wishlisted_days
            )
        if rule == "seen":
            return self._within(last.get("view"), self.exclude.seen_days)
        raise AssertionError(f"the oracle does not know the rule {rule}")

    def _within(self, at, days):
        return bool(at and days and at >= self._text(self.end - dt.timedelta(days=days)))
