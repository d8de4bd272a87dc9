"""Random numbers that depend on their key alone, and tables that turn a random byte into a believable choice.

Nothing here or in the models uses a transcendental function: exp, log and power differ in the last bit between
processors, and one different bit is a different item.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

# A generator's first n numbers do not depend on how many follow, so a catalog that grew keeps its older items.
BYTE: Final = 256


class Purpose(IntEnum):
    """What a stream of random numbers is for. The values are part of the model: append only."""

    ITEM_GROUP = 1
    ITEM_POPULARITY = 2
    ITEM_CREATED = 3
    ITEM_DELISTED = 4
    ITEM_PRICE = 5
    ITEM_SALE = 6
    ITEM_STOCK = 7
    ITEM_RATING = 8
    ITEM_WORDS = 9
    USER_CREATED = 20
    USER_TASTE = 21
    USER_ACTIVITY = 22
    USER_CONTACT = 23
    USER_PERSON = 24
    JOURNEYS = 40


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Start the stream of random numbers of this seed, purpose and key (such as day and block of users)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))
    return np.random.Generator(np.random.PCG64DXSM(sequence))


def table(shares: Mapping[int, float], kind: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
    """Spread choices over the 256 values of a byte, in proportion to their shares (resolution 1/256).

    Shares need not add up to 1. Every choice gets at least the values that its share, rounded, comes to; the last
    takes what is left.
    """
    total = sum(shares.values())
    reached, edges = 0.0, []
    for share in shares.values():
        reached += share
        edges.append(round(BYTE * reached / total))
    counts = np.diff(np.asarray([0, *edges]))
    return np.repeat(np.asarray(list(shares), dtype=kind), counts)


def random_bytes(random: np.random.Generator, count: int) -> Bytes:
    """Draw `count` bytes."""
    return random.integers(0, BYTE, size=count, dtype=np.uint8)


def below(random: np.random.Generator, count: int, high: int) -> Ints:
    """Draw `count` integers of 0 to high - 1."""
    return random.integers(0, high, size=count, dtype=np.int64)
