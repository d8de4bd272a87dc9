"""The receipt files of a push: one a request, in one folder that is named by the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.delivery.ledger import ChunkPlan, Run
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import FileEntry
from schemas.layout import Partition


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

    def read(self, entry: Mapping[str, Any]) -> pa.Table:
        """Read a receipt, checked against its entry."""
        return self.attempt.read(FileEntry(**entry))
