"""Compiled functions work where nothing can be kept, and see arrays in one form."""

import numba
import numpy as np
import pytest

from jobs.compiled import compiled, plain, prefetch


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


def test_asking_ahead_is_one_instruction_and_changes_nothing():
    def far_apart(values, order):
        found = 0
        for place in range(len(order)):
            prefetch(values, order[min(place + 4, len(order) - 1)])
            found += values[order[place]]
        return found

    function = numba.njit(far_apart)
    values, order = np.arange(1_000), np.random.default_rng(7).permutation(1_000)
    assert function(values, order) == far_apart(values, order) == values.sum()
    assert any("prefetch" in code for code in function.inspect_asm().values())
    assert any("llvm.prefetch" in code for code in function.inspect_llvm().values())
