"""From a source's columns to a table's: translation, constants, templates, and the map of further properties."""

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.quality.casts import as_mask, instants_from_epoch, instants_from_format, numbers, plain, text
from jobs.quality.row_rules import POSITION
from schemas.source import EPOCH_FORMATS, PROPERTIES_COLUMN, URL_SPEC, ColumnRule
from schemas.tables import PROPERTIES, Table

_NEEDS_NO_ESCAPE: Final = r"^[A-Za-z0-9._~-]*$"


def map_batch(
    table: Table,
    rows: pa.RecordBatch,
    *,
    rules: Mapping[str, ColumnRule],
    properties: Sequence[str],
    first_position: int,
    zone: str | None = None,
) -> pa.RecordBatch:
    """Give a batch of a source the table's columns; what the rules do not name is null.

    `zone`: the time zone of instants that are read by a format without %z; without it they are UTC.
    """
    columns = {name: pa.nulls(rows.num_rows) for name in table.schema.names}
    columns |= {name: _mapped(rule, rows, zone) for name, rule in rules.items()}
    if PROPERTIES_COLUMN in columns:
        columns[PROPERTIES_COLUMN] = property_map(rows, properties)
    return numbered(columns, first_position)


def numbered(columns: Mapping[str, pa.Array], first_position: int) -> pa.RecordBatch:
    """Make a batch whose rows are numbered by their place in the source."""
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    positions = pa.array(np.arange(first_position, first_position + rows.num_rows, dtype=np.int64))
    return rows.append_column(POSITION, positions)


def property_map(rows: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Put columns into one map per row, in order of their names, without nulls and empty texts.

    Without any names the whole column is null.
    """
    if not names:
        return pa.nulls(rows.num_rows, PROPERTIES)
    names = sorted(names)
    values = pa.concat_arrays([text(plain(rows.column(name), name)) for name in names])
    # The columns lie one after the other; a map needs them row by row.
    by_row = np.arange(len(values)).reshape(len(names), rows.num_rows).T
    values = values.take(pa.array(by_row.ravel()))
    given = as_mask(pc.greater(pc.binary_length(values), 0))
    keys = pa.array(names).take(pa.array(np.tile(np.arange(len(names)), rows.num_rows)[given]))
    sizes = given.reshape(rows.num_rows, len(names)).sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, keys, values.filter(pa.array(given)))


def _mapped(rule: ColumnRule, rows: pa.RecordBatch, zone: str | None) -> pa.Array:
    if rule.constant is not None:
        return pa.repeat(pa.scalar(rule.constant), rows.num_rows)
    if rule.template is not None:
        return _filled(rule, rows)
    name = rule.column or ""
    values = plain(rows.column(name), name)
    if rule.values:
        values = _translated(text(values), rule)
    if rule.format in EPOCH_FORMATS:
        return instants_from_epoch(values, EPOCH_FORMATS[rule.format])
    if rule.format is not None:
        return instants_from_format(values, rule.format, zone)
    return pc.abs(numbers(values)) if rule.absolute else values


def _translated(words: pa.Array, rule: ColumnRule) -> pa.Array:
    known = pc.index_in(words, value_set=pa.array(list(rule.values)))
    translated = pa.array(list(rule.values.values())).take(known)
    rest = words if rule.otherwise is None else pc.if_else(words.is_valid(), rule.otherwise, words)
    return pc.coalesce(translated, rest)


def _filled(rule: ColumnRule, rows: pa.RecordBatch) -> pa.Array:
    parts: list[pa.Array | pa.Scalar] = []
    for literal, name, spec, _ in rule.template_parts:
        if literal:
            parts.append(pa.scalar(literal))
        if name is not None:
            values = text(plain(rows.column(name), name))
            parts.append(_percent_encoded(values) if spec == URL_SPEC else values)
    if not rule.source_columns:
        return pa.repeat(pa.scalar("".join(part.as_py() for part in parts)), rows.num_rows)
    return pc.binary_join_element_wise(*parts, "", null_handling="emit_null")


def _percent_encoded(values: pa.Array) -> pa.Array:
    """Encode for one segment of a URL. Only the distinct values that need it are touched one by one."""
    unsafe = ~as_mask(pc.match_substring_regex(values, _NEEDS_NO_ESCAPE)) & as_mask(values.is_valid())
    if not unsafe.any():
        return values
    distinct = values.filter(pa.array(unsafe)).unique()
    encoded = pa.array([urllib.parse.quote(value, safe="") for value in distinct.to_pylist()])
    return pc.coalesce(encoded.take(pc.index_in(values, value_set=distinct)), values)
