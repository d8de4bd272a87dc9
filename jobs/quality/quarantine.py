"""Rows of the quarantine tables: a reason, a position and a hash, and no value of the row itself."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.buckets import keyed_hash
from jobs.quality.casts import text
from schemas.tables import QUARANTINE

_ROW_HASH_KEY: Final = "ryml row content"
_NOTHING: Final = "\x1e"  # stands for null, so that null and "" differ
_BETWEEN: Final = "\x1f"


def content_hashes(rows: pa.Table | pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """Hash whole rows, column names not included."""
    columns = [_column_text(rows.column(name)) for name in rows.schema.names]
    if rows.num_rows == 0 or not columns:
        return np.zeros(rows.num_rows, np.uint64)
    return keyed_hash(pc.binary_join_element_wise(*columns, _BETWEEN), _ROW_HASH_KEY)


def quarantine_rows(
    source_table: str, rows: pa.Table | pa.RecordBatch, reasons: pa.Array, positions: pa.Array
) -> pa.Table:
    """Describe rows that are not used; `rows` holds them as the rules saw them."""
    return pa.table(
        [
            pa.repeat(pa.scalar(source_table), rows.num_rows),
            reasons,
            hex_digits(content_hashes(rows)),
            positions,
        ],
        schema=QUARANTINE.schema,
    )


def hex_digits(hashes: npt.NDArray[np.uint64]) -> pa.Array:
    """Write each hash in 16 hexadecimal digits, without a loop over them."""
    digits = hashes.astype(">u8").tobytes().hex().encode()
    return pa.array(np.frombuffer(digits, "S16")).cast(pa.string())


def _column_text(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_map(values.type):
        entries = pc.binary_join_element_wise(values.keys, pc.fill_null(values.items, _NOTHING), "=")
        joined = pc.binary_join(pa.ListArray.from_arrays(values.offsets, entries), _BETWEEN)
        written = pc.if_else(values.is_valid(), joined, pa.scalar(None, pa.string()))
    else:
        written = text(values)
    return pc.fill_null(written, _NOTHING)
