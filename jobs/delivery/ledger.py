"""The delivery ledger: what was planned, sent and confirmed, in a small SQL database (SQLite, or PostgreSQL by URL).

It is the only memory of the push and the send. A worker claims a chunk and gets an epoch; every later write names
it, so a worker that was replaced and wakes up changes nothing. Instants are the caller's clock, in ISO 8601 UTC.
"""

from jobs.delivery.ledger_chunks import LedgerChunks
from jobs.delivery.ledger_database import Clock
from jobs.delivery.ledger_plans import LedgerPlans
from jobs.delivery.ledger_rows import ChunkPlan, Claim, Holder, Run
from jobs.delivery.ledger_sends import LedgerSends

__all__ = ["ChunkPlan", "Claim", "Clock", "Holder", "Ledger", "Run"]


class Ledger(LedgerPlans, LedgerChunks, LedgerSends):
    """The ledger at a database URL: plans, chunks and sends, with its tables made on first use."""
