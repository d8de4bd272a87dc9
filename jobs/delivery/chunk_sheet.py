"""Lay out what the users of one chunk are to hold: which lane each goes in, and how their rows are rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.chunk_reader import Reading
from jobs.delivery.csv_rows import ADDRESS, STAMP_FIELDS, content_fields, csv_contacts, csv_fragments, csv_stamps
from jobs.delivery.ledger import Claim
from jobs.delivery.payload import linked_urls, render_contacts, render_stamps, slot_fragments
from jobs.delivery.run_context import Delivery
from jobs.delivery.sheet import Column, Sheet
from jobs.delivery.used_rows import places_in, used_rows
from jobs.lake.list_columns import list_column
from schemas.mail_fields import NEUTRAL
from schemas.tables import RECEIPTS

Rows = npt.NDArray[np.int64]

CONTENT, CLEAR, STAMP = range(3)  # the lanes of a chunk's requests


@dataclass(frozen=True)
class ProviderFields:
    """The fields that a push writes: their ids at the provider and the campaign's own names, by the names of `ryml`."""

    ids: Mapping[str, str]
    own_names: Mapping[str, str]
    email_id: str | None = None  # of the provider's own field for the address: a push by file has to name it


def make_sheet(delivery: Delivery, claim: Claim, reading: Reading, fields: ProviderFields, list_id: str) -> Sheet:
    """Lay out what the chunk's users are to hold. Only those who get items join the list that is mailed.

    Who holds the very content already is only stamped: the send's date, and the digest that it expects. Rows are lines
    of a file if the address's field is given, else JSON.
    """
    blank, rows, shown = delivery.campaign.push.blank, reading.rows, reading.contents
    uids, catalog, contents = shown.uids, shown.catalog, shown.contents
    same = pc.fill_null(pc.equal(rows.held, pa.array(contents.view(np.int64))), False)
    lane = np.where(rows.is_delivered, np.where(same.to_numpy(zero_copy_only=False), STAMP, CONTENT), CLEAR)
    # Only what somebody's content has to carry is rendered: on most nights a small part of the catalog.
    carrying = [np.where(lane == CONTENT, slot, -1) for slot in shown.slot_rows]
    some = used_rows(carrying, len(catalog))
    carrying = [places_in(some, slot, len(catalog)) for slot in carrying]
    carried = [used_rows([slot], len(some)) for slot in carrying]
    slot_rows = [places_in(items, slot, len(some)) for items, slot in zip(carried, carrying, strict=True)]
    urls = linked_urls(catalog.take(pa.array(some)), carried, shown.tokens)
    texts = {part: column.take(pa.array(some)) for part, column in shown.values.items()}
    writer: _Json | _Csv = (
        _Json(fields, blank)
        if fields.email_id is None
        else _Csv(fields, blank, fields.email_id, delivery.campaign.slots)
    )
    fragments = writer.fragments(texts, carried, urls)
    run_text = delivery.run.send_date.isoformat()

    def render(positions: npt.NDArray[np.int64]) -> pa.StringArray:
        emails = rows.emails.take(pa.array(positions))
        if lane[positions[0]] == STAMP:
            return writer.stamps(emails=emails, contents=contents[positions], run=run_text)
        return writer.contacts(
            emails=emails,
            uids=uids[positions],
            slot_rows=[slot[positions] for slot in slot_rows],
            counts=rows.counts[positions],
            contents=contents[positions],
            fragments=fragments,
            run=run_text,
        )

    return Sheet(
        chunk=claim.plan.chunk,
        user_ids=rows.user_ids,
        emails=rows.emails,
        items=list_column(RECEIPTS, "item", rows.items, rows.counts),
        outcome=pc.if_else(pa.array(rows.is_delivered), "delivered", "cleared"),
        content=pa.array(contents.view(np.int64)),
        lane=lane.astype(np.int8),
        lanes=((list_id,), (), (list_id,)),
        render=render,
        columns=writer.columns,
    )


class _Json:
    """Contacts as JSON objects, which name their fields themselves."""

    def __init__(self, fields: ProviderFields, blank: str | None) -> None:
        self._ids, self._blank = fields.ids, blank
        self.columns: Sequence[Sequence[Column]] = ()

    def fragments(
        self, texts: Mapping[str, pa.StringArray], slot_rows: Sequence[Rows], urls: Sequence[pa.StringArray]
    ) -> list[pa.StringArray]:
        return slot_fragments(texts, slot_rows, self._ids, blank=self._blank, urls=urls)

    def contacts(self, **of: Any) -> pa.StringArray:
        return render_contacts(**of, field_ids=self._ids)

    def stamps(self, **of: Any) -> pa.StringArray:
        return render_stamps(**of, field_ids=self._ids)


class _Csv:
    """Contacts as lines of a file, whose columns the import's request maps to fields."""

    def __init__(self, fields: ProviderFields, blank: str | None, email_id: str, slots: int) -> None:
        self._blank = blank or NEUTRAL  # a file has no null
        content, stamp = (
            ((email_id, ADDRESS), *((fields.ids[name], fields.own_names[name]) for name in names))
            for names in (content_fields(slots), STAMP_FIELDS)
        )
        self.columns: Sequence[Sequence[Column]] = (content, content, stamp)

    def fragments(
        self, texts: Mapping[str, pa.StringArray], slot_rows: Sequence[Rows], urls: Sequence[pa.StringArray]
    ) -> list[pa.StringArray]:
        return csv_fragments(texts, slot_rows, blank=self._blank, urls=urls)

    def contacts(self, **of: Any) -> pa.StringArray:
        return csv_contacts(**of)

    def stamps(self, **of: Any) -> pa.StringArray:
        return csv_stamps(**of)
