"""Parquet, CSV and JSON Lines, streamed: one function per format, chosen by the file's suffix."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from schemas.errors import ConfigError, SchemaError

BATCH_ROWS: Final = 65_536
_BLOCK_BYTES: Final = 4 * 2**20  # of text that is parsed at a time; one JSON line must fit

# What a column is used for: decides how JSON's numbers and nulls are read.
Use = Literal["text", "number", "flag"]


@dataclass(frozen=True)
class OpenFile:
    """A file whose columns are known and whose rows have not been read."""

    columns: list[str]
    read: Callable[[dict[str, Use]], Iterator[pa.RecordBatch]]


def open_file(path: Path, *, delimiter: str) -> OpenFile:
    """Open a file by its suffix; `.gz`, `.bz2` and `.zst` behind it are unpacked.

    Raises: ConfigError if the suffix is unknown; SchemaError if the file is not what its suffix says.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".zst"):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    with _readable(path):
        if suffix == ".parquet":
            return _open_parquet(path)
        if suffix == ".csv":
            return _open_csv(path, delimiter)
        if suffix in (".jsonl", ".ndjson"):
            return _open_json(path)
    raise ConfigError(
        f"{path.name} has no known format; expected .parquet, .csv, .jsonl or .ndjson, or one of these .gz"
    )


def _open_parquet(path: Path) -> OpenFile:
    file = pq.ParquetFile(path, page_checksum_verification=True)

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        with _readable(path), file:
            yield from (_in_order(rows, uses) for rows in file.iter_batches(BATCH_ROWS, columns=list(uses)))

    return OpenFile(_distinct(path, file.schema_arrow.names), read)


def _open_csv(path: Path, delimiter: str) -> OpenFile:
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)

    def reader(columns: Sequence[str] | None) -> pa_csv.CSVStreamingReader:
        # Bytes, so that nothing is guessed (`007` is no number) and bad UTF-8 costs its row, not the file.
        kinds = dict.fromkeys(columns or [], pa.binary())
        convert = pa_csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds) or None, null_values=[""], strings_can_be_null=True
        )
        options = pa_csv.ReadOptions(block_size=_BLOCK_BYTES)
        return pa_csv.open_csv(pa.input_stream(path), options, parse, convert)

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        with _readable(path), reader(list(uses)) as rows:
            yield from rows

    return OpenFile(_distinct(path, _csv_header(path, delimiter)), read)


def _csv_header(path: Path, delimiter: str) -> list[str]:
    # Only the first line: types are not guessed from rows that are then thrown away.
    with pa.input_stream(path) as stream:
        start = stream.read(_BLOCK_BYTES)
    if not start.strip():
        return []
    first_line = pa.BufferReader(
        re.split(rb"[\r\n]", start.removeprefix(b"\xef\xbb\xbf").lstrip(), maxsplit=1)[0] + b"\n"
    )
    options = pa_csv.ParseOptions(delimiter=delimiter)
    names: list[str] = pa_csv.read_csv(first_line, parse_options=options).column_names
    return names


def _open_json(path: Path) -> OpenFile:
    options = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
    with pa.input_stream(path) as stream:
        if not stream.read(1):
            return OpenFile([], lambda _: iter(()))
    with pa_json.open_json(pa.input_stream(path), options) as first_block:
        schema = first_block.schema

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        kinds = pa.schema([pa.field(name, _json_kind(schema.field(name).type, use)) for name, use in uses.items()])
        parse = pa_json.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="ignore")
        with _readable(path), pa_json.open_json(pa.input_stream(path), options, parse) as rows:
            yield from rows

    return OpenFile(_distinct(path, schema.names), read)


def _json_kind(found: pa.DataType, use: Use) -> pa.DataType:
    """Settle a column's type for the whole file from what its first block holds."""
    if pa.types.is_timestamp(found):
        return pa.string()  # Arrow takes text that looks like an instant for one, ids too
    if pa.types.is_null(found):
        return {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_()}[use]
    if pa.types.is_integer(found) and use == "number":
        return pa.float64()
    return found


def _in_order(rows: pa.RecordBatch, columns: dict[str, Use]) -> pa.RecordBatch:
    return rows.select(list(columns))


def _distinct(path: Path, names: list[str]) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SchemaError(f"{path.name} has {', '.join(twice)} more than once; give each column a name of its own")
    return names


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a reader says about a bad file into a message without the file's values."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}); check that it exists and its rights"
            ) from error
        raise SchemaError(
            f"{path.name} is damaged or not what its name says: {_harmless(str(error))}. Nothing was exported; "
            f"write the file again, whole"
        ) from error


# The parts of Arrow's messages that hold types, names and numbers of columns, and none of a row's values.
_HARMLESS: Final = (
    r"Expected \d+ columns, got \d+",
    r"Column\(/[^)]*\) (changed|was specified)[^:]*?in row \d+",
    r"Truncated compressed stream",
    r"straddling object straddles two block boundaries",
    r"Parquet magic bytes not found in footer",
    r"(CRC|checksum) (check|verification) failed",
)


def _harmless(message: str) -> str:
    found = re.search("|".join(_HARMLESS), message)
    return found[0] if found else "its content cannot be parsed"
