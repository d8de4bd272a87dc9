"""Overrides in the ledger: which gate of a run a named person let pass, what it had found, and why."""

import sqlalchemy as sa

from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.ledger_tables import overrides
from jobs.quality.override import GateOverride


def note_override(ledger: Ledger, run: Run, gate: str, found: str, override: GateOverride) -> None:
    """Write an override down; the first one of a gate stays."""
    row = {**run.key, "gate": gate, "found": found, "by": override.by, "reason": override.reason}
    with ledger.writing() as connection:
        ledger.insert_or_ignore(connection, overrides, {**row, "at": ledger.now_text()})


def overrides_of(ledger: Ledger, run: Run) -> list[dict[str, str]]:
    """Return a run's overrides, by gate."""
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(overrides).where(*run.of(overrides)).order_by(overrides.c.gate))
        return [{name: row._mapping[name] for name in ("gate", "found", "by", "reason", "at")} for row in rows]
