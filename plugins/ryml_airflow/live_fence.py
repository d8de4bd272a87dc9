"""Which runs may use a live provider: the scheduled one of its own day, in time. Everything else rehearses."""

import datetime as dt

from schemas.errors import GateError


def refuse_wrong_run(
    *, is_rehearsal: bool, run_type: str, due_at: dt.datetime | None, now: dt.datetime, max_lateness_minutes: int
) -> None:
    """Let a run write to the provider, or stop it.

    Raises: GateError for a live provider and a run that is not scheduled, or later than the campaign allows.
    """
    if is_rehearsal:
        return
    if run_type != "scheduled":
        raise GateError(
            f"a {run_type} run never touches a live provider, only the day's scheduled run does. "
            "Nothing was changed or sent"
        )
    if due_at is None or not dt.timedelta(0) <= now - due_at <= dt.timedelta(minutes=max_lateness_minutes):
        raise GateError(
            f"the send was due at {due_at}, it is {now.isoformat(timespec='seconds')}; expected at most "
            f"{max_lateness_minutes} minutes later. Nobody is mailed late: today's batch is given up"
        )
