"""List columns as flat arrays and back: an Arrow list array is a CSR matrix's rows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.tables import Table

Ints = npt.NDArray[np.int64]


def lengths(column: pa.ChunkedArray) -> Ints:
    """How many elements each row's list has (no null lists)."""
    parts = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks if len(chunk)]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def flat(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """All elements of all rows, in order; instants as microseconds."""
    parts = [chunk.flatten() for chunk in column.chunks]
    values = pa.chunked_array(parts, column.type.value_type)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    array: npt.NDArray[Any] = values.to_numpy()
    return array


def list_column(table: Table, name: str, values: npt.NDArray[Any], counts: npt.NDArray[Any]) -> pa.Array:
    """Cut flat values into lists of the given lengths, typed as the table's column.

    Raises: ArrowInvalid if a value does not fit the column's type.
    """
    kind = table.schema.field(name).type
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values).cast(kind.value_type), type=kind)


def rank_within(group: npt.NDArray[Any]) -> Ints:
    """Count each row's place, from 0, in its run of equal values."""
    if len(group) == 0:
        return np.empty(0, np.int64)
    start = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    rank: Ints = np.arange(len(group)) - np.repeat(start, np.diff(np.append(start, len(group))))
    return rank
