"""What a run asked of the provider and what it heard: requests with their receipts, and the history of calls.

Each request is written down before it leaves, with the receipt of the rows that it carries, so that whoever comes next
knows which rows are confirmed, which import jobs to ask about, and which rows to send again. All writes of a chunk name
its claim, and a worker that was replaced gets a GateError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from jobs.delivery import shared_pace
from jobs.delivery.client import RateLimit
from jobs.delivery.ledger import Claim, Ledger, Run
from jobs.delivery.ledger_tables import calls, plans, requests
from schemas.errors import GateError

Outcome = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True)
class Request:
    """One request of a chunk. `epoch` is that of the worker that made it, `receipt` the file with its rows."""

    chunk: int
    epoch: int
    request: int
    state: str
    contacts: int
    job_id: str | None
    receipt: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """A call that was written down and may leave at an instant (Unix time); `number` is its place in the run's pace."""

    call: int
    operation: str
    subject: str
    leave_at: float
    number: int | None = None


@dataclass(frozen=True)
class RequestBook:
    """The requests and calls of one run."""

    ledger: Ledger
    run: Run

    # Calls

    def begin_call(
        self, operation: str, subject: str, *, claim: Claim | None = None, requests_per_second: float | None = None
    ) -> Ticket:
        """Write down a call before it is made, and reserve its instant if it has to keep the pace.

        Raises: GateError if the claim's worker was replaced, or the run was cancelled.
        """
        with self.ledger.writing() as connection:
            return self._begin(connection, operation, subject, claim, requests_per_second)

    def end_call(
        self,
        ticket: Ticket,
        outcome: Outcome,
        detail: str,
        *,
        is_paced: bool = False,
        block_seconds: float | None = None,
    ) -> None:
        """Write down what a call came to. No claim is needed: that it was made stays true for a replaced worker."""
        with self.ledger.writing() as connection:
            self._end(connection, ticket, outcome, detail)
            if is_paced and outcome != "ok":
                shared_pace.failed(connection, self.ledger, self.run)
            if block_seconds is not None:
                shared_pace.block(connection, self.ledger, self.run, block_seconds)

    def heard_limit(self, ticket: Ticket, said: RateLimit) -> None:
        """Let the run's pace follow what the answer to a paced call said of the provider's limit."""
        if ticket.number is not None:
            with self.ledger.writing() as connection:
                shared_pace.heard(connection, self.ledger, self.run, ticket.number, said)

    def adopt(self, operation: str, subject: str) -> None:
        """Write down that something was found at the provider which this ledger did not make."""
        with self.ledger.writing() as connection:
            self._append(connection, operation, subject, "adopted", None, "")

    def has_begun(self, operation: str) -> bool:
        """Tell whether this ledger knows of a call of that kind (or of what one left at the provider)."""
        known = (*self.run.of(calls), calls.c.operation == operation, calls.c.event.in_(("begun", "adopted")))
        with self.ledger.reading() as connection:
            return bool(connection.scalar(sa.select(sa.func.count()).select_from(calls).where(*known)))

    def history(self) -> list[dict[str, Any]]:
        """Return the run's calls in order, each with its outcome; `unknown` where it was cut off."""
        ends = sa.alias(calls)
        rows = (
            sa.select(
                calls.c.at, calls.c.operation, calls.c.subject, calls.c.event, ends.c.event.label("end"), ends.c.detail
            )
            .outerjoin(ends, ends.c.begun_call == calls.c.call)
            .where(*self.run.of(calls), calls.c.event.in_(("begun", "adopted")))
            .order_by(calls.c.call)
        )
        with self.ledger.reading() as connection:
            return [
                {
                    "at": row.at,
                    "operation": row.operation,
                    "subject": row.subject,
                    "outcome": row.end or ("unknown" if row.event == "begun" else row.event),
                    "detail": row.detail or "",
                }
                for row in connection.execute(rows)
            ]

    # Requests

    def intend(
        self,
        claim: Claim,
        request: int,
        *,
        sha256: str,
        size: int,
        contacts: int,
        receipt: Mapping[str, Any],
        requests_per_second: float,
        operation: str = "upsert",
    ) -> Ticket:
        """Write down a request and its first call before it leaves."""
        key = {**self.run.key, "chunk": claim.plan.chunk, "epoch": claim.epoch, "request": request}
        values = {"body_sha256": sha256, "bytes": size, "contacts": contacts, "state": "intended"}
        subject = f"{claim.plan.chunk}/{claim.epoch}/{request}"
        with self.ledger.writing() as connection:
            ticket = self._begin(connection, operation, subject, claim, requests_per_second)
            connection.execute(sa.insert(requests).values(**key, **values, receipt=dict(receipt)))
        return ticket

    def accept(self, claim: Claim, request: int, ticket: Ticket, job_id: str) -> None:
        """Write down the import job that the provider made of a request."""
        with self.ledger.writing() as connection:
            self._end(connection, ticket, "ok", job_id)
            shared_pace.succeeded(connection, self.run)
            self.ledger.check_epoch(connection, self.run, claim)
            self._update(connection, claim.plan.chunk, claim.epoch, request, state="accepted", job_id=job_id)

    def settle(
        self, claim: Claim, request: Request, state: str, receipt: Mapping[str, Any], counts: Mapping[str, int]
    ) -> None:
        """Write down a request's end: `confirmed` with what the receipt says, or `dropped` (its rows go elsewhere)."""
        with self.ledger.writing() as connection:
            self.ledger.check_epoch(connection, self.run, claim)
            self._update(
                connection,
                request.chunk,
                request.epoch,
                request.request,
                state=state,
                receipt=dict(receipt),
                counts=dict(counts),
            )

    def of_chunk(self, chunk: int) -> list[Request]:
        """Return all requests of a chunk, whoever made them, in order."""
        with self.ledger.reading() as connection:
            rows = connection.execute(
                sa.select(requests)
                .where(*self.run.of(requests), requests.c.chunk == chunk)
                .order_by(requests.c.epoch, requests.c.request)
            ).all()
        return [
            Request(r.chunk, r.epoch, r.request, r.state, r.contacts, r.job_id, r.receipt, r.counts or {}) for r in rows
        ]

    def unknown_contacts(self) -> int:
        """Count the contacts of requests that may have reached the provider without a receipt saying so."""
        with self.ledger.reading() as connection:
            total = connection.scalar(
                sa.select(sa.func.sum(requests.c.contacts)).where(
                    *self.run.of(requests), requests.c.state.in_(("intended", "accepted"))
                )
            )
        return int(total or 0)

    # The list

    def settle_list(self, list_id: str) -> None:
        """Write down the id of the run's list."""
        with self.ledger.writing() as connection:
            connection.execute(sa.update(plans).where(*self.run.of(plans)).values(list_id=list_id))

    def _begin(
        self,
        connection: sa.Connection,
        operation: str,
        subject: str,
        claim: Claim | None,
        requests_per_second: float | None,
    ) -> Ticket:
        if claim is not None:  # a run that is cancelled leaves no claim valid
            self.ledger.check_epoch(connection, self.run, claim)
        elif reason := connection.scalar(sa.select(plans.c.stopped_reason).where(*self.run.of(plans))):
            raise GateError(
                f"{self.run.campaign} of {self.run.send_date} was cancelled ({reason}); nothing more leaves"
            )
        leave_at, number = 0.0, None
        if requests_per_second is not None:
            leave_at, number = shared_pace.reserve(connection, self.ledger, self.run, requests_per_second)
        call = self._append(connection, operation, subject, "begun", None, "")
        return Ticket(call, operation, subject, leave_at, number)

    def _end(self, connection: sa.Connection, ticket: Ticket, event: str, detail: str) -> None:
        self._append(connection, ticket.operation, ticket.subject, event, ticket.call, detail)

    def _append(
        self, connection: sa.Connection, operation: str, subject: str, event: str, begun: int | None, detail: str
    ) -> int:
        values = {"operation": operation, "subject": subject, "event": event, "begun_call": begun, "detail": detail}
        added = connection.execute(
            sa.insert(calls).values(**self.run.key, at=self.ledger.now_text(), **values).returning(calls.c.call)
        )
        return int(added.scalar_one())

    def _update(self, connection: sa.Connection, chunk: int, epoch: int, request: int, **values: Any) -> None:
        where = (*self.run.of(requests), requests.c.chunk == chunk, requests.c.epoch == epoch)
        connection.execute(sa.update(requests).where(*where, requests.c.request == request).values(**values))
