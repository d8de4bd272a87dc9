"""The provider's clock, which a test can let run ahead."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def wall_clock() -> datetime:
    """Tell the time of this machine, in UTC."""
    return datetime.now(UTC)


class Clock:
    """The machine's time and what was added to it; or, while it is held, one instant."""

    def __init__(self, source: Callable[[], datetime] = wall_clock) -> None:
        """Run with `source`, which gives the instant in UTC."""
        self._source = source
        self._lock = threading.Lock()
        self._ahead = timedelta()
        self._held_at: datetime | None = None

    def __call__(self) -> datetime:
        """Tell the provider's time."""
        with self._lock:
            return self._held_at if self._held_at is not None else self._source() + self._ahead

    def advance(self, seconds: float) -> datetime:
        """Put the clock ahead (or, below 0, back); tell the new time."""
        with self._lock:
            if self._held_at is not None:
                self._held_at += timedelta(seconds=seconds)
            else:
                self._ahead += timedelta(seconds=seconds)
        return self()

    def set_to(self, at: datetime) -> datetime:
        """Put the clock to an instant; it goes on from there, unless it is held."""
        with self._lock:
            if self._held_at is not None:
                self._held_at = at.astimezone(UTC)
            else:
                self._ahead = at.astimezone(UTC) - self._source()
        return self()

    def hold(self) -> datetime:
        """Stop the clock where it is; only `advance` and `set_to` move it then."""
        now = self()
        with self._lock:
            self._held_at = now
        return now

    def release(self) -> datetime:
        """Let the clock go on from where it is held."""
        with self._lock:
            if self._held_at is not None:
                self._ahead = self._held_at - self._source()
                self._held_at = None
        return self()
