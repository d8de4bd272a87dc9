"""Chunks in the ledger: claimed by one worker at a time, whose epoch every later write names."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from jobs.delivery.ledger_database import LedgerDatabase
from jobs.delivery.ledger_rows import DONE, ChunkPlan, Claim, Holder, Run, chunk_plan
from jobs.delivery.ledger_tables import chunks, requests
from schemas.errors import GateError


class LedgerChunks(LedgerDatabase):
    """The part of the ledger that is about chunks and their receipts."""

    def holder(self, run: Run, chunk: int) -> Holder:
        """Say who has a chunk.

        Raises: GateError if the plan has no such chunk.
        """
        where = (*run.of(chunks), chunks.c.chunk == chunk)
        with self.reading() as connection:
            row = connection.execute(sa.select(chunks).where(*where)).one_or_none()
        if row is None:
            raise GateError(f"chunk {chunk} of {run.campaign} {run.send_date} is not in the plan; run plan_push again")
        return Holder(row.state, row.epoch, row.beats)

    def claim(self, run: Run, chunk: int, seen: Holder | None = None) -> Claim | None:
        """Take a chunk over; whoever had it before can no longer write to it.

        With `seen`, only if it is still as it was seen: None says that its holder did something since.
        """
        where = [*run.of(chunks), chunks.c.chunk == chunk]
        as_seen = [] if seen is None else [chunks.c.epoch == seen.epoch, chunks.c.beats == seen.beats]
        with self.writing() as connection:
            taken = connection.execute(
                sa.update(chunks)
                .where(*where, *as_seen, chunks.c.state.not_in(DONE))
                .values(epoch=chunks.c.epoch + 1, state="in_flight", beats=0)
            ).rowcount
            row = connection.execute(sa.select(chunks).where(*where)).one_or_none()
        if row is None:
            raise GateError(f"chunk {chunk} of {run.campaign} {run.send_date} is not in the plan; run plan_push again")
        if not taken and row.state not in DONE:
            return None
        return Claim(chunk_plan(row), row.epoch, row.state, dict(row.counts or {}))

    def beat(self, run: Run, claim: Claim) -> None:
        """Tell that the claim's worker lives.

        Raises: GateError if it was replaced.
        """
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)

    def check_epoch(self, connection: sa.Connection, run: Run, claim: Claim) -> None:
        """Go on only if the claim holds; counts as a sign of life.

        Raises: GateError if the worker was replaced.
        """
        where = (*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
        alive = connection.execute(
            sa.update(chunks).where(*where, chunks.c.epoch == claim.epoch).values(beats=chunks.c.beats + 1)
        )
        if alive.rowcount != 1:
            epoch = connection.scalar(sa.select(chunks.c.epoch).where(*where))
            raise GateError(
                f"chunk {claim.plan.chunk}: epoch {claim.epoch} was replaced by {epoch}; this worker stops, "
                "the one that took over goes on"
            )

    def release(self, run: Run, claim: Claim) -> None:
        """Give a chunk back after a failure, so that the next worker need not wait for signs of life."""
        with self.writing() as connection:
            connection.execute(
                sa.update(chunks)
                .where(*run.of(chunks), chunks.c.chunk == claim.plan.chunk, chunks.c.epoch == claim.epoch)
                .where(chunks.c.state == "in_flight")
                .values(state="released")
            )

    def pin_catalog(self, run: Run, claim: Claim, manifest: str) -> str:
        """Settle what a chunk is rendered from: what its first worker saw. A retry then gives the same bytes."""
        where = (*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)
            connection.execute(sa.update(chunks).where(*where, chunks.c.catalog.is_(None)).values(catalog=manifest))
            return str(connection.scalar(sa.select(chunks.c.catalog).where(*where)))

    def pinned_catalog(self, run: Run, chunk: int) -> str | None:
        """Tell what a chunk is rendered from; None as long as no worker of it has seen any."""
        with self.reading() as connection:
            found = connection.scalar(sa.select(chunks.c.catalog).where(*run.of(chunks), chunks.c.chunk == chunk))
        return None if found is None else str(found)

    def close_chunk(self, run: Run, claim: Claim, state: str, counts: Mapping[str, int]) -> None:
        """Mark a chunk `confirmed` (every job of it was completed) or `expired` (what was not confirmed never is)."""
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)
            connection.execute(
                sa.update(chunks)
                .where(*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
                .values(state=state, counts=dict(counts))
            )

    def receipts(self, run: Run) -> list[tuple[ChunkPlan, str, list[dict[str, Any]], dict[str, int]]]:
        """Return each chunk's plan, state, receipt files and counts over its confirmed requests.

        Raises: GateError if a chunk is neither confirmed nor expired.
        """
        with self.reading() as connection:
            rows = connection.execute(sa.select(chunks).where(*run.of(chunks)).order_by(chunks.c.chunk)).all()
            done = connection.execute(
                sa.select(requests)
                .where(*run.of(requests), requests.c.state == "confirmed")
                .order_by(requests.c.chunk, requests.c.epoch, requests.c.request)
            ).all()
        open_chunks = [f"{row.chunk} ({row.state})" for row in rows if row.state not in DONE]
        if open_chunks:
            raise GateError(
                f"{len(open_chunks)} of {len(rows)} chunks are not confirmed: {', '.join(open_chunks[:10])}; "
                "clear their push tasks and run reconcile_push again"
            )
        found: dict[int, tuple[list[dict[str, Any]], dict[str, int]]] = {row.chunk: ([], {}) for row in rows}
        for request in done:
            files, counts = found[request.chunk]
            files.append(request.receipt)
            for name, number in {**request.counts, "requests": 1}.items():
                counts[name] = counts.get(name, 0) + number
        return [(chunk_plan(row), row.state, *found[row.chunk]) for row in rows]

    def chunk_counts(self, run: Run) -> list[dict[str, int]]:
        """Return what each closed chunk counted."""
        with self.reading() as connection:
            rows = connection.scalars(sa.select(chunks.c.counts).where(*run.of(chunks)).order_by(chunks.c.chunk))
            return [dict(counts) for counts in rows if counts]
