"""Loops over Arrow's and NumPy's arrays that no array operation says, compiled by Numba on their first call."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for the types of its first call.

    The machine code is kept beside the source, else in the user's cache; where neither can be written, every process
    compiles for itself (seconds). What a compiled function calls has to stand in its own file: Numba looks at that file
    alone to tell whether what it kept is still right.
    """
    # nogil: threads rank side by side. No fastmath: sums in another order would be other sums.
    try:
        made: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        made = numba.njit(nogil=True)(function)
    return made


def plain(values: npt.NDArray[Any], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Give an array as a compiled function takes it: contiguous, of one type, writable.

    One form for all calls: a mapped, a strided or a read-only array would each have the function compiled once more.
    """
    array = np.ascontiguousarray(values, kind).view(np.ndarray)
    return array if array.flags.writeable else array.copy()
