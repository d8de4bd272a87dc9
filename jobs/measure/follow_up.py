"""What the mailed users of one bucket bought after their mail. Not a lift: some would have bought without it."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.distinct import distinct
from jobs.lake.list_columns import flat, lengths


@dataclass(frozen=True)
class FollowUp:
    """Purchases of mailed users since an instant.

    `buyers` bought at least one item that was in their own mail, in `purchases_of_recommended` purchases; `purchases`
    counts everything that mailed users bought.
    """

    mailed: int = 0
    buyers: int = 0
    purchases_of_recommended: int = 0
    purchases: int = 0

    def __add__(self, other: "FollowUp") -> "FollowUp":
        return FollowUp(
            self.mailed + other.mailed,
            self.buyers + other.buyers,
            self.purchases_of_recommended + other.purchases_of_recommended,
            self.purchases + other.purchases,
        )


def follow_up(delivered: pa.Table, events: pa.Table, index: pa.StringArray, since_at: dt.datetime) -> FollowUp:
    """Join one bucket's delivered receipts with its events.

    Grain: a purchase is one event of that type, whatever its quantity; a refund takes none back.
    """
    is_purchase = pc.equal(events["event_type"], "purchase")
    is_after = pc.greater_equal(events["occurred_at"], pa.scalar(since_at, events.schema.field("occurred_at").type))
    bought = events.filter(pc.and_(is_purchase, is_after))
    user = pc.index_in(bought["user_id"], value_set=delivered["user_id"].combine_chunks())
    item = pc.index_in(bought["item_id"], value_set=index)
    user_row, item_row = (pc.fill_null(rows, -1).to_numpy().astype(np.int64) for rows in (user, item))
    is_mailed = user_row >= 0
    # One number per user and item: 2^31 items x 2^32 users a bucket fill 63 bits.
    recommended = np.repeat(np.arange(len(delivered)), lengths(delivered["item"])) << 31 | flat(delivered["item"])
    # By hash; NumPy's isin sorts, and was most of the time.
    found = pc.is_in(pa.array(user_row << 31 | item_row), value_set=pa.array(recommended)).to_numpy(
        zero_copy_only=False
    )
    hit = is_mailed & (item_row >= 0) & found
    return FollowUp(
        mailed=len(delivered),
        buyers=len(distinct(user_row[hit])),
        purchases_of_recommended=int(hit.sum()),
        purchases=int(is_mailed.sum()),
    )
