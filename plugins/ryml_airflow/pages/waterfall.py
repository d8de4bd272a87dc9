"""From the counts of a waterfall in a manifest to the bars of the page."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One rule: the candidates that it dropped, and what was left after it.

    `items_percent` and `users_percent`: of the candidates, and of the users with any.
    """

    rule: str
    dropped: int
    items_left: int
    items_percent: float
    users_left: int
    users_percent: float


def waterfall_steps(counts: Mapping[str, int]) -> list[Step]:
    """Lay the rules that dropped anything out in the order in which they are looked at; first comes what there was."""
    from jobs.ranking.rules import RULES

    candidates, users = counts.get("candidates", 0), counts.get("users_with_candidates", 0)
    if not candidates:
        return []
    found, left = [Step("candidates", 0, candidates, 100.0, users, 100.0)], candidates
    for name in RULES:  # what is nothing is not among the counts
        dropped, users_left = counts.get(f"dropped.{name}", 0), counts.get(f"users_left.{name}", 0)
        left -= dropped
        if dropped:
            share = 100 * users_left / users if users else 0.0
            found.append(Step(name, dropped, left, 100 * left / candidates, users_left, share))
    return found
