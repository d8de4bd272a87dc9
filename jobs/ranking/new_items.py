"""Which items are new, and in how many mails they were lately."""

import datetime as dt

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import Window
from schemas.cold_start import ExposureSettings
from schemas.layout import Partition
from schemas.tables import MAILED_OUTCOMES, RECEIPTS

Int64s = npt.NDArray[np.int64]


def new_items(catalog: pa.Table, earlier: pa.Table | None, index: pa.StringArray, *, since: dt.datetime) -> Int64s:
    """Name the items in stock that are new: made available since an instant.

    Where the shop does not say since when it has an item, it is new if the earlier catalog does not have it; without an
    earlier catalog it is not new.
    Shapes: (new,), in item order.
    """
    in_stock = pc.greater(catalog["stock"], 0)
    is_new = pc.greater_equal(catalog["created_at"], pa.scalar(since, pa.timestamp("us", tz="UTC")))
    if earlier is not None:
        is_new = pc.coalesce(is_new, pc.invert(pc.is_in(catalog["item_id"], value_set=earlier["item_id"])))
    chosen = catalog["item_id"].filter(pc.and_(in_stock, pc.fill_null(is_new, False)))
    return np.sort(to_items(index, chosen).to_numpy().astype(np.int64))


def new_since(date: dt.date, settings: ExposureSettings) -> dt.datetime:
    """From when on an item is new to a list of a date."""
    return Window.of_days(date - dt.timedelta(days=settings.new_within_days - 1), date).start_at


def past_sends(lake: Lake, campaign: str, date: dt.date, settings: ExposureSettings, new: Int64s) -> Int64s:
    """Count the mails of the last `within_days` before a date that each new item was in, from the receipts.

    Shapes: new (new,), in item order; the answer parallel. Memory is bounded by one chunk's receipts.
    """
    sends = np.zeros(len(new), np.int64)
    if len(new) == 0:
        return sends
    for back in range(1, settings.within_days + 1):
        receipts = lake.find(Partition(RECEIPTS.name, date - dt.timedelta(days=back), campaign))
        if receipts is None:
            continue
        for entry in receipts.files:
            rows = lake.read_file(receipts, entry, ["item", "outcome"])
            items = flat(rows.filter(pc.is_in(rows["outcome"], value_set=pa.array(MAILED_OUTCOMES)))["item"])
            place = np.searchsorted(new, items)
            known = new[np.minimum(place, len(new) - 1)] == items
            sends += np.bincount(place[known], minlength=len(new))
    return sends
