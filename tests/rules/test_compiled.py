"""Compiled functions work where nothing can be kept, and see arrays in one form."""

import numba
import numpy as np
import pytest

from jobs.compiled import compiled, plain


def total(values):
    found = 0
    for value in values:
        found += value
    return found


def test_a_function_is_compiled_where_its_machine_code_cannot_be_kept():
    source = compile(
        "def total(values):\n    found = 0\n    for value in values:\n        found += value\n    return found\n",
        "<nowhere>",
        "exec",
    )
    names = {"__name__": "nowhere"}
    exec(source, names)  # noqa: S102  # a function without a file: there is nothing to keep its code beside
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["total"])
    assert compiled(names["total"])(np.arange(5)) == 10


@pytest.mark.parametrize(
    "values", [np.arange(6)[::2], np.arange(3, dtype=np.int8), np.frombuffer(np.arange(3).tobytes(), np.int64)]
)
def test_every_array_comes_as_one_kind(values):
    function = compiled(total)
    function(plain(np.arange(3), np.int64))
    before = len(function.signatures)
    assert function(plain(values, np.int64)) == values.sum()
    assert len(function.signatures) == before == 1
    assert plain(values, np.int64).flags.writeable
