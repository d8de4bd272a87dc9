"""Hand one claimed chunk's mails over to Mail Send, each user's at most once.

The provider knows no repetition: what is asked twice is mailed twice. So a request is written down with its users
before it is made, and is made once, whatever comes of it:

| answer | means | what is done |
|---|---|---|
| 202 | the mails are in the batch | its users are delivered |
| 400, 413 | nothing was taken | halved down to the user, who is quarantined |
| 401, 403, other refusals | nothing was taken | its users are open again; stops |
| 429 | not looked at | its users are open again, after the wait that was asked for |
| 5xx, 408, no answer, a death | unknown | its users are unknown, and in no request ever again |

After an answer that was not heard the batch's pause is looked at before the next request: an outage costs few of them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from jobs.delivery import mail_sender
from jobs.delivery.client import MailProvider
from jobs.delivery.ledger import Claim
from jobs.delivery.mail_bodies import Envelope, MailTokens, first_message
from jobs.delivery.mail_book import MailBook
from jobs.delivery.mail_sheet import MailSheet
from jobs.delivery.provider_calls import LONGEST_WAIT_SECONDS, ProviderCalls
from jobs.delivery.receipt_files import ReceiptFiles, as_outcome
from jobs.delivery.request_book import Request, Ticket
from jobs.delivery.sheet import Positions, Sheet
from schemas.errors import (
    BadContentMailError,
    GateError,
    MailError,
    RejectedMailError,
    RetryableMailError,
    TooLargeMailError,
)
from schemas.tables import MAIL_OUTCOMES

_BAD_ROWS: Final = 25  # refused one by one: with more, something else is wrong
# Answers in a row that were not heard: each costs a thousand users their mail of the day. The task fails, and Airflow's
# next try comes minutes later.
_UNHEARD_IN_A_ROW: Final = 3
_LEAST_WAIT_SECONDS: Final = 1.0  # after a 429 that does not say how long

_log = logging.getLogger(__name__)


@dataclass
class Mailer:
    """Hands over the mails of one claimed chunk. `look` raises unless the batch is paused."""

    provider: MailProvider
    book: MailBook
    claim: Claim
    calls: ProviderCalls
    files: ReceiptFiles
    envelope: Envelope
    tokens: MailTokens
    requests_per_second: float
    look: Callable[[], None]
    _next: int = field(init=False, default=0)
    _bad_rows: int = field(init=False, default=0)
    _unheard: int = field(init=False, default=0)

    def push(self, mails: MailSheet) -> bool:
        """Hand over what is in no request yet; say whether all of it is settled (else the deadline passed).

        Raises: MailError if answers are not heard time and again; GateError if the worker was replaced, or the batch
        is not on hold any more.
        """
        sheet = mails.sheet
        covered = self._resume(sheet)
        for reason, positions in mails.withheld.items():
            self._withhold(sheet, positions[~covered[positions]], reason)
            covered[positions] = True
        self._send(sheet, np.flatnonzero(~covered))
        counts = self.counts()
        settled = sum(counts[outcome] for outcome in MAIL_OUTCOMES)
        if settled != len(sheet) and not (settled < len(sheet) and self.calls.is_late):
            raise GateError(
                f"chunk {self.claim.plan.chunk}: {settled} of {len(sheet)} users are in a receipt; expected each in "
                "one. Clear the task to push those that are in none"
            )
        return settled == len(sheet)

    def counts(self) -> dict[str, int]:
        """Count the chunk's users by outcome, over all workers that it had, and the requests that were made."""
        found = [request for request in self.book.of_chunk(self.claim.plan.chunk) if request.state != "dropped"]
        counts = {name: sum(request.counts.get(name, 0) for request in found) for name in MAIL_OUTCOMES}
        return {**counts, "requests": len(found)}

    def _resume(self, sheet: Sheet) -> Any:
        """Take over what earlier workers left; return which users must not be in a request any more.

        A request without an answer may have left, or be about to: its worker may only sleep. It stays unknown.
        """
        covered = np.zeros(len(sheet), bool)
        for request in self.book.of_chunk(self.claim.plan.chunk):
            if request.state == "dropped":
                continue
            covered[sheet.find(self.files.read(request.receipt)["user_id"])] = True
            if request.state == "intended":
                mark_unknown(self.book, self.files, request)
        return covered

    def _withhold(self, sheet: Sheet, positions: Positions, reason: str) -> None:
        """Write down users who get no mail after all."""
        if len(positions):
            entry = self.files.write(self._name(), as_outcome(sheet.receipt(positions), "withheld", reason))
            self.book.withhold(self.claim, self._next, asdict(entry), len(positions))
            self._next += 1

    def _send(self, sheet: Sheet, positions: Positions) -> None:
        """Hand over users in as many requests as it takes; past the deadline they stay in none."""
        parts = [positions] if len(positions) else []
        while parts:
            leave_at = self.book.reserve(self.claim, self.requests_per_second)
            # Before the request is written down: a worker that dies while it waits leaves nobody unknown.
            self.calls.wait(leave_at - self.calls.timing.clock().timestamp())
            if self.calls.is_late:
                return
            part = parts.pop(0)
            parts = self._hand_over(sheet, part) + parts

    def _hand_over(self, sheet: Sheet, positions: Positions) -> list[Positions]:
        """Make one request of the first of these users; return, in parts, those who are still in none."""
        token = self.tokens.request(self.claim.plan.chunk, self.claim.epoch, self._next)
        some = sheet.render(positions[: mail_sender.MAILS_PER_REQUEST])
        body = first_message(some, self.envelope.head(), self.envelope.tail(token))
        sent, rest = positions[: body.stop], positions[body.stop :]
        later = [rest] if len(rest) else []
        entry = self.files.write(self._name(), sheet.receipt(sent))
        request, ticket = self._intend(body.sha256, body.size, len(sent), asdict(entry))
        try:
            message_id = self.calls.make_once(ticket, lambda: self.provider.send_mails(body.content))
        except (BadContentMailError, TooLargeMailError) as error:
            return self._halves(sheet, request, sent, error) + later
        except RetryableMailError as error:
            if error.may_have_acted:
                self._not_heard(request, error)
                return later
            self._drop(request)  # a 429 was not looked at
            self.calls.wait(min(error.retry_after_seconds or _LEAST_WAIT_SECONDS, LONGEST_WAIT_SECONDS))
            return [positions]
        except MailError:
            self._drop(request)
            raise
        self.book.take(request, ticket, message_id)
        self._unheard = 0
        return later

    def _intend(self, sha256: str, size: int, mails: int, receipt: Mapping[str, Any]) -> tuple[Request, Ticket]:
        made: list[Request] = []

        def write_down() -> Ticket:
            request, ticket = self.book.intend_mails(
                self.claim, self._next, sha256=sha256, size=size, mails=mails, receipt=receipt
            )
            made.append(request)
            return ticket

        ticket = self.calls.begun(write_down)
        self._next += 1
        return made[0], ticket

    def _halves(
        self, sheet: Sheet, request: Request, positions: Positions, error: RejectedMailError
    ) -> list[Positions]:
        """Cut a refused request in two; a user who is refused alone is quarantined.

        Raises: the refusal itself, if more users are refused than single bad ones explain.
        """
        if len(positions) > 1:
            self._drop(request)
            middle = len(positions) // 2
            return [positions[:middle], positions[middle:]]
        self._bad_rows += 1
        if self._bad_rows > _BAD_ROWS:
            self._drop(request)
            raise RejectedMailError(
                f"chunk {self.claim.plan.chunk}: {self._bad_rows} users were refused one by one, limit {_BAD_ROWS}; "
                f"sending stopped. The last answer: {error}"
            ) from error
        _log.warning("request %d: one user is refused and quarantined: %s", request.request, error)
        refused = as_outcome(sheet.receipt(positions), "quarantined", "refused_request")
        entry = self.files.write_again(refused)
        self.book.settle(self.claim, request, "confirmed", asdict(entry), {"quarantined": 1})
        return []

    def _not_heard(self, request: Request, error: RetryableMailError) -> None:
        """Give up a request whose answer was not heard, and go on only if the provider answers at all.

        Raises: MailError if too many were not heard in a row.
        """
        mark_unknown(self.book, self.files, request)
        self._unheard += 1
        _log.warning(
            "request %d: its answer was not heard, %d users are unknown and not mailed again: %s",
            request.request,
            request.contacts,
            error,
        )
        if self._unheard >= _UNHEARD_IN_A_ROW:
            raise MailError(
                f"chunk {self.claim.plan.chunk}: {self._unheard} answers in a row were not heard; sending stopped, so "
                "that no more users become unknown. Clear the task when the provider answers"
            ) from error
        try:
            self.look()
        except RetryableMailError:
            if not self.calls.is_late:
                raise

    def _drop(self, request: Request) -> None:
        """Write down that nothing of a request was taken: its users are in none any more."""
        self.book.settle(self.claim, request, "dropped", request.receipt, {})

    def _name(self) -> str:
        return f"{self.claim.epoch:03d}-{self._next:05d}"


def mark_unknown(book: MailBook, files: ReceiptFiles, request: Request) -> None:
    """Write down that a request's users may have been mailed, with a receipt that says so."""
    rows = as_outcome(files.read(request.receipt), "unknown")
    book.mark_unknown(request, asdict(files.write_again(rows)))
