"""Mails of Mail Send leave an hour after the plan; a rehearsal does not wait, it puts the provider's clock ahead.

And back: to a night that is begun afterwards the provider's hour would be over before it came.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from jobs.rehearsal.mail_counts import MailCounts, mail_counts
from schemas.errors import RymlError

_TRIES: Final = 5
_PATIENCE_SECONDS: Final = 120.0  # 10 million mails are not rehearsed here; 10,000 leave in about a second
_POLL_SECONDS: Final = 0.2


def counted_when_left(
    *, url: str, key: str, state: Path, leave_at: datetime | None, pause: Callable[[float], None]
) -> MailCounts:
    """Let everything leave that is released and due by `leave_at`, and count what is in the mailbox then.

    Raises: RymlError if the provider does not take the order.
    """
    counts = mail_counts(state)
    ahead = leave_at if counts.waiting else None
    if ahead is not None:
        _set_clock(url, key, ahead, pause)
    began = time.monotonic()
    while counts.waiting and time.monotonic() - began < _PATIENCE_SECONDS:
        pause(_POLL_SECONDS)
        counts = mail_counts(state)
    if ahead is not None:
        _set_clock(url, key, datetime.now(UTC), pause)
    return counts


def _set_clock(url: str, key: str, at: datetime, pause: Callable[[float], None]) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=10.0, headers={"Authorization": f"Bearer {key}"}) as api:
        for left in reversed(range(_TRIES)):
            try:
                api.post("/_rehearsal/clock", json={"set_to": at.isoformat()}).raise_for_status()
                return
            except httpx.HTTPError as error:
                if not left:
                    raise RymlError(
                        f"the rehearsal provider did not put its clock to {at.isoformat()}: {type(error).__name__}; "
                        "expected it to. Read .airflow/logs/stack/rehearsal.log"
                    ) from error
                pause(1.0)
