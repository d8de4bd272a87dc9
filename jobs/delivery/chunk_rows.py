"""The rows of one chunk, joined with today's catalog and the users' addresses, ready to be rendered."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.last_look import LastLook
from jobs.delivery.ledger import ChunkPlan
from jobs.lake.item_index import find_items, read_index
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.lake.manifest import Manifest
from schemas.layout import Partition

# The push uses the newest catalog there is: one exported after the build, up to this many days later, wins.
_CATALOG_DAYS_AHEAD = 2


@dataclass(frozen=True)
class ChunkRows:
    """The users of one chunk in plan order, with what each is to hold.

    `slot_rows[s]` gives each user's row in `catalog` for slot s, -1 where the slot stays empty. A user is delivered
    with at least the campaign's least number of items that can still be bought, and cleared otherwise.
    """

    user_ids: pa.StringArray
    emails: pa.StringArray
    slot_rows: list[npt.NDArray[np.int64]]
    counts: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    catalog: pa.Table
    held: pa.Int64Array  # digest of what each contact is known to hold; null where that is not known

    @property
    def is_delivered(self) -> npt.NDArray[np.bool_]:
        """Who gets items, and so joins the run's list."""
        delivered: npt.NDArray[np.bool_] = self.counts > 0
        return delivered


def newest_catalog(lake: Lake, date: dt.date) -> Manifest:
    """Return the newest catalog snapshot from the date on."""
    found = lake.latest("catalog", up_to=date + dt.timedelta(days=_CATALOG_DAYS_AHEAD), days=_CATALOG_DAYS_AHEAD)
    return found or lake.manifest(Partition("catalog", date))


def read_chunk(
    lake: Lake,
    plan: Manifest,
    users: Manifest,
    catalog_of: Manifest,
    chunk: ChunkPlan,
    *,
    slots: int,
    min_items: int,
    look: LastLook | None = None,
) -> ChunkRows:
    """Read one chunk's rows and drop the items that sold out or left the catalog since they were recommended.

    With a last look, also those that the campaign's rules forbid by now.
    """
    planned = lake.read(plan, bucket=chunk.bucket)
    planned = planned.filter(pc.equal(planned["part"], chunk.part))
    people = lake.read(users, bucket=chunk.bucket, columns=["user_id", "email"])
    user_ids = planned["user_id"].combine_chunks()
    emails = people["email"].combine_chunks().take(pc.index_in(user_ids, value_set=people["user_id"].combine_chunks()))

    catalog = lake.read(catalog_of)
    index = read_index(lake)
    # A catalog that came after the build may have items that the index does not: nobody was recommended these.
    found = find_items(index, catalog["item_id"])
    listed = catalog.filter(found.is_valid()) if found.null_count else catalog
    place = found.drop_null().to_numpy()
    in_stock = pc.greater(listed["stock"], 0).to_numpy()
    catalog = listed.filter(pa.array(in_stock))
    row_of_item = np.full(len(index), -1)
    row_of_item[place[in_stock]] = np.arange(len(catalog))

    user = np.repeat(np.arange(len(planned)), lengths(planned["item"]))
    items = flat(planned["item"]).astype(np.int64)
    buyable = row_of_item[items] >= 0
    if look is not None:
        buyable &= look.still_fits(user, items, user_ids=user_ids, catalog=listed, place=place, index=index)
    user, items = user[buyable], items[buyable]
    counts = np.bincount(user, minlength=len(planned))
    enough = counts >= min_items
    user, items = user[enough[user]], items[enough[user]]
    slot = rank_within(user)
    slot_rows = []
    for number in range(slots):
        rows = np.full(len(planned), -1)
        rows[user[slot == number]] = row_of_item[items[slot == number]]
        slot_rows.append(rows)
    shown, held = np.where(enough, np.minimum(counts, slots), 0), planned["held"].combine_chunks()
    return ChunkRows(user_ids, emails, slot_rows, shown, items, catalog, held)
