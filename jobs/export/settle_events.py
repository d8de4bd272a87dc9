"""Events that a batch alone cannot settle: repeated ones, and those of days that an earlier export already covered.

Everything else passes at once. What waits is settled bucket by bucket at the end of the export and comes behind the
events of its bucket that passed.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.export.event_spool import EventSpool
from jobs.export.late_events import LookBack
from jobs.lake.manifest import Window
from jobs.quality.casts import Mask, as_mask
from jobs.quality.quarantine import quarantine_rows
from jobs.quality.repeated_events import is_known, is_repeated
from jobs.quality.row_rules import POSITION, Checked
from schemas.source import EVENT_ID_COLUMN
from schemas.tables import EVENTS, INSTANT

_WAITING: Final = pa.schema([*EVENTS.schema, POSITION, pa.field(EVENT_ID_COLUMN, pa.string())])


@dataclass(frozen=True)
class SettledEvents:
    """One bucket's events that waited. `late` counts those used by their UTC day."""

    good: pa.Table
    quarantined: pa.Table
    already_exported: int
    late: Counter[str]


class EventSettler:
    """Tells events that are used from those that were before. A context manager: it may hold a temporary file.

    `whole_rows`: rows without a number of their own are repeated if they are the same in every column.
    """

    def __init__(self, look_back: LookBack, window: Window, *, whole_rows: bool) -> None:
        self._look_back = look_back
        self._start = window.start_at
        self._whole_rows = whole_rows
        self._held = contextlib.ExitStack()
        self._spool: EventSpool | None = None

    def add(self, checked: Checked) -> pa.Table:
        """Take the good rows of one batch; give back those that need not wait."""
        good = checked.good
        if self._whole_rows or checked.event_ids is not None:
            waits = np.ones(good.num_rows, np.bool_)
        else:
            waits = self._is_late(good)
        if not waits.any():
            return good
        if self._spool is None:
            self._spool = self._held.enter_context(EventSpool(_WAITING, self._look_back.lake.buckets))
        mask = pa.array(waits)
        ids = pa.nulls(good.num_rows, pa.string()) if checked.event_ids is None else checked.event_ids
        self._spool.add(pa.table([*good.columns, checked.positions, ids], schema=_WAITING).filter(mask))
        return good.filter(pa.array(~waits))

    def settle(self) -> Iterator[SettledEvents]:
        """Give what waited, bucket by bucket."""
        if self._spool is None:
            return
        self._spool.finish()
        for bucket in range(self._look_back.lake.buckets):
            rows = self._spool.bucket(bucket)
            if rows.num_rows:
                yield self._settled(bucket, rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _is_late(self, events: pa.Table) -> Mask:
        if not self._look_back.earlier:
            return np.zeros(events.num_rows, np.bool_)
        return as_mask(pc.less(events.column("occurred_at"), pa.scalar(self._start, INSTANT)).combine_chunks())

    def _settled(self, bucket: int, rows: pa.Table) -> SettledEvents:
        events = rows.select(EVENTS.schema.names)
        event_ids = rows.column(EVENT_ID_COLUMN).combine_chunks()
        repeated = is_repeated(events, event_ids, whole_rows=self._whole_rows)
        late = self._is_late(events) & ~repeated
        known = np.zeros(rows.num_rows, np.bool_)
        if late.any():
            exported = self._look_back.known(bucket, self._start)
            known[late] = is_known(events.filter(pa.array(late)), exported)
        late &= ~known
        mask = pa.array(repeated)
        days = pc.strftime(events.column("occurred_at").filter(pa.array(late)), "%Y-%m-%d")
        return SettledEvents(
            good=events.filter(pa.array(~repeated & ~known)),
            quarantined=quarantine_rows(
                EVENTS.name,
                events.filter(mask),
                pa.repeat("duplicate_event", int(repeated.sum())),
                rows.column(POSITION.name).filter(mask).combine_chunks(),
            ),
            already_exported=int(known.sum()),
            late=Counter({item["values"]: item["counts"] for item in pc.value_counts(days).to_pylist()}),
        )
