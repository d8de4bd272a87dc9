"""Push request bodies: send at the rate allowed, poll every import job to its end, tell which rows arrived."""

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_base, wait_random_exponential

from jobs.delivery.client import ImportJob, MailProvider
from jobs.delivery.ledger import Claim, Ledger, Run
from jobs.delivery.payload import Body
from schemas.errors import MailError, RetryableMailError

Sleep = Callable[[float], None]
Clock = Callable[[], dt.datetime]

# SendGrid's outages lasted 2 to 18 minutes; past half an hour the task fails and Airflow's retry takes over.
_RETRY_TRIES: Final = 40
_RETRY_BUDGET_SECONDS: Final = 1800.0
_LONGEST_WAIT_SECONDS: Final = 120.0
_POLL_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # an import job's length is not documented: ask ever less
_JOB_BUDGET_SECONDS: Final = 3600.0
_FAILED_JOB_TRIES: Final = 3

_log = logging.getLogger(__name__)


@dataclass
class Pace:
    """At most `requests_per_second` from this process, evenly spaced."""

    requests_per_second: float
    clock: Clock
    sleep: Sleep
    _next_at: dt.datetime | None = None

    def wait(self) -> None:
        """Return when the next request may leave."""
        now = self.clock()
        if self._next_at is not None and now < self._next_at:
            self.sleep((self._next_at - now).total_seconds())
            now = self._next_at
        self._next_at = now + dt.timedelta(seconds=1 / self.requests_per_second)


class _ProviderWait(wait_base):
    """The provider's own word on when to come back, else an exponential wait with jitter; both capped."""

    def __init__(self) -> None:
        self._otherwise = wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, RetryableMailError) and error.retry_after_seconds is not None:
            return min(max(error.retry_after_seconds, 0.0), _LONGEST_WAIT_SECONDS)
        return self._otherwise(retry_state)


def retrying(sleep: Sleep) -> Retrying:
    """Retry what the provider may answer better later, within a budget of tries and of clock."""
    return Retrying(
        retry=retry_if_exception_type(RetryableMailError),
        stop=stop_after_attempt(_RETRY_TRIES) | stop_after_delay(_RETRY_BUDGET_SECONDS),
        wait=_ProviderWait(),
        sleep=sleep,
        reraise=True,
    )


@dataclass(frozen=True)
class Pusher:
    """Pushes the bodies of one claimed chunk."""

    provider: MailProvider
    ledger: Ledger
    run: Run
    claim: Claim
    pace: Pace
    clock: Clock
    sleep: Sleep

    def push(self, bodies: Sequence[Body], first_request: int = 0) -> dict[int, set[str]]:
        """Push all bodies and wait for their jobs.

        Returns the addresses that the provider refused, by position in `bodies`; everyone else arrived.
        Raises: MailError if a job failed as a whole time and again or never ended.
        """
        pending = {number: self._send(first_request + number, body) for number, body in enumerate(bodies)}
        refused: dict[int, set[str]] = {}
        for number, body in enumerate(bodies):
            for _ in range(_FAILED_JOB_TRIES):
                job = self._final(pending[number])
                if job.status != "failed":
                    break
                _log.warning("request %d: its import job failed as a whole; pushing it again", first_request + number)
                pending[number] = self._send(first_request + number, body)
            else:
                raise MailError(
                    f"chunk {self.claim.plan.chunk} request {first_request + number}: its import job failed "
                    f"{_FAILED_JOB_TRIES} times; see the provider's dashboard, then clear the task"
                )
            if job.status == "errored":
                refused[number] = self._refused(job)
            self._record(first_request + number, body, "confirmed", job.job_id)
        return refused

    def _refused(self, job: ImportJob) -> set[str]:
        """The addresses that an errored job did not store.

        Raises: MailError if it does not name as many as it counted: then nobody knows who has what.
        """
        found: Mapping[str, str] = {}
        if job.errors_url:
            for attempt in retrying(self.sleep):
                with attempt:
                    found = self.provider.import_errors(job.errors_url)
        if len(found) != job.errored:
            raise MailError(
                f"chunk {self.claim.plan.chunk}: import job {job.job_id} refused {job.errored} contacts and names "
                f"{len(found)}; clear the task to push the chunk again"
            )
        return set(found)

    def _send(self, request: int, body: Body) -> str:
        self._record(request, body, "intended", None)
        for attempt in retrying(self.sleep):
            with attempt:
                self.pace.wait()
                job_id: str = self.provider.upsert(body.text)
        self._record(request, body, "accepted", job_id)
        return job_id

    def _final(self, job_id: str) -> ImportJob:
        """Poll a job until it has ended."""
        waits, started_at = iter(_POLL_SECONDS), self.clock()
        while True:
            for attempt in retrying(self.sleep):
                with attempt:
                    job = self.provider.import_job(job_id)
            if job.status in ("completed", "errored", "failed"):
                return job
            if (self.clock() - started_at).total_seconds() > _JOB_BUDGET_SECONDS:
                raise MailError(
                    f"import job {job_id} is {job.status} after {_JOB_BUDGET_SECONDS:.0f} s; expected it to end. "
                    "Clear the task to look again: nothing is lost"
                )
            self.sleep(next(waits, _POLL_SECONDS[-1]))

    def _record(self, request: int, body: Body, state: str, job_id: str | None) -> None:
        self.ledger.record_request(
            self.run,
            self.claim,
            request,
            sha256=body.sha256,
            size=body.size,
            contacts=body.stop - body.start,
            state=state,
            job_id=job_id,
        )
