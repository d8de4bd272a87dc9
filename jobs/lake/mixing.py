"""One mixer of 64-bit numbers: each gives another that looks drawn at random, the same on every machine."""

from typing import Final

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

# Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64's finaliser).
GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = (np.uint64(n) for n in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(value: UInt64s) -> UInt64s:
    """Mix; a number comes from one number alone."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    mixed: UInt64s = value ^ (value >> np.uint64(31))
    return mixed
