"""What mailing brought: users whom the plan mails beside users who were held out of it, by hash of their address.

Both are compared by the plan's own items, whatever came afterwards. Who was delivered is no group to compare with: the
last look takes out who bought since the build, and a holdout has no last look.
"""

import datetime as dt
from dataclasses import dataclass, field
from math import sqrt

import pyarrow as pa
import pyarrow.compute as pc

from jobs.measure.follow_up import FollowUp, follow_up


@dataclass(frozen=True)
class Groups:
    """Purchases of the two groups since an instant; `mailed` of each counts its users."""

    planned: FollowUp = field(default_factory=FollowUp)
    holdout: FollowUp = field(default_factory=FollowUp)

    @classmethod
    def of(cls, plan: pa.Table, events: pa.Table, index: pa.StringArray, since_at: dt.datetime) -> "Groups":
        """Join one bucket's plan with its events."""
        planned = plan.filter(pc.equal(plan["action"], "upsert"))
        holdout = plan.filter(pc.equal(plan["reason"], "holdout"))
        return cls(*(follow_up(group, events, index, since_at) for group in (planned, holdout)))

    def __add__(self, other: "Groups") -> "Groups":
        return Groups(self.planned + other.planned, self.holdout + other.holdout)

    def measures(self) -> dict[str, float]:
        """Name what was found; nothing where one of the groups is empty.

        `lift_buyer_share` is the difference of the shares of users who bought something of their list, and
        `lift_buyer_share_error` its standard error: a lift of less than two of them may be none.
        """
        planned, holdout = self.planned, self.holdout
        if not (planned.mailed and holdout.mailed):
            return {}
        shares = {"planned": planned.buyers / planned.mailed, "holdout": holdout.buyers / holdout.mailed}
        variance = sum(
            share * (1 - share) / group.mailed for share, group in zip(shares.values(), (planned, holdout), strict=True)
        )
        return {
            "holdout_users": float(holdout.mailed),
            "holdout_buyers": float(holdout.buyers),
            "holdout_purchases_per_user": holdout.purchases / holdout.mailed,
            "planned_buyers": float(planned.buyers),
            "planned_purchases_per_user": planned.purchases / planned.mailed,
            "lift_buyer_share": shares["planned"] - shares["holdout"],
            "lift_buyer_share_error": sqrt(variance),
        }
