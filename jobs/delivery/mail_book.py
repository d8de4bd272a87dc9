"""What a run of Mail Send has in the ledger: its one batch, and a row for each request that hands mails over.

One row is one HTTP call, for ever. It is `intended` before the call and `confirmed` by its 202; `dropped` if the
provider said that it took nothing, and only then do its users go into another row. Whatever else comes of the call, a
death of the worker included, is `unknown`: its users are in no other row, until events say whether they were mailed.
"""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from jobs.delivery import shared_pace
from jobs.delivery.ledger import Claim, Run
from jobs.delivery.ledger_tables import batches, requests
from jobs.delivery.request_book import Request, RequestBook, Ticket

# made: an id and nothing else. held: paused, mails may be handed over. released: they leave at their time. cancelled:
# they never do. lifted: cancelled long ago, so that the provider need not remember it any more.
BatchState = Literal["made", "held", "released", "cancelled", "lifted"]
UNHEARD: Final = ("intended", "unknown")  # states of requests that may have reached the provider or not


@dataclass(frozen=True)
class Batch:
    """A run's batch: its mails leave at `send_at`, or when they are released if that is later."""

    batch_id: str
    template_id: str
    send_at: dt.datetime
    state: BatchState


@dataclass(frozen=True)
class MailBook(RequestBook):
    """The batch and the requests of one run."""

    # The batch

    def batch(self) -> Batch | None:
        """Return the run's batch, None while it has none."""
        with self.ledger.reading() as connection:
            row = connection.execute(sa.select(batches).where(*self.run.of(batches))).one_or_none()
        return _batch(row) if row is not None else None

    def settle_batch(self, batch_id: str, template_id: str, send_at: dt.datetime) -> Batch:
        """Settle which batch is the run's one; the first choice stays. Return the one that holds."""
        values = {"batch_id": batch_id, "template_id": template_id, "send_at": send_at.isoformat(), "state": "made"}
        with self.ledger.writing() as connection:
            row = {**self.run.key, **values, "updated_at": self.ledger.now_text()}
            self.ledger.insert_or_ignore(connection, batches, row)
            return _batch(connection.execute(sa.select(batches).where(*self.run.of(batches))).one())

    def mark_batch(self, state: BatchState, *, was: Sequence[BatchState]) -> None:
        """Write down how far the batch is; nothing if it is in none of the states `was` any more."""
        with self.ledger.writing() as connection:
            connection.execute(
                sa.update(batches)
                .where(*self.run.of(batches), batches.c.state.in_(was))
                .values(state=state, updated_at=self.ledger.now_text())
            )

    def batches_before(self) -> list[tuple[Run, Batch]]:
        """Return the batches of the campaign's earlier dates that are still held or cancelled, oldest first."""
        with self.ledger.reading() as connection:
            rows = connection.execute(
                sa.select(batches)
                .where(
                    batches.c.campaign == self.run.campaign,
                    batches.c.send_date < self.run.send_date.isoformat(),
                    batches.c.state.in_(("made", "held", "cancelled")),
                )
                .order_by(batches.c.send_date)
            ).all()
        return [(Run(row.campaign, dt.date.fromisoformat(row.send_date)), _batch(row)) for row in rows]

    # Requests

    def reserve(self, claim: Claim, requests_per_second: float) -> float:
        """Reserve the instant (Unix time) at which the next request may leave; a worker waits before it intends one.

        Raises: GateError if the worker was replaced.
        """
        with self.ledger.writing() as connection:
            self.ledger.check_epoch(connection, self.run, claim)
            return shared_pace.reserve(connection, self.ledger, self.run, requests_per_second).leave_at

    def intend_mails(
        self, claim: Claim, request: int, *, sha256: str, size: int, mails: int, receipt: Mapping[str, Any]
    ) -> tuple[Request, Ticket]:
        """Write down a request and its call before it is made."""
        with self.ledger.writing() as connection:
            subject = f"{claim.plan.chunk}/{claim.epoch}/{request}"
            ticket = self._begin(connection, "send_mails", subject, claim, None)
            row = self._insert(connection, claim, request, "intended", mails, receipt, {}, sha256=sha256, size=size)
        return row, ticket

    def take(self, request: Request, ticket: Ticket, message_id: str) -> None:
        """Write down that the provider took a request's mails. That stays true for a worker that was replaced."""
        with self.ledger.writing() as connection:
            self._end(connection, ticket, "ok", message_id)
            shared_pace.succeeded(connection, self.run)
            counts = {"delivered": request.contacts}
            self._change(connection, request, UNHEARD, "confirmed", request.receipt, counts, job_id=message_id)

    def withhold(self, claim: Claim, request: int, receipt: Mapping[str, Any], users: int) -> None:
        """Write down users of a chunk who get no mail after all: a row of which no request is made."""
        with self.ledger.writing() as connection:
            self.ledger.check_epoch(connection, self.run, claim)
            counts = {"withheld": users}
            self._insert(connection, claim, request, "confirmed", users, receipt, counts, sha256="", size=0)

    def mark_unknown(self, request: Request, receipt: Mapping[str, Any]) -> None:
        """Write down that nobody knows what became of a request. No claim is needed: nobody repeats it either way."""
        with self.ledger.writing() as connection:
            self._change(connection, request, ("intended",), "unknown", receipt, {"unknown": request.contacts})

    def settle_unheard(
        self, request: Request, state: Literal["confirmed", "not_sent"], receipt: Mapping[str, Any]
    ) -> None:
        """Write down what events, or the batch's end, say about a request: it was taken, or nothing of it left.

        An event about a request that was given up has the last word.
        """
        counts = {"delivered" if state == "confirmed" else "not_sent": request.contacts}
        with self.ledger.writing() as connection:
            was = (*UNHEARD, "not_sent") if state == "confirmed" else (*UNHEARD, "confirmed")
            self._change(connection, request, was, state, receipt, counts)

    def outcomes(self) -> dict[str, int]:
        """Count the run's users by outcome. Who is in a request under way counts as unknown."""
        with self.ledger.reading() as connection:
            rows = connection.execute(
                sa.select(requests.c.state, requests.c.contacts, requests.c.counts).where(*self.run.of(requests))
            ).all()
        found: Counter[str] = Counter()
        for row in rows:
            found.update({"unknown": row.contacts} if row.state == "intended" else dict(row.counts or {}))
        return dict(found)

    def _insert(
        self,
        connection: sa.Connection,
        claim: Claim,
        request: int,
        state: str,
        contacts: int,
        receipt: Mapping[str, Any],
        counts: Mapping[str, int],
        *,
        sha256: str,
        size: int,
    ) -> Request:
        key = {"chunk": claim.plan.chunk, "epoch": claim.epoch, "request": request}
        values = {"state": state, "contacts": contacts, "receipt": dict(receipt), "counts": dict(counts)}
        connection.execute(sa.insert(requests).values(**self.run.key, **key, **values, body_sha256=sha256, bytes=size))
        return Request(claim.plan.chunk, claim.epoch, request, state, contacts, None, receipt, counts)

    def _change(
        self,
        connection: sa.Connection,
        request: Request,
        was: Sequence[str],
        state: str,
        receipt: Mapping[str, Any],
        counts: Mapping[str, int],
        **more: Any,
    ) -> None:
        connection.execute(
            sa.update(requests)
            .where(
                *self.run.of(requests),
                requests.c.chunk == request.chunk,
                requests.c.epoch == request.epoch,
                requests.c.request == request.request,
                requests.c.state.in_(was),
            )
            .values(state=state, receipt=dict(receipt), counts=dict(counts), **more)
        )


def _batch(row: Any) -> Batch:
    return Batch(row.batch_id, row.template_id, dt.datetime.fromisoformat(row.send_at), row.state)
