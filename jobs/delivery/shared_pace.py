"""One pace for all processes that push a run, kept in the ledger: when the next request may leave.

A request reserves its instant before it leaves; the next one is a spacing later (the virtual scheduling form of the
generic cell rate algorithm, ITU-T I.371, with no burst). What a killed process had reserved is lost, not made up for.
The spacing is that of the campaign's rate, or of the one that an operator set meanwhile, and wider where the provider's
answers say that less is left of its limit: what remains is spread over the time until its reset, and nothing leaves
before that once it is used up. After failures in a row the circuit opens: requests then leave one by one, ever further
apart, until one succeeds.
"""

from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from jobs.delivery.client import RateLimit
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.ledger_tables import paces

HEADROOM: Final = 0.98  # of the rate is used: a process that wakes late comes closer to the request behind it
HORIZON_SECONDS: Final = 300.0  # nobody reserves further ahead; what lies beyond comes from a clock that was put back
LONGEST_WINDOW_SECONDS: Final = 3600.0  # a reset that is further away is taken for nonsense, such as milliseconds
FAILURES_TO_OPEN: Final = 5
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 120.0
_NEW: Final = {"last_at": 0.0, "reserved": 0, "blocked_until": 0.0, "failures": 0}


class Slot(NamedTuple):
    """A request's place: when it leaves (Unix time), and its number among the run's reservations."""

    leave_at: float
    number: int


def reserve(connection: sa.Connection, ledger: Ledger, run: Run, requests_per_second: float) -> Slot:
    """Reserve the next request's place."""
    now = ledger.now_seconds()
    pace = _pace(connection, run)
    if pace is None:
        ledger.insert_or_ignore(connection, paces, {**run.key, **_NEW})
        pace = _pace(connection, run)
    spacing = 1 / (HEADROOM * (pace.requests_per_second or requests_per_second))
    leave_at = max(now, pace.last_at + spacing, pace.blocked_until, _within_limit(pace))
    values = {"last_at": leave_at, "reserved": pace.reserved + 1}
    if leave_at > now + HORIZON_SECONDS:  # whatever was reserved before the clock was put back has left by then
        leave_at = now + HORIZON_SECONDS
        values |= {"last_at": leave_at, "blocked_until": leave_at}
    if pace.reset_at is not None and leave_at >= pace.reset_at:  # what that window has left is worth nothing any more
        values["reset_at"] = None
    connection.execute(sa.update(paces).where(*run.of(paces)).values(**values))
    return Slot(leave_at, pace.reserved + 1)


def _within_limit(pace: Any) -> float:
    """Give the instant from which on the provider's limit has room for one more request, as far as it is known."""
    if pace.reset_at is None:
        return 0.0
    # 2 % stay unused here too: a request that left before the last one answered may not have been counted in that.
    spare = round(pace.rate_limit * (1 - HEADROOM))
    left = max(0, pace.answered + pace.remaining - spare - pace.reserved)
    share: float = (pace.reset_at - pace.last_at) / (left + 1)
    return float(min(pace.reset_at, pace.last_at + share))


def heard(connection: sa.Connection, ledger: Ledger, run: Run, number: int, said: RateLimit) -> None:
    """Take up what the answer to the request of that number said of the provider's limit.

    Answers come in any order: of one window the least that remains holds, after the last request that was answered.
    """
    pace, now = _pace(connection, run), ledger.now_seconds()
    if pace is None or not now < said.reset_at <= now + LONGEST_WINDOW_SECONDS:
        return
    known = pace.reset_at or 0.0
    if said.reset_at < known:  # an answer that was long under way: a later window was heard of
        return
    is_same = said.reset_at == known
    connection.execute(
        sa.update(paces)
        .where(*run.of(paces))
        .values(
            reset_at=said.reset_at,
            rate_limit=said.limit,
            remaining=min(said.remaining, pace.remaining) if is_same else said.remaining,
            answered=max(number, pace.answered) if is_same else number,
        )
    )


def set_rate(connection: sa.Connection, ledger: Ledger, run: Run, requests_per_second: float | None) -> None:
    """Let a run go on at another rate, from the next reservation on; None: at the campaign's."""
    ledger.insert_or_ignore(connection, paces, {**run.key, **_NEW})
    connection.execute(sa.update(paces).where(*run.of(paces)).values(requests_per_second=requests_per_second))


def describe(connection: sa.Connection, run: Run) -> dict[str, Any]:
    """Say how the run's pace stands; empty before its first reservation."""
    pace = connection.execute(sa.select(paces).where(*run.of(paces))).one_or_none()
    if pace is None:
        return {}
    shown = ("requests_per_second", "reserved", "failures", "blocked_until", "rate_limit", "remaining", "reset_at")
    return {name: getattr(pace, name) for name in shown}


def _pace(connection: sa.Connection, run: Run) -> Any:
    return connection.execute(sa.select(paces).where(*run.of(paces)).with_for_update()).one_or_none()


def succeeded(connection: sa.Connection, run: Run) -> None:
    """Close the circuit."""
    connection.execute(sa.update(paces).where(*run.of(paces), paces.c.failures > 0).values(failures=0))


def failed(connection: sa.Connection, ledger: Ledger, run: Run) -> None:
    """Count a failure that another try may cure; from the fifth in a row on, everybody pauses."""
    failures = connection.scalar(
        sa.update(paces).where(*run.of(paces)).values(failures=paces.c.failures + 1).returning(paces.c.failures)
    )
    beyond = (failures or 0) - FAILURES_TO_OPEN
    if beyond >= 0:
        block(connection, ledger, run, min(FIRST_PAUSE_SECONDS * 2.0 ** min(beyond, 10), LONGEST_PAUSE_SECONDS))


def block(connection: sa.Connection, ledger: Ledger, run: Run, seconds: float) -> None:
    """Let nobody's request leave for a while: the provider said so, or it is failing."""
    until = ledger.now_seconds() + min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)
    ledger.insert_or_ignore(connection, paces, {**run.key, **_NEW})
    connection.execute(
        sa.update(paces).where(*run.of(paces), paces.c.blocked_until < until).values(blocked_until=until)
    )
