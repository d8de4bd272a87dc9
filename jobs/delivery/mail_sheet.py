"""What one chunk hands to Mail Send: one row per user, rendered when it leaves, and who gets no mail after all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.delivery.chunk_reader import Reading
from jobs.delivery.ledger import Claim
from jobs.delivery.mail_bodies import render_personalizations
from jobs.delivery.payload import linked_urls, slot_fragments
from jobs.delivery.people_book import erased
from jobs.delivery.run_context import Delivery
from jobs.delivery.sheet import Positions, Sheet
from jobs.delivery.used_rows import places_in, used_rows
from jobs.lake.list_columns import list_column
from schemas.mail_fields import all_fields, own_field
from schemas.tables import RECEIPTS

TOO_FEW_LEFT: Final = "too_few_left"
ERASED: Final = "erased"


@dataclass(frozen=True)
class MailSheet:
    """The rows of one chunk in plan order. `withheld` gives by reason the rows of which no mail is made."""

    sheet: Sheet
    withheld: Mapping[str, Positions]


def make_mail_sheet(delivery: Delivery, claim: Claim, reading: Reading) -> MailSheet:
    """Lay out the chunk's mails. Everybody's content is in their own, so nothing is compared with what was held."""
    rows, shown = reading.rows, reading.contents
    items = len(shown.catalog)
    carried = [used_rows([slot], items) for slot in shown.slot_rows]
    names = {name: own_field(name, delivery.campaign.mail.field_prefix) for name in all_fields(len(carried))}
    fragments = slot_fragments(shown.values, carried, names, urls=linked_urls(shown.catalog, carried, shown.tokens))
    places = [places_in(used, slot, items) for used, slot in zip(carried, shown.slot_rows, strict=True)]
    run_text = delivery.run.send_date.isoformat()

    def render(positions: npt.NDArray[np.int64]) -> pa.StringArray:
        return render_personalizations(
            emails=rows.emails.take(pa.array(positions)),
            uids=shown.uids[positions],
            slot_rows=[slot[positions] for slot in places],
            counts=rows.counts[positions],
            contents=shown.contents[positions],
            fragments=fragments,
            names=names,
            run=run_text,
        )

    # Once more, by the ledger: who was erased since the plan is in no mail that is still to be made.
    gone = erased(delivery.ledger).has(rows.user_ids, rows.emails)
    sheet = Sheet(
        chunk=claim.plan.chunk,
        user_ids=rows.user_ids,
        emails=rows.emails,
        items=list_column(RECEIPTS, "item", rows.items, rows.counts),
        outcome=pa.repeat("delivered", len(rows.user_ids)),
        content=pa.array(shown.contents.view(np.int64)),
        lane=np.zeros(len(rows.user_ids), np.int8),
        lanes=((),),
        render=render,
    )
    withheld = {ERASED: np.flatnonzero(gone), TOO_FEW_LEFT: np.flatnonzero(~rows.is_delivered & ~gone)}
    return MailSheet(sheet, withheld)
