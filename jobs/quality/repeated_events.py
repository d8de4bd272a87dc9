"""Events that come more than once: within one export, and in an export that has others before it.

Rows are compared by 64-bit hashes, within one user bucket: of a million rows there, two that differ share a hash in one
of 37 million exports.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.buckets import keyed_hash
from jobs.quality.casts import Mask, as_mask
from jobs.quality.quarantine import content_hashes

_ID_KEY = "ryml event of id"

Hashes = npt.NDArray[np.uint64]


def is_repeated(events: pa.Table, event_ids: pa.Array, *, whole_rows: bool) -> Mask:
    """Mark the events of one bucket that came before, the first of them not included.

    By the shop's own number of the event where it has one, whatever else the row says: the shop sent it again. Rows
    without a number are compared in every column if `whole_rows`, and are never repeated otherwise.
    """
    numbered = as_mask(event_ids.is_valid())
    repeated = np.zeros(len(numbered), np.bool_)
    if numbered.any():
        repeated[numbered] = occurrence(keyed_hash(event_ids.filter(pa.array(numbered)), _ID_KEY)) > 0
    if whole_rows and not numbered.all():
        repeated[~numbered] = occurrence(content_hashes(events.filter(pa.array(~numbered)))) > 0
    return repeated


def is_known(events: pa.Table, known: pa.Table) -> Mask:
    """Mark the events of one bucket that are among those known already, each as often as it is there.

    Two of the same are known, three came: the third is new. Rows are compared in every column.
    """
    hashes, known_hashes = content_hashes(events), np.sort(content_hashes(known))
    first = np.searchsorted(known_hashes, hashes, side="left")
    times = np.searchsorted(known_hashes, hashes, side="right") - first
    mask: Mask = occurrence(hashes) < times
    return mask


def occurrence(hashes: Hashes) -> npt.NDArray[np.int64]:
    """Count for each value how many equal ones stand before it."""
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    is_first = np.concatenate([[True], in_order[1:] != in_order[:-1]])[: len(order)]
    starts = np.flatnonzero(is_first)
    counted = np.empty(len(order), np.int64)
    counted[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return counted
