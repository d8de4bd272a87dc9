"""Parquet, CSV and JSON Lines, streamed: one function per format, chosen by the file's suffix.

A file that its writer did not finish is an error, never a shorter file: Parquet ends in its footer, a packed file in
its checksum, a line of JSON in its brace. A CSV file has no end of its own, so its last line must end in a line break
(`open_end` says that it does not), and a quote that is never closed is found. What no reader can see is a CSV or JSON
Lines file that was cut off exactly between two lines: `marker` in the settings is for that.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from jobs.sources.column_kinds import kind_of
from jobs.sources.file_places import PACKINGS, SourceFile
from schemas.errors import ConfigError, SchemaError

BATCH_ROWS: Final = 65_536
_BLOCK_BYTES: Final = 4 * 2**20  # of text that is parsed at a time; one JSON line must fit
_LAST_ROW: Final = b"\x1aryml last row\x1a"
# A byte that no UTF-8 has; where there is one all the same it is escaped as well, so that nothing is lost.
_NUL, _ESCAPE = b"\x00", b"\xfe"
_ESCAPED_NUL, _ESCAPED_ESCAPE = b"\xfe0", b"\xfe1"

# What a column is used for: decides how JSON's numbers and nulls are read.
Use = Literal["text", "number", "flag"]


@dataclass(frozen=True)
class OpenFile:
    """A file whose columns are known (their names, and of which kind each is) and whose rows have not been read."""

    columns: Mapping[str, str]
    read: Callable[[dict[str, Use]], Iterator[pa.RecordBatch]]


def open_file(file: SourceFile, *, delimiter: str, open_end: bool = False) -> OpenFile:
    """Open a file by its suffix; what is packed (`.gz`, `.bz2`, `.zst`, `.lz4` behind it) is unpacked.

    `open_end`: the last line of CSV need not end in a line break.
    Raises: ConfigError if the suffix is unknown; SchemaError if the file is not what its suffix says.
    """
    with _readable(file):
        if file.suffix == ".parquet":
            return _open_parquet(file)
        if file.suffix == ".csv":
            return _open_csv(file, delimiter, open_end=open_end)
        if file.suffix in (".jsonl", ".ndjson"):
            return _open_json(file)
    raise ConfigError(
        f"{file.name} has no known format; expected .parquet, .csv, .jsonl or .ndjson, or one of these and "
        f"{' or '.join(PACKINGS)}"
    )


def _open_parquet(file: SourceFile) -> OpenFile:
    source = file.seekable()
    parquet = pq.ParquetFile(source, page_checksum_verification=True)

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        with _readable(file), source:
            yield from (rows.select(list(uses)) for rows in parquet.iter_batches(BATCH_ROWS, columns=list(uses)))

    schema = parquet.schema_arrow
    _check_distinct(file, schema.names)
    return OpenFile({field.name: kind_of(field.type) for field in schema}, read)


def _open_csv(file: SourceFile, delimiter: str, *, open_end: bool) -> OpenFile:
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    names = _csv_header(file, delimiter)
    _check_distinct(file, names)

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        # Bytes, so that nothing is guessed (`007` is no number) and bad UTF-8 costs its row, not the file.
        kinds = dict.fromkeys(list(uses) or names[:1], pa.binary())
        convert = pa_csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=True
        )
        text = _WithLastRow(file.stream(), len(names), delimiter)
        options = pa_csv.ReadOptions(block_size=_BLOCK_BYTES)
        with _readable(file), pa_csv.open_csv(pa.PythonFile(text, mode="r"), options, parse, convert) as rows:
            for batch in _without_last_row(file, rows):
                yield _unescaped(batch) if text.has_escapes else batch
        if text.is_open_end and not open_end:
            raise SchemaError(_breaks_off(file))

    return OpenFile(dict.fromkeys(names, "text"), read)


def _csv_header(file: SourceFile, delimiter: str) -> list[str]:
    # Only the first line: types are not guessed from rows that are then thrown away.
    with file.stream() as stream:
        start = stream.read(_BLOCK_BYTES)
    if not start.strip():
        return []
    first_line = pa.BufferReader(
        re.split(rb"[\r\n]", start.removeprefix(b"\xef\xbb\xbf").lstrip(), maxsplit=1)[0] + b"\n"
    )
    options = pa_csv.ParseOptions(delimiter=delimiter)
    names: list[str] = pa_csv.read_csv(first_line, parse_options=options).column_names
    return names


class _WithLastRow:
    """A CSV stream that is followed by one more row, which comes out as such only if no quote before it is open.

    NUL bytes are written in another way: Arrow's parser passes over a delimiter that follows one within eight bytes
    (it searches with instructions for strings that end in NUL).
    """

    def __init__(self, stream: pa.NativeFile, columns: int, delimiter: str) -> None:
        self._stream = stream
        self._tail = delimiter.encode().join([_LAST_ROW] * columns) + b"\n"
        self._end = b""
        self._rest = b""
        self.is_open_end = False
        self.has_escapes = False
        self.closed = False

    def read(self, size: int) -> bytes:
        # Always as much as is asked for: a short piece in the middle would be a block, and too small for a line.
        parts, missing = [self._rest], size - len(self._rest)
        while missing > 0 and (data := self._next(missing)):
            parts.append(data)
            missing -= len(data)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def _next(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        if not data:
            tail, self._tail = self._tail, b""
            self.is_open_end = self.is_open_end or (bool(tail) and self._end not in (b"\n", b"\r"))
            return b"\n" + tail if tail and self.is_open_end else tail
        self._end = data[-1:]
        if _NUL in data or _ESCAPE in data:
            self.has_escapes = True
            data = data.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_NUL, _ESCAPED_NUL)
        return data

    def close(self) -> None:
        self.closed = True
        self._stream.close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _without_last_row(file: SourceFile, rows: pa_csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    """Give all rows but the one that was added; SchemaError where that one is not there."""
    last: pa.RecordBatch | None = None
    for batch in rows:
        if batch.num_rows:
            if last is not None:
                yield last
            last = batch
    if last is None or any(column[-1].as_py() != _LAST_ROW for column in last.columns):
        raise SchemaError(_breaks_off(file))
    yield last.slice(0, last.num_rows - 1)


def _unescaped(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pc.replace_substring(pc.replace_substring(column, _ESCAPED_NUL, _NUL), _ESCAPED_ESCAPE, _ESCAPE)
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _breaks_off(file: SourceFile) -> str:
    return (
        f"{file.name} breaks off: its last line has no line break, or a quote is never closed. Nothing was exported; "
        f"write the file again, whole (open_end = true is for files that never end in a line break)"
    )


def _open_json(file: SourceFile) -> OpenFile:
    options = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
    with file.stream() as stream:
        if not stream.read(1):
            return OpenFile({}, lambda _: iter(()))
    with pa_json.open_json(file.stream(), options) as first_block:
        schema = first_block.schema

    def read(uses: dict[str, Use]) -> Iterator[pa.RecordBatch]:
        kinds = pa.schema([pa.field(name, _json_kind(schema.field(name).type, use)) for name, use in uses.items()])
        parse = pa_json.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="ignore")
        with _readable(file), pa_json.open_json(file.stream(), options, parse) as rows:
            yield from rows

    _check_distinct(file, schema.names)
    # Arrow takes text that looks like an instant for one.
    kinds = {field.name: "text" if pa.types.is_timestamp(field.type) else kind_of(field.type) for field in schema}
    return OpenFile(kinds, read)


def _json_kind(found: pa.DataType, use: Use) -> pa.DataType:
    """Settle a column's type for the whole file from what its first block holds."""
    if pa.types.is_timestamp(found):
        return pa.string()  # Arrow takes text that looks like an instant for one, ids too
    if pa.types.is_null(found):
        return {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_()}[use]
    if pa.types.is_integer(found) and use == "number":
        return pa.float64()
    return found


def _check_distinct(file: SourceFile, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SchemaError(f"{file.name} has {', '.join(twice)} more than once; give each column a name of its own")


@contextlib.contextmanager
def _readable(file: SourceFile) -> Iterator[None]:
    """Turn what a reader says about a bad file into a message without the file's values."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ConfigError(
                f"{file.path} cannot be read ({error.strerror}); check that it exists and its rights"
            ) from error
        raise SchemaError(
            f"{file.name} is damaged or not what its name says: {_harmless(str(error))}. Nothing was exported; "
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
