"""Eight bytes that stand for what a contact holds: whose it is, and the text of every slot.

The mirror keeps them, so that a push knows whose content is still the same, and the contact itself holds them beside
the content, so that the template knows whether it is the content that was meant.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.buckets import keyed_hash
from jobs.lake.mixing import GAMMA, UInt64s, mix

# Not a secret, and fixed: another key would have everybody's content pushed once.
_KEY: Final = "ryml content key"


def item_digests(texts: Sequence[pa.StringArray]) -> UInt64s:
    """Hash each catalog row's rendered parts; one more entry, the last, stands for an empty slot.

    Shapes: texts has one array (catalog rows,) per part.
    """
    rows = pc.binary_join_element_wise(*texts, "\n")
    hashes = keyed_hash(rows, _KEY) if len(rows) else np.empty(0, np.uint64)
    return np.append(hashes, np.uint64(0))


def content_digests(uids: UInt64s, slot_rows: Sequence[npt.NDArray[np.int64]], items: UInt64s) -> UInt64s:
    """Hash each user's content, the order of the slots included.

    Shapes: slot_rows has one array (users,) per slot: rows of the catalog, -1 for an empty slot.
    """
    total = mix(uids)
    places = np.arange(1, len(slot_rows) + 1, dtype=np.uint64) * GAMMA
    for place, rows in zip(places, slot_rows, strict=True):
        total = mix(total + mix(items[rows]) + place)
    return total
