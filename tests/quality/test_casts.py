import datetime as dt
import decimal
import math
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.quality.casts import (
    _have_one_form,
    _holds_plain_numbers,
    flags,
    instants,
    instants_from_format,
    numbers,
    plain,
    text,
)
from schemas.errors import SchemaError

UTC = dt.UTC
# Without a zone, as Hypothesis wants them.
YEARS = (dt.datetime.fromisoformat("1600-01-01"), dt.datetime.fromisoformat("2999-12-31T23:59:59"))


def instant(value: object, kind: pa.DataType | None = None) -> dt.datetime | None:
    found = instants(plain(pa.array([value], kind), "x"), "x").to_pylist()[0]
    return found and found.astimezone(UTC)


@given(
    stamp=st.datetimes(*YEARS),
    minutes=st.integers(-14 * 60, 14 * 60),
    separator=st.sampled_from("T "),
)
def test_iso_text_means_what_python_says(stamp, minutes, separator):
    local = stamp.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    assert instant(local.isoformat(separator)) == local
    # Without a zone it is UTC; dates are their midnight.
    assert instant(stamp.isoformat(separator)) == stamp.replace(tzinfo=UTC)
    assert instant(stamp.date().isoformat()) == dt.datetime.combine(stamp.date(), dt.time(), UTC)


@given(st.dates(dt.date(1600, 1, 1), dt.date(2999, 12, 31)), st.integers(1, 31))
def test_days_that_no_calendar_has_are_null(date, day):
    candidate = f"{date.year:04}-{date.month:02}-{day:02}"
    try:
        expected = dt.datetime.fromisoformat(candidate).replace(tzinfo=UTC)
    except ValueError:
        expected = None
    assert instant(candidate) == expected


@pytest.mark.parametrize(
    "value",
    ["", "x", "2026", "2026-1-1", "20260101", "2026-01-01T24:00:00", "2026-01-01T00:00:60Z",
     "2026-01-01T00:00:00+15:00",
     "1599-12-31", "3000-01-01", "2026-01-01T00", "2026-01-01 00:00:00 CET", "2026-00-10", "infinity",
     "\uff12\uff10\uff12\uff16-01-01"],
)  # fmt: skip
def test_text_that_is_no_instant_is_null(value):
    assert instant(value) is None


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@given(count=st.integers(-(2**63), 2**63 - 1))
def test_timestamps_of_any_unit_never_overflow(unit, count):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    microseconds = count * 10**6 // per_second
    first, last = -11_676_096_000_000_000, 32_503_680_000_000_000 - 1
    expected = (
        dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(microseconds=microseconds)
        if first <= microseconds <= last
        else None
    )
    assert instant(count, pa.timestamp(unit)) == expected
    assert instant(count, pa.timestamp(unit, "Europe/Berlin")) == expected


def test_instants_finer_than_a_microsecond_are_cut_off():
    assert instant("2026-01-01T00:00:00.123456999Z") == dt.datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)


def test_numbers_are_no_instants_without_a_format():
    with pytest.raises(SchemaError, match="epoch_seconds"):
        instant(1_767_225_600)


@given(st.lists(st.text(max_size=20), max_size=5))
def test_formats_read_what_strptime_reads(words):
    array = pa.array([*words, "31/12/2026 23:59", "30/02/2026 00:00"])
    found = instants_from_format(array, "%d/%m/%Y %H:%M").to_pylist()
    assert found[-2:] == [dt.datetime(2026, 12, 31, 23, 59, tzinfo=UTC), None]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_whole_numbers_become_their_decimal_text(values):
    assert text(pa.array(values, pa.int64())).to_pylist() == [None if v is None else str(v) for v in values]


@given(st.lists(st.none() | st.integers(-(2**53) + 1, 2**53 - 1), min_size=1))
def test_whole_doubles_become_the_same_text_as_integers(values):
    doubles = pa.array([None if value is None else float(value) for value in values], pa.float64())
    assert text(doubles).to_pylist() == [None if value is None else str(value) for value in values]
    assert text(pa.array([math.nan, 2.5])).to_pylist() == [None, "2.5"]


@given(st.lists(st.none() | st.binary(max_size=8), min_size=1, max_size=50))
def test_bytes_become_text_where_they_are_utf_8(values):
    def decoded(value: bytes | None) -> str | None:
        try:
            return value if value is None else value.decode()
        except UnicodeDecodeError:
            return None

    assert text(pa.array(values, pa.binary())).to_pylist() == [decoded(value) for value in values]


@given(st.lists(st.none() | st.text(max_size=8) | st.floats().map(repr) | st.decimals(allow_nan=False).map(str)))
def test_numbers_in_text_never_fail_and_are_finite(values):
    for word, number in zip(values, numbers(pa.array(values, pa.string())).to_pylist(), strict=True):
        if number is not None:
            assert math.isfinite(number)
            assert number == float(word)


@pytest.mark.parametrize(
    ("word", "number"),
    [("1", 1.0), (" 2.50 ", 2.5), ("-.5", -0.5), ("1e3", 1000.0), ("+7.", 7.0), ("1e308", None), ("nan", None),
     ("inf", None), ("1,5", None), ("", None), ("0x10", None), ("1_000", None), ("٣", None)],
)  # fmt: skip
def test_what_counts_as_a_number(word, number):
    assert numbers(pa.array([word])).to_pylist() == [number]


def test_flags_read_the_usual_words():
    words = ["true", "T", "YES", "y", "1", " False", "f", "no", "N", "0", "maybe", "", None]
    assert flags(pa.array(words)).to_pylist() == [True] * 5 + [False] * 5 + [None] * 3
    assert flags(pa.array([1, 0, 2, None])).to_pylist() == [True, False, None, None]
    assert flags(pa.array([1.0, 0.0, math.nan])).to_pylist() == [True, False, None]


def test_wrappings_come_off_and_the_rest_is_refused():
    assert plain(pa.array(["a", None]).dictionary_encode(), "x").to_pylist() == ["a", None]
    assert plain(pa.array(["a"], pa.large_string()), "x").type == pa.string()
    assert plain(pa.array(["a"], pa.string_view()), "x").type == pa.string()
    numeric = pa.opaque(pa.string(), "numeric", "PostgreSQL").wrap_array(pa.array(["1.5"]))
    assert plain(numeric, "x").to_pylist() == ["1.5"]
    assert text(plain(pa.array([decimal.Decimal("1.50")]), "x")).to_pylist() == ["1.50"]
    uuid = pa.opaque(pa.binary(), "uuid", "PostgreSQL").wrap_array(pa.array([b"0" * 16]))
    for refused in (
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([b"ab"], pa.binary(2)),
        uuid,
        pa.array([1], "duration[s]"),
    ):
        with pytest.raises(SchemaError, match="column x is"):
            plain(refused, "x")


def test_what_an_instant_says_does_not_depend_on_those_beside_it():
    # Instants of one form are read in a way of their own; anything else in the batch takes all of them the longer way.
    draws, short_ways, unread = random.Random(1), 0, 0
    for _ in range(1_500):
        separator = draws.choice("T ")
        zones = draws.choice([[""], ["Z"], ["-0530"], ["+01"], ["+02:00", "+15:00"], ["+1459", "-1501"]])
        fraction = draws.choice(["", ".5", ".123", ".000001", ".123456789"])
        written = [
            f"{draws.choice([1599, 1600, 2024, 2026, 2999, 3000])}-{draws.randint(0, 13):02}-{draws.randint(0, 31):02}"
            f"{separator}{draws.randint(0, 24):02}:{draws.randint(0, 60):02}:{draws.randint(0, 60):02}"
            f"{fraction}{draws.choice(zones)}"
            for _ in range(draws.choice([1, 2, 3]))
        ]
        if draws.random() < 0.1:
            written[-1] = written[-1].replace("0", draws.choice("x/:;\u0660"), 1)
        texts = pa.array(["before", *written]).slice(1)
        short_ways += _have_one_form(texts)
        for place in (None, "Europe/Berlin"):
            alone = instants(texts, "x", place)
            assert alone.equals(instants(pa.array([*written, "other"]), "x", place).slice(0, len(written))), written
            unread += alone.null_count
    assert short_ways > 300
    assert unread > 500


def test_what_a_number_is_does_not_depend_on_those_beside_it():
    draws, short_ways, unread = random.Random(2), 0, 0
    for _ in range(5_000):
        written = [
            f"{draws.randrange(10_000)}{draws.choice(['', '.', '.5', '.25', '.123456'])}"
            if draws.random() < 0.7
            else "".join(draws.choice("0123456789.-+eE/ x") for _ in range(draws.choice([1, 2, 4, 29, 30, 31])))
            for _ in range(draws.choice([1, 2]))
        ]
        if draws.random() < 0.2:
            written.append(draws.choice(["9" * 31, "-.5", "5.", "0e500", "1e-300", "inf", "nan", "-"]))
        texts = pa.array(["1", *written]).slice(1)
        short_ways += _holds_plain_numbers(texts)
        alone = numbers(texts)
        assert alone.equals(numbers(pa.array([*written, "other"])).slice(0, len(written))), written
        unread += alone.null_count
    assert short_ways > 1_000
    assert unread > 500
