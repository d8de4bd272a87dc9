"""Eight bytes that stand for what a contact holds: whose it is, and the text of every slot.

The mirror keeps them, so that a push knows whose content is still the same, and the contact itself holds them beside
the content, so that the template knows whether it is the content that was meant.
"""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.buckets import keyed_hash
from jobs.lake.mixing import GAMMA, UInt64s, mix
from schemas.mail_fields import NEUTRAL

# Not a secret, and fixed: another key would have everybody's content pushed once.
_KEY: Final = "ryml content key"


def item_digests(texts: Sequence[pa.StringArray], blank: str | None = NEUTRAL) -> UInt64s:
    """Hash each catalog row's rendered parts; one more entry, the last, stands for an empty slot.

    `blank` is what is written where there is nothing (see slot_fragments): another one is other content, so that a
    campaign which changes it writes anew what the provider may have kept.
    Shapes: texts has one array (catalog rows,) per part: JSON strings.
    """
    nothing = json.dumps(blank)
    rows = pc.binary_join_element_wise(*(pc.if_else(pc.equal(text, '""'), nothing, text) for text in texts), "\n")
    hashes = keyed_hash(rows, _KEY) if len(rows) else np.empty(0, np.uint64)
    empty = np.uint64(0) if blank == NEUTRAL else keyed_hash(pa.array([nothing]), _KEY)[0]
    return np.append(hashes, empty)


def content_digests(uids: UInt64s, slot_rows: Sequence[npt.NDArray[np.int64]], items: UInt64s) -> UInt64s:
    """Hash each user's content, the order of the slots included.

    Shapes: slot_rows has one array (users,) per slot: rows of the catalog, -1 for an empty slot.
    """
    total = mix(uids)
    places = np.arange(1, len(slot_rows) + 1, dtype=np.uint64) * GAMMA
    for place, rows in zip(places, slot_rows, strict=True):
        total = mix(total + mix(items[rows]) + place)
    return total
