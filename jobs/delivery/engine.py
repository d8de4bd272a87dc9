"""Push one claimed chunk: send what is not confirmed yet, poll every import job to its end, keep a receipt a request.

A request is written down before it leaves, with the rows that it carries. Whoever claims the chunk next skips the rows
that are confirmed, asks about the import jobs that were accepted, and sends the rest: at most the one request whose
answer was never heard is repeated. Its bytes are the same, because the chunk's catalog is its first worker's.
"""

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.carriers import Carrier, Load, carrier_of
from jobs.delivery.client import ImportJob, MailProvider
from jobs.delivery.ledger import Claim
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.receipt_files import ReceiptFiles
from jobs.delivery.request_book import Request, RequestBook, Ticket
from jobs.delivery.sheet import Positions, Sheet
from schemas.errors import (
    BadContentMailError,
    GateError,
    MailError,
    NotFoundMailError,
    RejectedMailError,
    RetryableMailError,
    TooLargeMailError,
)
from schemas.push_method import PushMethod
from schemas.tables import RECEIPT_OUTCOMES

# An import job's length is not documented: ask ever less.
_POLL_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_JOB_BUDGET_SECONDS: Final = 3600.0
_JOB_TRIES: Final = 5  # of the same rows, where a job failed as a whole or does not say whom it refused
_ROW_TRIES: Final = 3  # of rows that a job refused
# Each row that makes a request invalid costs up to thirty requests to find: with more, something else is wrong.
_BAD_ROWS: Final = 25

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    """A request that the provider accepted, with its rows and how often they were sent."""

    request: Request
    positions: Positions
    tries: int


@dataclass(frozen=True)
class _Packed:
    """A load that may leave, and its request with the receipt of its rows; neither is in the ledger yet."""

    load: Load
    request: Request


@dataclass
class Pusher:
    """Pushes the rows of one claimed chunk."""

    provider: MailProvider
    book: RequestBook
    claim: Claim
    calls: ProviderCalls
    files: ReceiptFiles
    requests_per_second: float
    method: PushMethod = "contacts"
    _next: int = field(init=False, default=0)
    _bad_rows: int = field(init=False, default=0)
    _waiting: list[_Waiting] = field(init=False, default_factory=list)
    _carrier: Carrier[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._carrier = carrier_of(self.method, self.provider, self.book, self.calls)

    def push(self, sheet: Sheet) -> bool:
        """Push what is open of a sheet; say whether all of it is confirmed (else the deadline passed).

        Raises: MailError if a job failed as a whole time and again or never ended; GateError if the worker was
        replaced.
        """
        covered = self._resume(sheet)
        with contextlib.closing(self._carrier):
            for lane in range(len(sheet.lanes)):
                self._send(sheet, np.flatnonzero((sheet.lane == lane) & ~covered))
            while self._waiting:
                self._finish(sheet, self._waiting.pop(0))
        counts = self.counts()
        confirmed = sum(counts[outcome] for outcome in RECEIPT_OUTCOMES)
        if confirmed != len(sheet) and not (confirmed < len(sheet) and self.calls.is_late):
            raise GateError(
                f"chunk {self.claim.plan.chunk}: {confirmed} of {len(sheet)} rows have a receipt; "
                "expected one for each. Clear the task to push those that have none"
            )
        return confirmed == len(sheet)

    def counts(self) -> dict[str, int]:
        """Count the chunk's confirmed rows by outcome, over all workers that it had."""
        confirmed = [request for request in self.book.of_chunk(self.claim.plan.chunk) if request.state == "confirmed"]
        found = {name: sum(request.counts.get(name, 0) for request in confirmed) for name in RECEIPT_OUTCOMES}
        return {**found, "requests": len(confirmed)}

    def _resume(self, sheet: Sheet) -> Any:
        """Take over what earlier workers left; return which rows need not be sent."""
        covered = np.zeros(len(sheet), bool)
        for request in self.book.of_chunk(self.claim.plan.chunk):
            if request.state in ("accepted", "confirmed"):
                rows = sheet.find(self.files.read(request.receipt)["user_id"])
                covered[rows] = True
                if request.state == "accepted":
                    self._waiting.append(_Waiting(request, rows, 1))
        return covered

    def _send(self, sheet: Sheet, positions: Positions, tries: int = 1) -> None:
        """Send rows of one lane in as many requests as they need; past the deadline they stay unsent."""
        packed: Future[_Packed] | None = None
        while len(positions) and not self.calls.is_late:
            ready = packed.result() if packed else self._pack(sheet, positions, self._number())
            with contextlib.closing(ready.load) as load:
                request = ready.request
                sent, positions = positions[: load.stop], positions[load.stop :]
                packed = self._pack_ahead(sheet, positions)
                try:
                    job_id, ticket = self._hand_over(load, sheet, int(sheet.lane[sent[0]]), request)
                except (BadContentMailError, TooLargeMailError) as error:
                    self._halve(sheet, request, sent, tries, error)
                    continue
                except RetryableMailError:
                    if self.calls.is_late:
                        return
                    raise
            self.book.accept(self.claim, request.request, ticket, job_id)
            self._waiting.append(_Waiting(replace(request, state="accepted", job_id=job_id), sent, tries))

    def _number(self) -> int:
        """Give the next request's number; that of a receipt is used once."""
        self._next += 1
        return self._next - 1

    def _pack(self, sheet: Sheet, positions: Positions, number: int) -> _Packed:
        """Pack as many rows as fit into one request, and write the receipt that it has once it is confirmed."""
        load = self._carrier.pack(sheet, positions)
        try:
            entry = self.files.write(f"{self.claim.epoch:03d}-{number:05d}", sheet.receipt(positions[: load.stop]))
        except BaseException:
            load.close()
            raise
        plan = self.claim.plan
        request = Request(plan.chunk, self.claim.epoch, number, "intended", load.stop, None, asdict(entry))
        return _Packed(load, request)

    def _pack_ahead(self, sheet: Sheet, positions: Positions) -> Future[_Packed] | None:
        """Begin to pack what comes next while the provider takes this request in."""
        if not len(positions) or self._carrier.ahead is None:
            return None
        return self._carrier.ahead.submit(self._pack, sheet, positions, self._number())

    def _hand_over(self, load: Load, sheet: Sheet, lane: int, request: Request) -> tuple[str, Ticket]:
        """Write a request down, and let the provider take it in."""
        ticket = self.calls.begun(
            lambda: self.book.intend(
                self.claim,
                request.request,
                sha256=load.sha256,
                size=load.size,
                contacts=request.contacts,
                receipt=request.receipt,
                requests_per_second=self.requests_per_second,
                operation=self._carrier.first_call,
            )
        )
        return self._carrier.hand_over(load, sheet, lane, ticket)

    def _halve(
        self, sheet: Sheet, request: Request, positions: Positions, tries: int, error: RejectedMailError
    ) -> None:
        """Send the halves of a request that was refused; a row that is refused alone is quarantined.

        Raises: the refusal itself, if more rows are refused than single bad ones explain.
        """
        if len(positions) > 1:
            self.book.settle(self.claim, request, "dropped", request.receipt, {})
            middle = len(positions) // 2
            self._send(sheet, positions[:middle], tries)
            self._send(sheet, positions[middle:], tries)
            return
        self._bad_rows += 1
        if self._bad_rows > _BAD_ROWS:
            raise RejectedMailError(
                f"chunk {self.claim.plan.chunk}: {self._bad_rows} rows were refused one by one, limit {_BAD_ROWS}; "
                f"sending stopped. The last answer: {error}"
            ) from error
        _log.warning("request %d: one row is refused and quarantined: %s", request.request, error)
        self._confirm(sheet, request, positions, positions, "refused_request")

    def _finish(self, sheet: Sheet, waiting: _Waiting) -> None:
        """Wait for a request's job and write down what became of its rows; rows without a place are sent again."""
        request, positions = waiting.request, waiting.positions
        job = self._final(request.job_id or "")
        is_whole = job is not None and self._carrier.has_read_all(job, request.contacts)
        if job is not None and is_whole and job.status == "completed":
            self._confirm(sheet, request, positions)
            return
        refused = self._refused(sheet, job, positions) if job is not None and is_whole else None
        if refused is None:
            if waiting.tries >= _JOB_TRIES:
                raise MailError(
                    f"chunk {request.chunk} request {request.request}: its import job failed {waiting.tries} times "
                    f"({_outcome(job, request.contacts)}); see the provider's dashboard, then clear the task"
                )
            outcome = _outcome(job, request.contacts)
            _log.info("request %d: its import job failed as a whole (%s); pushing it again", request.request, outcome)
            self.book.settle(self.claim, request, "dropped", request.receipt, {})
            self._send(sheet, positions, waiting.tries + 1)
        elif waiting.tries >= _ROW_TRIES:
            self._confirm(sheet, request, positions, refused, "refused_import")
        else:
            self._confirm(sheet, request, np.setdiff1d(positions, refused, assume_unique=True))
            self._send(sheet, refused, waiting.tries + 1)

    def _refused(self, sheet: Sheet, job: ImportJob, positions: Positions) -> Positions | None:
        """The rows that a job did not store; None if it does not name as many as it counted."""
        found: Mapping[str, str] = {}
        if job.errors_url:
            url = job.errors_url
            found = self.calls.repeat(lambda: self.provider.import_errors(url))
        emails = sheet.emails.take(pa.array(positions))
        is_named = pc.is_in(emails, value_set=pa.array(list(found), pa.string())).to_numpy(zero_copy_only=False)
        if not found or int(is_named.sum()) != len(found) or len(found) != job.errored:
            return None
        rows: Positions = positions[is_named]
        return rows

    def _confirm(
        self,
        sheet: Sheet,
        request: Request,
        positions: Positions,
        refused: Positions | None = None,
        reason: str | None = None,
    ) -> None:
        """Write down that a request's rows are at the provider, or quarantined."""
        receipt = request.receipt
        if refused is not None or len(positions) != request.contacts:
            name = f"{self.claim.epoch:03d}-{self._number():05d}"
            receipt = asdict(self.files.write(name, sheet.receipt(positions, refused, reason)))
        outcomes = sheet.receipt(positions, refused, reason)["outcome"].value_counts().to_pylist()
        counts = {entry["values"]: entry["counts"] for entry in outcomes}
        self.book.settle(self.claim, request, "confirmed", receipt, counts)

    def _final(self, job_id: str) -> ImportJob | None:
        """Poll a job until it has ended; None if the provider does not know it."""
        waits, started_at = iter(_POLL_SECONDS), self.calls.timing.monotonic()
        while True:
            try:
                job = self.calls.repeat(lambda: self.provider.import_job(job_id))
            except NotFoundMailError:
                return None
            if job.status in ("completed", "errored", "failed"):
                return job
            if self.calls.timing.monotonic() - started_at > _JOB_BUDGET_SECONDS:
                raise MailError(
                    f"import job {job_id} is {job.status} after {_JOB_BUDGET_SECONDS:.0f} s; expected it to end. "
                    "Clear the task to look again: nothing is lost"
                )
            self.calls.wait(next(waits, _POLL_SECONDS[-1]))


def _outcome(job: ImportJob | None, contacts: int) -> str:
    """Say in what way a job failed."""
    if job is None:
        return "the provider does not know it"
    return f"{job.status}, {job.requested} of {contacts} contacts read, {job.errored} refused"
