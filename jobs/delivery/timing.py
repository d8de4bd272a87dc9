"""Time as delivery sees it: handed in, so that a test can let eighteen minutes pass in no time."""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Timing:
    """`clock` gives the instant (UTC), `monotonic` seconds that no clock change moves, `sleep` waits."""

    clock: Callable[[], dt.datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


def utc_now() -> dt.datetime:
    """The one place where delivery reads the time."""
    return dt.datetime.now(dt.UTC)


REAL_TIME: Final = Timing(utc_now, time.monotonic, time.sleep)
