"""When each chunk may start: a linear rise of the rate, then as fast as the limit allows."""

import math
from collections.abc import Sequence

START_SHARE = 0.05  # the rate that a ramp starts at, as a share of the full one


def ramp_offsets(users: Sequence[int], *, full_rate: float, ramp_minutes: float) -> list[float]:
    """Give each chunk, in order, its start in seconds after the plan's.

    The rate rises from 5 % of `full_rate` to all of it over `ramp_minutes`; a chunk starts when all users before it
    have had their time. Without a ramp every chunk may start at once: the rate limit alone paces them.
    Units: full_rate in users per second.
    """
    if ramp_minutes <= 0:
        return [0.0] * len(users)
    ramp_seconds = ramp_minutes * 60
    start_rate = START_SHARE * full_rate
    slope = (full_rate - start_rate) / ramp_seconds
    in_ramp = start_rate * ramp_seconds + slope * ramp_seconds**2 / 2
    offsets, before = [], 0
    for count in users:
        if before <= in_ramp:
            # start_rate·t + slope·t²/2 = users before, solved for t
            offsets.append((math.sqrt(start_rate**2 + 2 * slope * before) - start_rate) / slope)
        else:
            offsets.append(ramp_seconds + (before - in_ramp) / full_rate)
        before += count
    return offsets
