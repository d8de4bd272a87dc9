"""One pace for all processes that push a run, kept in the ledger: when the next request may leave.

A request reserves its instant before it leaves; the next one is a spacing later (the virtual scheduling form of the
generic cell rate algorithm, ITU-T I.371, with no burst). What a killed process had reserved is lost, not made up for.
After failures in a row the circuit opens: requests then leave one by one, ever further apart, until one succeeds.
"""

from typing import Final

import sqlalchemy as sa

from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.ledger_tables import paces

HEADROOM: Final = 0.98  # of the rate is used: a process that wakes late comes closer to the request behind it
HORIZON_SECONDS: Final = 300.0  # nobody reserves further ahead; what lies beyond comes from a clock that was put back
FAILURES_TO_OPEN: Final = 5
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 120.0


def reserve(connection: sa.Connection, ledger: Ledger, run: Run, requests_per_second: float) -> float:
    """Reserve the next request's instant; return it in Unix time."""
    now = ledger.now_seconds()
    pace = connection.execute(sa.select(paces).where(*run.of(paces)).with_for_update()).one_or_none()
    if pace is None:
        row = {**run.key, "next_at": now, "blocked_until": now, "failures": 0}
        ledger.insert_or_ignore(connection, paces, row)
        pace = connection.execute(sa.select(paces).where(*run.of(paces)).with_for_update()).one()
    leave_at: float = max(now, pace.next_at, pace.blocked_until)
    if leave_at > now + HORIZON_SECONDS:  # whatever was reserved before the clock was put back has left by then
        leave_at = now + HORIZON_SECONDS
        connection.execute(sa.update(paces).where(*run.of(paces)).values(blocked_until=leave_at))
    spacing = 1 / (HEADROOM * requests_per_second)
    connection.execute(sa.update(paces).where(*run.of(paces)).values(next_at=leave_at + spacing))
    return leave_at


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
    row = {**run.key, "next_at": until, "blocked_until": until, "failures": 0}
    ledger.insert_or_ignore(connection, paces, row)
    connection.execute(
        sa.update(paces).where(*run.of(paces), paces.c.blocked_until < until).values(blocked_until=until)
    )
