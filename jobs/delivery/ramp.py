"""When each chunk may start: a linear rise of the rate, then as fast as the limit allows."""

import math
from collections.abc import Sequence


def ramp_offsets(users: Sequence[int], *, start: float, full: float, ramp_minutes: float) -> list[float]:
    """Give each chunk, in order, its start in seconds after the plan's.

    The rate rises from `start` to `full` over `ramp_minutes`; a chunk starts when all users before it have had their
    time. After the ramp, or without one, every chunk may start: the rate limit alone paces them.
    Units: start and full in users per second, 0 < start <= full.
    """
    if ramp_minutes <= 0:
        return [0.0] * len(users)
    ramp_seconds = ramp_minutes * 60
    slope = (full - start) / ramp_seconds
    in_ramp = (start + full) / 2 * ramp_seconds
    offsets, before = [], 0
    for count in users:
        # start·t + slope·t²/2 = users before, solved for t in the form that also holds for a slope of 0
        reached = 2 * before / (start + math.sqrt(start**2 + 2 * slope * before))
        offsets.append(min(reached, ramp_seconds) if before < in_ramp else ramp_seconds)
        before += count
    return offsets


def last_end(users: Sequence[int], offsets: Sequence[float], *, users_per_second: float) -> float:
    """Say when the last chunk ends, in seconds after the plan's start, if chunks go one behind the other at that rate.

    None starts before its offset, and none before those before it are done.
    """
    end = 0.0
    for count, offset in zip(users, offsets, strict=True):
        end = max(end, offset) + count / users_per_second
    return end
