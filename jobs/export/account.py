"""The count of every row of an export: read = used + set aside + of other days + exported before.

Where it does not come out even, nothing is published.
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.manifest import Window
from jobs.quality.row_rules import Checked
from schemas.errors import EmptyPartitionError, StorageError
from schemas.tables import QUARANTINE_REASONS, Table


@dataclass
class Account:
    """What became of the rows so far.

    A user whose address is not used stays, so `addresses_dropped` is not part of `quarantined`. `late` counts the rows
    used that are of days before the window, by their day; they are part of `rows`.
    """

    read: int = 0
    rows: int = 0
    outside_window: int = 0
    on_last_day: int = 0
    already_exported: int = 0
    late: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    addresses_dropped: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def add_read(self, checked: Checked) -> None:
        """Count a batch: its rows read, and those of other days."""
        self.read += checked.read
        self.outside_window += checked.outside
        self.on_last_day += checked.on_last_day
        self.unreadable.update(checked.unreadable)

    def add_quarantined(self, quarantined: pa.Table) -> None:
        """Count rows that are set aside."""
        self.quarantined.update(_by_reason(quarantined))

    def add_addresses(self, addresses: pa.Table) -> None:
        """Count users that stay without their address."""
        self.addresses_dropped.update(_by_reason(addresses))

    def check(self, table: Table, date: dt.date, window: Window, source: str) -> None:
        """Refuse an export that lost a row, or that has nothing for its date.

        Raises: StorageError, EmptyPartitionError.
        """
        set_aside = self.quarantined.total()
        if self.read != self.rows + set_aside + self.outside_window + self.already_exported:
            raise StorageError(
                f"{table.name} of {date}: {self.read} rows read, but {self.rows} used + {set_aside} quarantined + "
                f"{self.outside_window} of other days + {self.already_exported} exported before; nothing was "
                f"published. This is a defect of ryml: report it"
            )
        if self.rows and self.on_last_day:
            return
        span = f"{window.start_at:%Y-%m-%d} to {date}" if table.name == "events" else f"as of {date}"
        what = f"no {table.name} on {date} itself" if self.rows else f"no usable {table.name}"
        found = f"{self.read} rows read, {self.rows} usable, {self.outside_window} of other days"
        if set_aside:
            found += ", quarantined: " + ", ".join(
                f"{count} {reason}" for reason, count in sorted(self.quarantined.items())
            )
        raise EmptyPartitionError(
            f"source {source} has {what} ({span}; {found}); expected at least one row, and nothing was published. "
            f"Run a date that the source has, or look there for why the day is missing and run it again"
        )

    def check_written(self, rows: int, aside: int) -> None:
        """Refuse to publish files that hold other numbers of rows than were counted."""
        expected = self.quarantined.total() + self.addresses_dropped.total()
        if rows != self.rows or aside != expected:
            raise StorageError(
                f"{rows} rows and {aside} quarantine rows were written, {self.rows} and {expected} were counted; "
                f"nothing was published. This is a defect of ryml: report it"
            )

    def as_json(self) -> dict[str, Any]:
        """Put the counts into the words of the manifest."""
        return {
            "read": self.read,
            "quarantined": self.quarantined.total(),
            "quarantined_by_reason": _in_order(self.quarantined),
            "outside_window": self.outside_window,
            "already_exported": self.already_exported,
            "late_by_day": dict(sorted(self.late.items())),
            "addresses_dropped_by_reason": _in_order(self.addresses_dropped),
            "unreadable_optional_values": dict(sorted(self.unreadable.items())),
        }


def _by_reason(quarantined: pa.Table) -> dict[str, int]:
    counted = pc.value_counts(quarantined.column("reason"))
    return {str(item["values"]): int(item["counts"]) for item in counted.to_pylist()}


def _in_order(counts: Counter[str]) -> dict[str, int]:
    if unknown := set(counts) - set(QUARANTINE_REASONS):
        raise StorageError(f"{sorted(unknown)} is no reason of QUARANTINE_REASONS; add it to schemas/tables.py")
    return {reason: counts[reason] for reason in QUARANTINE_REASONS if counts[reason]}
