"""The receipt files of a push: one a request, in one folder that is named by the plan."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.delivery.ledger import ChunkPlan, Run
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import FileEntry
from schemas.layout import Partition
from schemas.tables import RECEIPTS


def as_outcome(rows: pa.Table, outcome: str, reason: str | None = None) -> pa.Table:
    """Give the same receipt with another outcome for all of its users."""
    changed = {"outcome": pa.repeat(outcome, len(rows)), "reason": pa.array([reason] * len(rows), pa.string())}
    columns = [changed.get(name, rows[name]) for name in RECEIPTS.schema.names]
    return pa.table(columns, schema=RECEIPTS.schema)


def receipts_attempt(lake: Lake, run: Run, plan_digest: str) -> Attempt:
    """The one folder that all chunks of a plan put their receipts into; named by the plan, so any worker finds it."""
    partition = Partition("receipts", run.send_date, run.campaign)
    return Attempt(lake, partition, run_id=f"plan-{plan_digest[:12]}", name="push")


@dataclass(frozen=True)
class ReceiptFiles:
    """Writes and reads the receipts of one chunk."""

    attempt: Attempt
    chunk: ChunkPlan

    def write(self, name: str, rows: pa.Table) -> FileEntry:
        """Write the receipt of one request; names are used once."""
        with self.attempt.writer(bucket=self.chunk.bucket, name=f"part-{self.chunk.chunk:05d}-{name}.parquet") as file:
            file.write(rows)
        return file.entry

    def write_again(self, rows: pa.Table) -> FileEntry:
        """Write a receipt that replaces another one, under a name that nobody else takes."""
        return self.write(f"again-{uuid.uuid4().hex}", rows)

    def read(self, entry: Mapping[str, Any]) -> pa.Table:
        """Read a receipt, checked against its entry."""
        return self.attempt.read(FileEntry(**entry))
