"""How long each table's partitions are kept, in days after their date, and why.

What still carries personal data (addresses, who was mailed what, who is suppressed) is kept for as long as a send is
worked on, not longer. `expire_data` deletes what is past its time and reachable from nothing live.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.tables import TABLES


@dataclass(frozen=True)
class Keeping:
    """How many days after its date a partition is kept at least."""

    days: int
    reason: str


# One number for all that a send reads and writes: a partition that is kept may name one that is not, and holds it back.
_DELIVERY_DAYS: Final = 15
_DELIVERY: Final = "personal: a week until the follow-up is measured, and a week for whoever looks into a send"
_BUILD_DAYS: Final = 35
_BUILD: Final = "every date of the last month can be built again, and a fold looks back 31 days for its start"
_QUARANTINE: Final = "hashes and counts only: a month to look for what a source did wrong"

KEEPING: Final[Mapping[str, Keeping]] = {
    "events": Keeping(_BUILD_DAYS, _BUILD),
    "catalog": Keeping(_BUILD_DAYS, _BUILD),
    "users": Keeping(_DELIVERY_DAYS, _DELIVERY),
    "profiles": Keeping(_BUILD_DAYS, _BUILD),
    "backtests": Keeping(366, "sums without a person in them: a year to see how the models went"),
    "correlations": Keeping(_BUILD_DAYS, _BUILD),
    "product_correlations": Keeping(_BUILD_DAYS, _BUILD),
    "hybrid_features": Keeping(_BUILD_DAYS, _BUILD),
    "hybrid_items": Keeping(_BUILD_DAYS, _BUILD),
    "hybrid_users": Keeping(_BUILD_DAYS, _BUILD),
    "trending": Keeping(_BUILD_DAYS, _BUILD),
    "recommendations": Keeping(_BUILD_DAYS, _BUILD),
    "builds": Keeping(_BUILD_DAYS, _BUILD),
    "recent_events": Keeping(_DELIVERY_DAYS, _DELIVERY),
    "chunks": Keeping(_DELIVERY_DAYS, _DELIVERY),
    "receipts": Keeping(_DELIVERY_DAYS, _DELIVERY),
    "mirror": Keeping(_DELIVERY_DAYS, _DELIVERY + "; the newest one, which holds the earlier ones, always stays"),
    "suppressions": Keeping(_DELIVERY_DAYS, _DELIVERY),
    "mail_events": Keeping(_BUILD_DAYS, "personal, by a hash: a month until nobody opens a mail any more"),
    "funnel": Keeping(3660, "sums without a person in them: ten years to compare campaigns"),
    "quarantine": Keeping(_BUILD_DAYS, _QUARANTINE),
    "quarantine_events": Keeping(_BUILD_DAYS, _QUARANTINE),
    "quarantine_catalog": Keeping(_BUILD_DAYS, _QUARANTINE),
    "quarantine_users": Keeping(_BUILD_DAYS, _QUARANTINE),
}

# Attempts that no manifest names: left by a task that died, or replaced by a newer run. A task, its retries and a
# reader that took the old manifest are all over by then.
ATTEMPT_DAYS: Final = 3
# A push that was stopped goes on where it was, days later: its chunks' receipts lie in an attempt that no manifest
# names until reconcile_push.
_RESUMED: Final = frozenset({"receipts"})

STAGING_DAYS: Final = 15  # the staged lake of a backfill; its comparison is kept beside the lake's tables


def attempt_days(table: str) -> int:
    """Say after how many days without a write an unnamed attempt of the table is nobody's any more."""
    return KEEPING[table].days if table in _RESUMED else ATTEMPT_DAYS


def keep_days() -> dict[str, int]:
    """Days by table, for every table that has dates; an undated one is never expired."""
    return {name: KEEPING[name].days for name, table in TABLES.items() if table.dated}
