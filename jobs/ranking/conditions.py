"""Conditions of a campaign on the items of a catalog, as masks."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.ranking_rules import CATEGORY_SEPARATOR, Condition, Conditions

_PROPERTY = "properties."

Bools = npt.NDArray[np.bool_]


def meets_all(conditions: Conditions, catalog: pa.Table) -> Bools:
    """Mark the items that meet all of `all`, one of `any` if there are some, and none of `none`."""

    def of(parts: Iterable[Condition | Conditions]) -> list[Bools]:
        return [meets(part, catalog) if isinstance(part, Condition) else meets_all(part, catalog) for part in parts]

    met = np.ones(len(catalog), np.bool_)
    for mask in of(conditions.all):
        met &= mask
    if conditions.any:
        met &= np.logical_or.reduce(of(conditions.any))
    for mask in of(conditions.none):
        met &= ~mask
    return met


def meets(condition: Condition, catalog: pa.Table) -> Bools:
    """Mark the items that pass every test of one condition; see Condition for those without a value."""
    texts = field_texts(catalog, condition.field)
    met = np.ones(len(catalog), np.bool_)
    if condition.any_of is not None:
        met &= is_among(texts, condition.any_of, is_path=condition.field == "category")
    if condition.none_of is not None:
        met &= ~is_among(texts, condition.none_of, is_path=condition.field == "category")
    if condition.is_present is not None:
        met &= _mask(pc.is_valid(texts)) == condition.is_present
    if condition.at_least is not None or condition.at_most is not None:
        numbers = field_numbers(catalog, condition.field)
        met &= _within(numbers, condition.at_least, np.greater_equal) & _within(
            numbers, condition.at_most, np.less_equal
        )
    return met


def is_among(texts: pa.ChunkedArray, values: Sequence[str], *, is_path: bool) -> Bools:
    """Mark texts that are one of the values or, of paths, lie under one."""
    found = _mask(pc.is_in(texts, value_set=pa.array(values, pa.string())))
    if is_path:
        for value in values:
            found |= _mask(pc.starts_with(texts, value + CATEGORY_SEPARATOR))
    return found


def field_texts(catalog: pa.Table, field: str) -> pa.ChunkedArray:
    """A field of every item as text; null where there is none."""
    if not field.startswith(_PROPERTY):
        return catalog[field].cast(pa.string())
    return pc.map_lookup(catalog["properties"], pa.scalar(field.removeprefix(_PROPERTY)), "first")


def field_numbers(catalog: pa.Table, field: str) -> npt.NDArray[np.float64]:
    """A field of every item as a number; NaN where there is none, or a property is no number."""
    if not field.startswith(_PROPERTY):
        return _floats(catalog[field].cast(pa.float64()))
    texts = pc.utf8_trim_whitespace(field_texts(catalog, field))
    is_number = pc.match_substring_regex(texts, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    return _floats(pc.if_else(is_number, texts, None).cast(pa.float64()))


def _within(
    numbers: npt.NDArray[np.float64],
    bound: float | None,
    holds: Callable[[npt.NDArray[np.float64], float], Bools],
) -> Bools:
    """A comparison with NaN is false: an item without the number does not pass."""
    return np.ones(len(numbers), np.bool_) if bound is None else holds(numbers, bound)


def _mask(values: pa.ChunkedArray) -> Bools:
    found: Bools = pc.fill_null(values, False).to_numpy()
    return found.copy()


def _floats(values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    numbers: npt.NDArray[np.float64] = pc.fill_null(values, np.nan).to_numpy()
    return numbers
