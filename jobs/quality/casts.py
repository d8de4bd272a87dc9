"""Casts of loosely typed columns that never fail: what cannot be read is null, and the rules say why.

A source gives text, numbers or instants, whatever it has; these bring them to the type a rule works on. Everything is
checked before Arrow casts it, because a cast that fails takes the whole batch with it.
"""

import contextlib
import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SchemaError
from schemas.tables import INSTANT, MONEY

Mask = npt.NDArray[np.bool_]

_READABLE: Final = (
    pa.types.is_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_integer, pa.types.is_floating,
    pa.types.is_decimal, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp, pa.types.is_null,
)  # fmt: skip
_EXACT_INTEGER: Final = 2.0**53  # above it a double skips integers
_US_PER_UNIT: Final = {"s": 1_000_000, "ms": 1_000}
# Years 1600 to 2999: what lies outside is no event of any shop, and would not fit nanoseconds or Python's dates.
_FIRST_US: Final = -11_676_096_000_000_000
_LAST_US: Final = 32_503_680_000_000_000 - 1

# At most 30 digits and a two-digit exponent: always finite as a double.
_LONGEST_NUMBER: Final = 30
_NUMBER: Final = r"^[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?$"
_INSTANT: Final = (
    r"^(1[6-9]|2\d)\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?(?P<zone>Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)?)?$"
)
_SECONDS_END: Final = len("2026-03-02 10:00:00")
_FIRST_CENTURY, _LAST_CENTURY = 16, 29
_WITHOUT_ZONE: Final = r"^(.{11}[0-9:.]+)$"
_ZONE: Final = r"^.{11}[0-9:.]+(Z|[+-][0-9:]+)\s*$"
_NO_SUCH_DAY: Final = r"^.{4}-((04|06|09|11)-31|02-3[01])"
_YES: Final = pa.array(["true", "t", "yes", "y", "1"])
_NO: Final = pa.array(["false", "f", "no", "n", "0"])


def as_mask(values: pa.Array) -> Mask:
    """Turn booleans into numpy's, null into False."""
    mask: Mask = values.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_, copy=False)
    return mask


def keep(values: pa.Array, wanted: Mask) -> pa.Array:
    """Put null where a value is not wanted."""
    return values if wanted.all() else pc.if_else(pa.array(wanted), values, pa.scalar(None, values.type))


def plain(values: pa.Array, name: str) -> pa.Array:
    """Take a driver's own wrapping off a column: dictionaries, extension types, the large and view variants of text.

    Raises: SchemaError if it holds lists, structures or bytes, which no column of a table can be read from.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType) and not pa.types.is_binary(kind.storage_type):
        values = values.storage
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if not any(test(values.type) for test in _READABLE):
        raise SchemaError(
            f"column {name} is {kind}; expected text, a number, a boolean or an instant: select it as text"
        )
    return values


def sound_text(values: pa.Array) -> pa.Array:
    """Turn text or bytes into text, null where it is not UTF-8 (files and SQLite promise it, but do not check it)."""
    raw = values.cast(pa.binary()) if pa.types.is_string(values.type) else values
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        if len(raw) == 1:
            return pa.nulls(1, pa.string())
    # A bad value is found by halving: log2(n) casts each, and nothing for the batches without one.
    half = len(raw) // 2
    return pa.concat_arrays([sound_text(raw.slice(0, half)), sound_text(raw.slice(half))])


def is_badly_encoded(values: pa.Array) -> Mask:
    """Tell where there is text that is not UTF-8."""
    kind = values.type
    if not (pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return np.zeros(len(values), np.bool_)
    sound = sound_text(values)
    if sound.null_count == values.null_count:
        return np.zeros(len(values), np.bool_)
    return as_mask(values.is_valid()) & ~as_mask(sound.is_valid())


def text(values: pa.Array) -> pa.Array:
    """Write values as text, to the byte; whole numbers in doubles (ids beside nulls in pandas) without `.0`."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return sound_text(values)
    if pa.types.is_floating(kind):
        doubles = values.cast(pa.float64())
        doubles = keep(doubles, ~as_mask(pc.is_nan(doubles)))
        whole = as_mask(pc.and_(pc.equal(doubles, pc.trunc(doubles)), pc.less(pc.abs(doubles), _EXACT_INTEGER)))
        integers = keep(doubles, whole).cast(pa.int64()).cast(pa.string())
        return integers if whole.all() else pc.coalesce(integers, doubles.cast(pa.string()))
    return values.cast(pa.string())


def numbers(values: pa.Array) -> pa.Array:
    """Read numbers as doubles; not-a-number stays, so that a rule can tell it from nothing."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        written = sound_text(values)
        if _holds_plain_numbers(written):
            with contextlib.suppress(pa.ArrowInvalid):
                return written.cast(pa.float64())
        trimmed = pc.ascii_trim_whitespace(written)
        return keep(trimmed, as_mask(pc.match_substring_regex(trimmed, _NUMBER))).cast(pa.float64())
    if pa.types.is_temporal(kind):  # an instant is no number, whatever it is stored as
        return pa.nulls(len(values), pa.float64())
    return values.cast(pa.float64(), safe=False)


def _holds_plain_numbers(texts: pa.Array) -> bool:
    """Tell whether text is all digits, points and minus signs: what Arrow then reads, `_NUMBER` fits.

    Nearly every batch of prices is so, and 60 of 120 ns a price are saved.
    """
    data = text_bytes(texts)
    if len(data) == 0 or data.min() < ord("-") or data.max() > ord("9"):
        return False  # `/` lies between them too, and Arrow refuses it
    return bool(pc.max(pc.binary_length(texts)).as_py() <= _LONGEST_NUMBER)


def text_bytes(texts: pa.Array) -> npt.NDArray[np.uint8]:
    """Give the bytes of all texts of a column, one behind the other; null may have some too."""
    _, offsets, data = texts.buffers()
    if data is None or len(texts) == 0:
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[1]]


def flags(values: pa.Array) -> pa.Array:
    """Read yes and no: booleans, 1 and 0, and their usual words in any case."""
    if pa.types.is_boolean(values.type):
        return values
    words = pc.ascii_lower(pc.ascii_trim_whitespace(text(values)))
    yes = pc.is_in(words, value_set=_YES)
    return keep(yes, as_mask(pc.or_(yes, pc.is_in(words, value_set=_NO))))


def instants(values: pa.Array, name: str, zone: str | None = None) -> pa.Array:
    """Read instants: ISO 8601 text, dates (their midnight) and timestamps; without a zone they are in `zone`, or UTC.

    A wall time that the clocks skipped is the moment of the change, one that came twice the first of the two.
    Finer than a microsecond is cut off. Raises: SchemaError for numbers, whose unit only the settings can tell.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), INSTANT)
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        written = sound_text(values)
        if _have_one_form(written):
            with contextlib.suppress(pa.ArrowInvalid):  # a thirteenth month, a 30 February
                return written.cast(INSTANT)
            with contextlib.suppress(pa.ArrowInvalid):
                return _localised(written.cast(pa.timestamp("us")).cast(pa.int64()).cast(INSTANT), zone)
        return _instants_from_text(pc.ascii_trim_whitespace(written), zone)
    if pa.types.is_date(kind):
        midnights = values.cast(pa.timestamp("ms" if pa.types.is_date64(kind) else "s"))
        return _localised(_instants_from_units(midnights), zone)
    if pa.types.is_timestamp(kind):
        return _localised(_instants_from_units(values), zone if kind.tz is None else None)
    raise SchemaError(
        f"column {name} is {kind}; expected text in ISO 8601 or a timestamp: give it a format, such as epoch_seconds"
    )


def instants_from_epoch(values: pa.Array, us_per_unit: int) -> pa.Array:
    """Read instants that are counted from 1970 in units of so many microseconds; fractions of a unit count."""
    counted = pc.multiply(numbers(values), float(us_per_unit))
    inside = pc.and_(pc.greater_equal(counted, float(_FIRST_US)), pc.less_equal(counted, float(_LAST_US)))
    return pc.round(keep(counted, as_mask(inside))).cast(pa.int64()).cast(INSTANT)


def has_own_zone(values: pa.Array) -> bool:
    """Tell whether any instant in a column says which zone it is in."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return bool(as_mask(pc.match_substring_regex(sound_text(values), _ZONE)).any())
    return bool(pa.types.is_timestamp(kind) and kind.tz is not None)


def instants_from_format(values: pa.Array, pattern: str, zone: str | None = None) -> pa.Array:
    """Read text by a format of Python's strptime; without %z the instants are in `zone`, or UTC."""
    # pandas: Arrow's own strptime takes 30 February for 1 March and knows no fractions of a second. Imported here,
    # because its 0.4 s are for the few sources that need it.
    import pandas as pd

    parsed = pd.to_datetime(text(values).to_pandas(), format=pattern, errors="coerce", utc=True)
    read = _instants_from_units(pa.array(parsed, pa.timestamp("ns", tz="UTC")))
    return read if "%z" in pattern else _localised(read, zone)


def _have_one_form(texts: pa.Array) -> bool:
    """Tell whether all instants are written like the first, with digits where it has some and in the same zone.

    Nearly every batch is so, and two thirds of the time of matching each one are saved. What is left to `_INSTANT` to
    see, Arrow sees: that there is such a month, day, hour, minute and second.
    """
    first = texts[0].as_py() if len(texts) and not texts.null_count else None
    if first is None or (found := re.match(_INSTANT, first, re.ASCII)) is None or len(first) < _SECONDS_END:
        return False
    lengths = pc.min_max(pc.binary_length(texts)).as_py()
    if lengths["min"] != lengths["max"]:
        return False
    letters = text_bytes(texts).reshape(len(texts), lengths["max"])
    in_time = np.arange(lengths["max"]) < found.start("zone") % (lengths["max"] + 1)
    digit = in_time & ((letters[0] - ord("0")) <= 9)
    same = (letters == letters[0])[:, ~digit].all()
    centuries = letters[:, 0].astype(np.int16) * 10 + letters[:, 1] - 11 * ord("0")
    return bool(
        same
        and ((letters[:, digit] - ord("0")) <= 9).all()
        and centuries.min() >= _FIRST_CENTURY
        and centuries.max() <= _LAST_CENTURY
    )


def _instants_from_text(trimmed: pa.Array, zone: str | None) -> pa.Array:
    shaped = as_mask(pc.match_substring_regex(trimmed, _INSTANT))
    # Nearly always every value is in one form that Arrow reads itself, and refuses where there is no such day: a third
    # of the time of the steps below.
    with contextlib.suppress(pa.ArrowInvalid):
        return keep(trimmed, shaped).cast(INSTANT)
    with contextlib.suppress(pa.ArrowInvalid):
        return _localised(keep(trimmed, shaped).cast(pa.timestamp("us")).cast(pa.int64()).cast(INSTANT), zone)
    shaped &= ~as_mask(pc.match_substring_regex(trimmed, _NO_SUCH_DAY))
    stamps = keep(trimmed, shaped)
    leap_day = as_mask(pc.match_substring_regex(stamps, "^.{4}-02-29"))
    if leap_day.any():
        years = pc.utf8_slice_codeunits(stamps, 0, 4).cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
        is_leap = (years % 4 == 0) & ((years % 100 != 0) | (years % 400 == 0))
        stamps = keep(stamps, ~leap_day | is_leap)
    stamps = pc.replace_substring_regex(stamps, r"^(.{10})$", r"\1T00:00:00")
    stamps = pc.replace_substring_regex(stamps, r"\.(\d{6})\d+", r".\1")
    if zone is None:
        return pc.replace_substring_regex(stamps, _WITHOUT_ZONE, r"\1Z").cast(INSTANT)
    without = as_mask(pc.match_substring_regex(stamps, _WITHOUT_ZONE))
    read = pc.replace_substring_regex(stamps, _WITHOUT_ZONE, r"\1Z").cast(INSTANT)
    return pc.coalesce(_localised(keep(read, without), zone), keep(read, ~without))


def _localised(wall_times: pa.Array, zone: str | None) -> pa.Array:
    """Take wall times of a zone, read as if they were UTC, to their instants."""
    if zone is None:
        return wall_times
    naive = wall_times.cast(pa.int64()).cast(pa.timestamp("us"))
    return pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest").cast(INSTANT)


def _instants_from_units(values: pa.Array) -> pa.Array:
    """Bring timestamps of any unit to microseconds; what would overflow is null."""
    unit = values.type.unit
    counts = values.cast(pa.int64())
    if unit == "ns":
        # Floor, not towards zero: an instant belongs to the microsecond that it lies in, before 1970 too.
        floored = np.floor_divide(counts.fill_null(0).to_numpy(zero_copy_only=False), 1000)
        counts = pa.array(floored, mask=~as_mask(counts.is_valid()))
    scale = _US_PER_UNIT.get(unit, 1)
    inside = pc.and_(pc.greater_equal(counts, -(-_FIRST_US // scale)), pc.less_equal(counts, _LAST_US // scale))
    return pc.multiply(keep(counts, as_mask(inside)), scale).cast(INSTANT)


def money(amounts: pa.Array) -> pa.Array:
    """Round doubles that are known to be in range to four decimals."""
    return amounts.cast(MONEY)
