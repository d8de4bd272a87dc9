"""Calls at the provider: written down before and after, at the run's pace, by a worker that still holds its claim.

| answer | means | what is done |
|---|---|---|
| 202 and other 2xx | accepted, not stored | an import job is polled to its end; the pace follows X-RateLimit headers |
| 400 | something in the request | halved down to the row, which is quarantined |
| 401 with "credits" | the account has none left | stops; add credits |
| 401, 403 | the key, or what it may do | stops |
| 404 | the thing is not there | stops; an import job that is lost is pushed again |
| 413 | too large | halved |
| 429 | not looked at | everybody waits as long as the provider says, at most two minutes |
| 5xx, 408, no answer | unknown | again, at most 40 times and half an hour; the circuit opens after five in a row |
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_base, wait_random, wait_random_exponential

from jobs.delivery.client import RateLimit
from jobs.delivery.ledger import Claim
from jobs.delivery.request_book import Outcome, RequestBook, Ticket
from jobs.delivery.timing import Timing
from schemas.errors import MailError, RetryableMailError

T = TypeVar("T")

# SendGrid's outages lasted 2 to 18 minutes; past half an hour the task fails and Airflow's retry takes over.
RETRY_TRIES: Final = 40
RETRY_BUDGET_SECONDS: Final = 1800.0
LONGEST_WAIT_SECONDS: Final = 120.0
LEASE_SECONDS: Final = 5.0  # a worker without a sign of life for this long is taken for dead
BEAT_SECONDS: Final = 2.0
_DETAIL_CHARACTERS: Final = 300


class _ProviderWait(wait_base):
    """The provider's own word on when to come back, else exponential; both capped and with jitter."""

    def __init__(self) -> None:
        self._otherwise = wait_random_exponential(multiplier=1, max=LONGEST_WAIT_SECONDS)
        self._jitter = wait_random(0, 1)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, RetryableMailError) and error.retry_after_seconds is not None:
            return min(max(error.retry_after_seconds, 0.0), LONGEST_WAIT_SECONDS) + self._jitter(retry_state)
        return self._otherwise(retry_state)


@dataclass
class ProviderCalls:
    """Makes calls for one worker. With a claim, a worker that slept past its lease asks the ledger before it writes.

    `rate_limit` tells what the last answer said of the provider's limit: the pace of paced calls follows it.
    """

    book: RequestBook
    timing: Timing
    claim: Claim | None = None
    deadline: datetime | None = None
    requests_per_second: float | None = None
    rate_limit: Callable[[], RateLimit | None] = lambda: None
    _verified_at: float = field(init=False, default=float("-inf"))

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed: nothing new is begun."""
        return self.deadline is not None and self.timing.clock() >= self.deadline

    def wait(self, seconds: float) -> None:
        """Sleep, and tell the ledger every two seconds that this worker lives.

        Raises: GateError if it was replaced meanwhile.
        """
        until = self.timing.monotonic() + seconds
        while (left := until - self.timing.monotonic()) > 0:
            self.timing.sleep(min(left, BEAT_SECONDS))
            self._beat(BEAT_SECONDS)

    def stay_alive(self) -> None:
        """Tell the ledger that this worker lives, if it did not within the last two seconds.

        Raises: GateError if it was replaced.
        """
        self._beat(BEAT_SECONDS)

    def repeat(self, call: Callable[[], T]) -> T:
        """Do something that may be repeated, such as asking, until the provider answers."""
        return self._retrying()(call)

    def write(
        self, operation: str, subject: str, call: Callable[[], T], ticket: Ticket | None = None
    ) -> tuple[T, Ticket]:
        """Let the provider do something that may be repeated, until it answers; return that and the last ticket.

        The caller writes the success down, together with what it means. `ticket` is that of the first try, if it was
        written down already.
        """
        tickets = [ticket] if ticket is not None else []
        return self.repeat(lambda: self.attempt(operation, subject, call, tickets.pop() if tickets else None))

    def attempt(
        self, operation: str, subject: str, call: Callable[[], T], ticket: Ticket | None = None
    ) -> tuple[T, Ticket]:
        """Make a call of `write` once, for whoever repeats it together with others."""
        this = ticket if ticket is not None else self._begin(operation, subject)
        return self._make(this, call), this

    def write_once(self, operation: str, subject: str, call: Callable[[], T]) -> T:
        """Let the provider do something that may not be repeated blindly; its failure is written down and raised."""
        ticket = self._begin(operation, subject)
        answer = self._make(ticket, call)
        self.book.end_call(ticket, "ok", "")
        return answer

    def make_once(self, ticket: Ticket, call: Callable[[], T]) -> T:
        """Make a call that was written down, and never again; its failure is written down and raised."""
        return self._make(ticket, call)

    def begun(self, write_down: Callable[[], Ticket]) -> Ticket:
        """Write down a call by a ledger write that checks the claim, which is then known to hold."""
        now = self.timing.monotonic()
        ticket = write_down()
        self._verified_at = now
        return ticket

    def _begin(self, operation: str, subject: str) -> Ticket:
        pace = self.requests_per_second
        return self.begun(lambda: self.book.begin_call(operation, subject, claim=self.claim, requests_per_second=pace))

    def _make(self, ticket: Ticket, call: Callable[[], T]) -> T:
        """Make one call, and write down what came of it unless it succeeded."""
        is_paced = self.requests_per_second is not None
        if is_paced:
            self.wait(ticket.leave_at - self.timing.clock().timestamp())
        self._beat(LEASE_SECONDS / 2)
        try:
            answer = call()
        except RetryableMailError as error:
            self._follow(ticket)
            block = error.retry_after_seconds if is_paced else None
            outcome: Outcome = "unknown" if error.may_have_acted else "failed"
            self.book.end_call(ticket, outcome, str(error)[:_DETAIL_CHARACTERS], is_paced=is_paced, block_seconds=block)
            raise
        except MailError as error:
            self._follow(ticket)
            self.book.end_call(ticket, "failed", str(error)[:_DETAIL_CHARACTERS])
            raise
        self._follow(ticket)
        return answer

    def _follow(self, ticket: Ticket) -> None:
        """Let the run's pace follow what the answer said of the provider's limit."""
        if ticket.number is not None and (said := self.rate_limit()) is not None:
            self.book.heard_limit(ticket, said)

    def _beat(self, older_than_seconds: float) -> None:
        """Ask the ledger whether the claim holds, if that was not known within the last seconds.

        The monotonic clock goes on while a process is stopped, so that one which wakes up asks first.
        """
        if self.claim is not None and self.timing.monotonic() - self._verified_at >= older_than_seconds:
            now = self.timing.monotonic()
            self.book.ledger.beat(self.book.run, self.claim)
            self._verified_at = now

    def _retrying(self) -> Retrying:
        started_at = self.timing.monotonic()

        def is_over(retry_state: RetryCallState) -> bool:
            spent = self.timing.monotonic() - started_at
            return retry_state.attempt_number >= RETRY_TRIES or spent >= RETRY_BUDGET_SECONDS or self.is_late

        return Retrying(
            retry=retry_if_exception_type(RetryableMailError),
            stop=is_over,
            wait=_ProviderWait(),
            sleep=self.wait,
            reraise=True,
        )
