"""What the users of one chunk are to see, whichever way it reaches them: items per slot, their texts, and a digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.addresses import LINK_KEY, UID_KEY
from jobs.delivery.chunk_rows import ChunkRows
from jobs.delivery.content_digest import content_digests, item_digests
from jobs.delivery.link_tokens import LinkTokens
from jobs.delivery.payload import item_values
from jobs.delivery.run_context import Delivery
from jobs.delivery.used_rows import places_in, used_rows
from jobs.lake.buckets import keyed_hash
from schemas.mail_fields import NEUTRAL, SLOT_PARTS


@dataclass(frozen=True)
class ChunkContents:
    """The chunk's part of the catalog, and what each user sees of it.

    Shapes: uids and contents (users,); slot_rows has an array (users,) for each slot: rows of `catalog`, -1 for an
    empty slot. `values` are the catalog's `item_values`.
    """

    uids: npt.NDArray[np.uint64]
    slot_rows: Sequence[npt.NDArray[np.int64]]
    catalog: pa.Table
    values: Mapping[str, pa.StringArray]
    contents: npt.NDArray[np.uint64]
    tokens: LinkTokens

    @classmethod
    def of(cls, delivery: Delivery, rows: ChunkRows, blank: str | None = NEUTRAL) -> Self:
        """Look the chunk's items up; `blank` stands for what is empty (see payload.slot_fragments)."""
        uids = keyed_hash(pc.binary_join_element_wise(rows.user_ids, rows.emails, "\n"), delivery.ledger.key(UID_KEY))
        used = used_rows(rows.slot_rows, len(rows.catalog))
        slot_rows = [places_in(used, slot, len(rows.catalog)) for slot in rows.slot_rows]
        catalog = rows.catalog.take(pa.array(used))
        values = item_values(catalog)
        contents = content_digests(uids, slot_rows, item_digests([values[part] for part in SLOT_PARTS], blank))
        tokens = LinkTokens(delivery.campaign.name, delivery.ledger.key(LINK_KEY))
        return cls(uids, slot_rows, catalog, values, contents, tokens)
