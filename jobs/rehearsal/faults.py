"""What goes wrong at the provider, and when: decided by hashes of a seed and of what is asked, never by a shared draw.

A request is known by its method, path and body, and by how often exactly that has been asked: the same night against
the same seed meets the same faults, however its threads interleave and wherever it is killed and begun again.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400)]
RequestFaultName = Literal["drop_before", "drop_after", "too_many_requests", "error_before", "error_after"]
Name = TypeVar("Name", bound=str)
JobFaultName = Literal["failed", "errored", "lost", "stuck"]
REQUEST_FAULTS: Final[tuple[RequestFaultName, ...]] = (
    "drop_before", "drop_after", "too_many_requests", "error_before", "error_after",
)  # fmt: skip
JOB_FAULTS: Final[tuple[JobFaultName, ...]] = ("failed", "errored", "lost", "stuck")
ERROR_STATUSES: Final = (500, 502, 503, 504)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedFault(_Settings):
    """One fault at one request: the `nth` (from 1) to match since the faults were set."""

    method: str = "*"
    path: str = Field("*", description="of the request, with * for any part: /v3/marketing/singlesends/*/schedule")
    nth: int = Field(1, ge=1)
    fault: RequestFaultName
    status: int | None = Field(None, ge=500, le=599, description="of error_before and error_after")


class Outage(_Settings):
    """Every request is answered with one status (nothing happens) between two instants of the provider's clock."""

    begins_at: AwareDatetime
    ends_at: AwareDatetime
    status: int = Field(503, ge=500, le=599)


class FaultSettings(_Settings):
    """Rates of what goes wrong, and the seed that decides where. All rates 0: nothing does."""

    seed: int = 0

    # Of requests. A request meets one of these at most, so that their sum is at most 1.
    drop_before: Rate = Field(0, description="the connection is cut, and nothing happened")
    drop_after: Rate = Field(0, description="the request took effect, then the connection is cut without an answer")
    too_many_requests: Rate = Field(0, description="429, nothing happened")
    error_before: Rate = Field(0, description="5xx, nothing happened")
    error_after: Rate = Field(0, description="5xx, although the request took effect")
    error_status: int | None = Field(None, ge=500, le=599, description="of both; None: 500, 502, 503 or 504 in turn")
    hang_seconds: Seconds = Field(0, description="how long a connection hangs before it is cut")
    retry_after: Literal["seconds", "date", "missing", "absurd", "mixed"] = "seconds"
    retry_after_seconds: Seconds = 1
    most_in_a_row: int = Field(3, ge=0, description="faults that one and the same request meets before it gets through")
    only: tuple[str, ...] = Field((), description='"METHOD PATH" with *: rates apply to these requests; (): to all')
    script: tuple[ScriptedFault, ...] = ()
    outages: tuple[Outage, ...] = ()

    # Of import jobs. A job meets one of these at most.
    failed_job: Rate = Field(0, description="ends as failed; no contact is stored, no error file")
    errored_job: Rate = Field(0, description="ends as errored: `errored_share` of its contacts are in the error file")
    lost_job: Rate = Field(0, description="is never applied; when it was to be, its id is forgotten: 404")
    stuck_job: Rate = Field(0, description="stays pending for ever")
    errored_share: Rate = Field(0.01, description="of an errored job's contacts, at least one")
    job_lag_seconds: tuple[Seconds, Seconds] | None = Field(
        None, description="least and most from accepting a job to applying it; None: the server's own, the same for all"
    )
    out_of_order: Rate = Field(0, description="jobs that wait `out_of_order_seconds` longer, past later ones")
    out_of_order_seconds: Seconds = 5

    # Of what is read back.
    count_lag_seconds: Seconds = Field(0, description="how old the sizes of lists are that are shown")
    search_lag_seconds: Seconds = Field(0, description="for how long what was created is not found by a search")

    # Of event webhooks.
    duplicate_event: Rate = Field(0, description="events that are posted again")
    changed_event_id: Rate = Field(0, description="of those, that come with another sg_event_id")
    disordered_event: Rate = Field(0, description="events that are posted in the batch after their own")
    lost_event: Rate = Field(0, description="events that are never posted")

    @model_validator(mode="after")
    def _are_shares(self) -> Self:
        for names in (REQUEST_FAULTS, [f"{name}_job" for name in JOB_FAULTS]):
            total = sum(getattr(self, name) for name in names)
            if total > 1 + 1e-9:
                raise ValueError(f"{' + '.join(names)} is {total:g}; expected at most 1, as one excludes the others")
        if self.job_lag_seconds is not None and self.job_lag_seconds[0] > self.job_lag_seconds[1]:
            raise ValueError(f"job_lag_seconds is {self.job_lag_seconds}; expected the least first")
        return self


def rehearsed_faults(seed: int) -> FaultSettings:
    """Give the faults of `make rehearse FAULTS=seed`: a bad night, of every kind, that a push has to get through."""
    return FaultSettings(
        seed=seed,
        drop_before=0.03,
        drop_after=0.05,
        too_many_requests=0.05,
        error_before=0.04,
        error_after=0.03,
        retry_after="mixed",
        failed_job=0.03,
        errored_job=0.05,
        lost_job=0.01,
        job_lag_seconds=(0.05, 2.0),
        out_of_order=0.1,
        out_of_order_seconds=3,
        count_lag_seconds=1,
        search_lag_seconds=1,
        duplicate_event=0.05,
        changed_event_id=0.5,
        disordered_event=0.1,
    )


@dataclass(frozen=True)
class RequestFault:
    """What happens to one request."""

    name: RequestFaultName
    status: int = 503
    retry_after: str | None = None  # the header's value; None: no header

    @property
    def is_handled(self) -> bool:
        """Whether the request takes effect all the same."""
        return self.name in ("drop_after", "error_after")

    @property
    def is_cut(self) -> bool:
        """Whether the client gets no answer at all."""
        return self.name in ("drop_before", "drop_after")


@dataclass(frozen=True)
class JobFate:
    """What becomes of one import job."""

    fault: JobFaultName | None
    lag_seconds: float


class Faults:
    """Decides the faults of one provider; counts requests, so that a repeated one is told from its first time."""

    def __init__(self, settings: FaultSettings | None = None) -> None:
        """Begin with `settings`; nothing goes wrong without."""
        self._lock = threading.Lock()
        self.replace(settings or FaultSettings())

    @property
    def settings(self) -> FaultSettings:
        """The settings in force."""
        return self._settings

    def replace(self, settings: FaultSettings) -> None:
        """Put other settings in force, and count requests anew."""
        with self._lock:
            self._settings = settings
            self._asked: Counter[bytes] = Counter()
            self._in_a_row: Counter[bytes] = Counter()
            self._scripted: Counter[int] = Counter()

    def of_request(self, method: str, path: str, digest: str, now: datetime) -> RequestFault | None:
        """Decide what happens to the request with that digest of its body, None: what should."""
        settings = self._settings
        for outage in settings.outages:
            if outage.begins_at <= now < outage.ends_at:
                return RequestFault("error_before", outage.status)
        if settings.script and (scripted := self._from_script(method, path)) is not None:
            return self._detailed(scripted.fault, _digest("script", method, path), now, scripted.status)
        if not any(getattr(settings, name) for name in REQUEST_FAULTS) or not self._applies(method, path):
            return None
        key = _digest("request", method, path, digest)
        with self._lock:
            self._asked[key] += 1
            nth = self._asked[key]
            draw = self.share("request", key, nth)
            name = _choose(draw, [(name, getattr(settings, name)) for name in REQUEST_FAULTS])
            if name is None or self._in_a_row[key] >= settings.most_in_a_row:
                self._in_a_row[key] = 0
                return None
            self._in_a_row[key] += 1
        return self._detailed(name, _digest("detail", key, nth), now)

    def of_job(self, job_id: str, default_lag_seconds: float) -> JobFate:
        """Decide what becomes of an import job; its id comes from what it was asked to do."""
        settings = self._settings
        rates = [(name, getattr(settings, f"{name}_job")) for name in JOB_FAULTS]
        fault = _choose(self.share("job", job_id), rates)
        lag = default_lag_seconds
        if settings.job_lag_seconds is not None:
            least, most = settings.job_lag_seconds
            lag = least + (most - least) * self.share("lag", job_id)
        if self.share("order", job_id) < settings.out_of_order:
            lag += settings.out_of_order_seconds
        return JobFate(fault, lag)

    def share(self, *parts: object) -> float:
        """Draw a number of [0, 1) that these parts and the seed always give."""
        return int.from_bytes(_digest(self._settings.seed, *parts)[:8], "big") / 2**64

    def _applies(self, method: str, path: str) -> bool:
        patterns = self._settings.only
        return not patterns or any(fnmatchcase(f"{method} {path}", pattern) for pattern in patterns)

    def _from_script(self, method: str, path: str) -> ScriptedFault | None:
        found = None
        with self._lock:
            for number, entry in enumerate(self._settings.script):
                if fnmatchcase(method, entry.method) and fnmatchcase(path, entry.path):
                    self._scripted[number] += 1
                    if self._scripted[number] == entry.nth and found is None:
                        found = entry
        return found

    def _detailed(self, name: RequestFaultName, key: bytes, now: datetime, status: int | None = None) -> RequestFault:
        settings = self._settings
        status = status or settings.error_status or ERROR_STATUSES[int(self.share("status", key) * len(ERROR_STATUSES))]
        if name != "too_many_requests":
            return RequestFault(name, status)
        kind = settings.retry_after
        if kind == "mixed":
            kind = _RETRY_KINDS[int(self.share("retry", key) * len(_RETRY_KINDS))]
        return RequestFault(name, 429, _RETRY_AFTER[kind](settings.retry_after_seconds, now))


_RETRY_KINDS: Final[tuple[Literal["seconds", "date", "missing", "absurd"], ...]] = (
    "seconds", "date", "missing", "absurd",
)  # fmt: skip
_RETRY_AFTER: Final[dict[str, Callable[[float, datetime], str | None]]] = {
    "seconds": lambda seconds, now: f"{seconds:g}",
    "date": lambda seconds, now: format_datetime(
        datetime.fromtimestamp(int(now.timestamp() + seconds), UTC), usegmt=True
    ),
    "missing": lambda seconds, now: None,
    "absurd": lambda seconds, now: "31536000",  # a year: a client that believes it never comes back
}


def _choose(draw: float, rates: list[tuple[Name, float]]) -> Name | None:
    for name, rate in rates:
        if draw < rate:
            return name
        draw -= rate
    return None


def _digest(*parts: object) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()
