"""Different values of an array, by sorting."""

from typing import Any

import numpy as np
import numpy.typing as npt


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give an array's different values, in order.

    `np.unique` of NumPy 2.3 and later puts whole numbers into a hash table, which takes 20 s for 10 million different
    ones where sorting them takes 0.4 s (bench/distinct_values.py).
    """
    in_order = np.sort(values, axis=None)
    is_new = np.ones(len(in_order), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=is_new[1:])
    return in_order[is_new]
