"""Loops over Arrow's and NumPy's arrays that no array operation says, compiled by Numba on their first call."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable


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


def prefetch(array: npt.NDArray[Any], index: int) -> None:
    """Ask the memory for the cache line of an element that is needed soon, and do not wait for it.

    For a compiled loop over rows, in no order, of an array too large for the caches: no processor foresees such a row,
    and waits 0.1 us for each. `index` must lie in the array. Nothing changes, so that no result can; uncompiled, this
    does nothing.
    """


@type_callable(prefetch)
def _type_of_prefetch(context):  # type: ignore[no-untyped-def]
    return lambda array, index: types.none


@lower_builtin(prefetch, types.Array, types.Integer)  # type: ignore[no-untyped-call,attr-defined]
def _code_of_prefetch(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    """Write the machine's instruction; a compiled function in its place would count references to the array."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    elements = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = builder.bitcast(builder.gep(elements.data, [arguments[1]]), byte)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
    # To be read, kept in all caches, and data: https://llvm.org/docs/LangRef.html#llvm-prefetch-intrinsic
    builder.call(ask, [place, *(ir.Constant(word, flag) for flag in (0, 3, 1))])
    return context.get_dummy_value()
