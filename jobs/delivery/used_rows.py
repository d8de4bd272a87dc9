"""Which rows of a table the slots of some users name, and their places among those: nothing else is rendered."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def used_rows(slots: Sequence[npt.NDArray[np.int64]], size: int) -> npt.NDArray[np.int64]:
    """Give the rows of a table of `size` that occur in any slot, in order; -1 is no row."""
    is_used = np.zeros(size + 1, np.bool_)
    for rows in slots:
        is_used[rows] = True
    return np.flatnonzero(is_used[:size])


def places_in(used: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Turn rows of a table of `size` into places among those that are used; -1 for no row and one that is not."""
    place = np.full(size + 1, -1)
    place[used] = np.arange(len(used))
    found: npt.NDArray[np.int64] = place[rows]
    return found
