"""Of which kind a source's column is, as far as reading it goes: what may change from day to day without harm.

A whole number that becomes wider, a decimal that becomes a double or text that comes as a dictionary is read as
before; text that becomes a number is not (`007` would become 7), nor is an instant that loses its time zone.
"""

from collections.abc import Callable
from typing import Final

import pyarrow as pa

UNKNOWN: Final = "nothing but nulls"

_KINDS: Final[tuple[tuple[str, tuple[Callable[[pa.DataType], bool], ...]], ...]] = (
    (UNKNOWN, (pa.types.is_null,)),
    ("flag", (pa.types.is_boolean,)),
    ("number", (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)),
    (
        "text",
        (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
        ),
    ),
    ("date", (pa.types.is_date,)),
)  # fmt: skip


def kind_of(kind: pa.DataType) -> str:
    """Name the kind of a column of that Arrow type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        # The PostgreSQL driver gives `numeric` as text under that name.
        if getattr(kind, "type_name", "") == "numeric":
            return "number"
        kind = kind.storage_type
    if pa.types.is_timestamp(kind):
        return "instant without a zone" if kind.tz is None else "instant"
    for name, tests in _KINDS:
        if any(test(kind) for test in tests):
            return name
    return str(kind)
