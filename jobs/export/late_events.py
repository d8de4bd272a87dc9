"""How far back an export looks for events that came late, and what the exports before it already had.

For sources that do not say when an event arrived. The exports whose events the profiles hold form a chain, each
starting where the one before it ended. An export with `late_days` goes over the last so many days of that chain once
more; what it finds there that the chain does not have is late, and is taken. So an event is in exactly one partition of
the chain, the one of the first export that saw it.

The chain is what is published now: whoever exports a past date again exports the dates after it as well, in order, as
a backfill of `build_recommendations` does.
"""

import datetime as dt
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest, Window
from schemas.layout import Partition
from schemas.tables import EVENTS, INSTANT


@dataclass(frozen=True)
class LookBack:
    """What an export reads of its source, and the exports that already hold part of it.

    `reach`: from the first day that is gone over again to the end of the export's own window.
    """

    lake: Lake
    reach: Window
    earlier: tuple[Manifest, ...]

    def known(self, bucket: int, before: dt.datetime) -> pa.Table:
        """Read the events of one bucket that earlier exports hold of the days that are gone over again."""
        start, end = pa.scalar(self.reach.start_at, INSTANT), pa.scalar(before, INSTANT)
        parts = [EVENTS.schema.empty_table()]
        for manifest in self.earlier:
            events = self.lake.read(manifest, bucket=bucket)
            at = events.column("occurred_at")
            parts.append(events.filter(pc.and_(pc.greater_equal(at, start), pc.less(at, end))))
        return pa.concat_tables(parts)


def look_back(lake: Lake, window: Window, late_days: int) -> LookBack:
    """Follow the chain of exports back from a window, at most `late_days`.

    It ends where an export was never made or has expired: what is older cannot be told apart from what was exported,
    so it is not looked at. Without profiles up to the window nothing was used yet, and the window is the whole history.
    """
    day_before = (window.start_at - dt.timedelta(days=1)).date()
    start, wanted = window.start_at, window.start_at - dt.timedelta(days=late_days)
    earlier: list[Manifest] = []
    if late_days and lake.find(Partition("profiles", day_before)) is not None:
        while start > wanted:
            found = lake.find(Partition(EVENTS.name, (start - dt.timedelta(days=1)).date()))
            if found is None or found.window is None:
                break
            earlier.append(found)
            start = dt.datetime.fromisoformat(found.window["start_at"])
    return LookBack(lake, Window(max(start, wanted), window.end_at), tuple(earlier))
