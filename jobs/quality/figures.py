"""The figures of a partition, counted file by file: what its gate judges instead of its rows.

Memory is bounded by one file (a user bucket) and 8 bytes a row for what must not come twice across files. A Spark task
observes the rows that it writes; an export reads its files back one by one, and so observes what is on the disk.
Figures are numbers about all rows: no id and no value of a row is among them.
"""

import datetime as dt
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.buckets import keyed_hash
from jobs.lake.distinct import distinct
from jobs.lake.lake import Attempt
from jobs.lake.list_columns import lengths
from jobs.lake.manifest import FileEntry
from schemas.checks import Between, ColumnRule, Finite, Matches, MaxBytes, NotNull, OneOf, Parallel, Unique
from schemas.contracts import COLUMNS_DIFFERENT, ROWS, Contract
from schemas.errors import StorageError
from schemas.tables import CATALOG, EVENTS, PROFILES, USERS

Figures = dict[str, float]
Column = npt.NDArray[Any]

_HASH_KEY: Final = "ryml gate figure"


@dataclass
class Observed:
    """What was counted so far. `a + b` is what was counted of both; small enough to come back from a Spark task."""

    sums: Counter[str] = field(default_factory=Counter)
    least: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    columns: dict[str, list[Column]] = field(default_factory=dict)
    tops: dict[str, Counter[bytes]] = field(default_factory=dict)

    def __add__(self, other: "Observed") -> "Observed":
        return Observed.total([self, other])

    @classmethod
    def total(cls, parts: Iterable["Observed"]) -> Self:
        """Add everything up."""
        total = cls()
        for part in parts:
            total.sums.update(part.sums)
            for name, value in part.least.items():
                total.note_least(name, value)
            for name, value in part.most.items():
                total.note_most(name, value)
            for name, column in part.columns.items():
                total.columns.setdefault(name, []).extend(column)
            for name, top in part.tops.items():
                total.tops.setdefault(name, Counter()).update(top)
        return total

    def note_least(self, name: str, value: float | None) -> None:
        """Keep the smallest value of a name; None is no value."""
        if value is not None:
            self.least[name] = min(value, self.least.get(name, value))

    def note_most(self, name: str, value: float | None) -> None:
        """Keep the largest value of a name; None is no value."""
        if value is not None:
            self.most[name] = max(value, self.most.get(name, value))

    def column(self, name: str) -> Column | None:
        """A column that was kept whole (8 bytes a row), over all files."""
        parts = self.columns.get(name)
        return np.concatenate(parts) if parts else None


def observe(contract: Contract, rows: pa.Table) -> Observed:
    """Count one whole file."""
    return _observe_groups(contract, rows.schema, [rows])


def observe_files(contract: Contract, attempt: Attempt, files: Iterable[FileEntry]) -> Observed:
    """Count what an attempt wrote, read back from where it lies, one file and row group after the other.

    Raises: StorageError if a file is not what was written.
    """
    return Observed.total(_observe_file(contract, attempt, entry) for entry in files)


def figures_of(contract: Contract, observed: Observed) -> Figures:
    """Turn counts into figures by name; one that has no value, such as the least of no numbers, is left out."""
    rows = observed.sums[ROWS.figure]
    figures: Figures = {ROWS.figure: rows, COLUMNS_DIFFERENT.figure: observed.sums[COLUMNS_DIFFERENT.figure]}
    for rule in contract.rules:
        if isinstance(rule, Unique) and rule.across_files:
            hashes = observed.column(rule.column)
            figures[rule.repeats] = 0 if hashes is None else len(hashes) - len(distinct(hashes))
        elif isinstance(rule, Matches):
            if texts := observed.sums[f"{rule.column}_texts"]:
                figures[rule.malformed_share] = observed.sums[rule.malformed_share] / texts
        else:
            for check in rule.checks():
                value = _counted(rule, check.figure, observed)
                if value is not None:
                    figures[check.figure] = value
    for name, count in _SHARES.get(contract.table.name, {}).items():
        figures[name] = observed.sums[count] / rows if rows else 0.0
    prices = observed.column(PRICES)
    if prices is not None and len(prices):
        figures["price_median"] = float(np.median(prices))
    return figures


def hours_before(end_at: dt.datetime, observed: Observed) -> Figures:
    """Say how long before an instant the newest event was; nothing if none has a time of day."""
    if NEWEST_AT not in observed.most or not observed.sums[_TIMED]:
        return {}
    return {"newest_hours_before_end": (end_at.timestamp() - observed.most[NEWEST_AT] / 1e6) / 3600}


def hours_with_events(day_start_at: dt.datetime, observed: Observed) -> float:
    """Count the hours of a day in which something happened: half a day's file has half of them."""
    first = int(day_start_at.timestamp()) // 3600
    found = observed.column(_HOURS)
    return 0.0 if found is None else float(len(distinct(found[(found >= first) & (found < first + 24)])))


# Shares of rows that a table's own counts (below) stand for.
_SHARES: Final[Mapping[str, Mapping[str, str]]] = {
    CATALOG.name: {"in_stock_share": "in_stock"},
    USERS.name: {"email_share": "with_email", "subscribed_share": "subscribed"},
}
PRICES: Final = "prices"
NEWEST_AT: Final = "newest_at"  # microseconds since 1970, UTC
NO_TIME_OF_DAY: Final = {"newest_hours_before_end": "the source knows the day of an event only, not the time"}
_HOURS: Final = "hours_with_events"  # counted from 1970, UTC
_TIMED: Final = "groups_with_a_time_of_day"
_DAY_MICROSECONDS: Final = 86_400_000_000
_HOUR_MICROSECONDS: Final = 3_600_000_000


def _counted(rule: ColumnRule, figure: str, observed: Observed) -> float | None:
    if isinstance(rule, Between):
        return (observed.least if figure == rule.least else observed.most).get(figure)
    if isinstance(rule, MaxBytes):
        return observed.most.get(figure)
    return observed.sums[figure]


def _observe_file(contract: Contract, attempt: Attempt, entry: FileEntry) -> Observed:
    path = f"{attempt.folder}/{entry.name}"
    data = attempt.lake.storage.read(path)
    if data is None or len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StorageError(
            f"{attempt.lake.uri}/{path} is missing or not what was just written; nothing was published. Look at the "
            "disk, and run the job again"
        )
    wanted = _columns(contract)
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    groups = (file.read_row_group(number, columns=wanted) for number in range(file.num_row_groups))
    return _observe_groups(contract, file.schema_arrow, groups)


def _columns(contract: Contract) -> list[str]:
    named = {rule.column for rule in contract.rules} | {
        other for rule in contract.rules if isinstance(rule, Parallel) for other in rule.others
    }
    return [name for name in contract.table.schema.names if name in named]


def _observe_groups(contract: Contract, schema: pa.Schema, groups: Iterable[pa.Table]) -> Observed:
    observed, seen = Observed(), defaultdict[str, list[pa.ChunkedArray]](list)
    observed.sums[COLUMNS_DIFFERENT.figure] = _differences(schema, contract.table.schema)
    for rows in groups:
        observed.sums[ROWS.figure] += len(rows)
        for rule in contract.rules:
            if isinstance(rule, Unique):
                seen[rule.column].append(rows[rule.column])
            else:
                _COUNT[type(rule)](rule, rows, observed)
        _TABLE_COUNT.get(contract.table.name, _nothing)(rows, observed)
    for rule in contract.rules:
        if isinstance(rule, Unique):
            _count_repeats(rule, contract.table.schema.field(rule.column).type, seen[rule.column], observed)
    return observed


def _differences(found: pa.Schema, expected: pa.Schema) -> int:
    """Count columns that are missing, added, retyped or, all being there, in another order."""
    names, wanted = set(found.names), set(expected.names)
    retyped = sum(_plain(found.field(name).type) != _plain(expected.field(name).type) for name in names & wanted)
    return len(names ^ wanted) + retyped + (names == wanted and found.names != expected.names)


def _plain(kind: pa.DataType) -> str:
    """Name a type without the names and nullability of what is inside, which Parquet does not keep to the letter."""
    if pa.types.is_list(kind):
        return f"list of {_plain(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_plain(kind.key_type)} to {_plain(kind.item_type)}"
    return str(kind)


def _values(rows: pa.Table, column: str) -> pa.ChunkedArray:
    """A column's values; of a list column, all elements."""
    values = rows[column]
    if pa.types.is_list(values.type):
        return pa.chunked_array([chunk.flatten() for chunk in values.chunks], values.type.value_type)
    return values


def _count_nulls(rule: NotNull, rows: pa.Table, observed: Observed) -> None:
    column = rows[rule.column]
    inside = _values(rows, rule.column).null_count if pa.types.is_list(column.type) else 0
    observed.sums[rule.nulls] += column.null_count + inside


def _count_unknown(rule: OneOf, rows: pa.Table, observed: Observed) -> None:
    column = rows[rule.column]
    known = pc.sum(pc.is_in(column, value_set=pa.array(rule.values))).as_py() or 0
    observed.sums[rule.unknown] += len(column) - column.null_count - known


def _count_range(rule: Between, rows: pa.Table, observed: Observed) -> None:
    found = pc.min_max(_values(rows, rule.column)).as_py()
    observed.note_least(rule.least, None if found["min"] is None else float(found["min"]))
    observed.note_most(rule.most, None if found["max"] is None else float(found["max"]))


def _count_bytes(rule: MaxBytes, rows: pa.Table, observed: Observed) -> None:
    observed.note_most(rule.longest, pc.max(pc.binary_length(rows[rule.column])).as_py())


def _count_malformed(rule: Matches, rows: pa.Table, observed: Observed) -> None:
    texts = rows[rule.column].drop_null()
    fitting = pc.sum(pc.match_substring_regex(texts, rule.pattern)).as_py() or 0
    observed.sums[f"{rule.column}_texts"] += len(texts)
    observed.sums[rule.malformed_share] += len(texts) - fitting


def _count_not_finite(rule: Finite, rows: pa.Table, observed: Observed) -> None:
    values = _values(rows, rule.column)
    finite = pc.sum(pc.is_finite(values)).as_py() or 0
    observed.sums[rule.not_finite] += len(values) - values.null_count - finite


def _count_ragged(rule: Parallel, rows: pa.Table, observed: Observed) -> None:
    length, ragged = lengths(rows[rule.column]), np.zeros(len(rows), np.bool_)
    for other in rule.others:
        ragged |= lengths(rows[other]) != length
    observed.sums[rule.ragged] += int(ragged.sum())


_COUNT: Final[Mapping[type, Callable[[Any, pa.Table, Observed], None]]] = {
    NotNull: _count_nulls,
    OneOf: _count_unknown,
    Between: _count_range,
    MaxBytes: _count_bytes,
    Matches: _count_malformed,
    Finite: _count_not_finite,
    Parallel: _count_ragged,
}


def _count_repeats(rule: Unique, kind: pa.DataType, columns: list[pa.ChunkedArray], observed: Observed) -> None:
    values = pa.chunked_array([chunk for column in columns for chunk in column.chunks], kind).drop_null()
    if rule.across_files:
        observed.columns[rule.column] = [hashed(values)]
    elif not pc.all(pc.less(values[:-1], values[1:])).as_py():  # in order, as most tables are by key, none repeats
        observed.sums[rule.repeats] += len(values) - pc.count_distinct(values).as_py()
    else:
        observed.sums[rule.repeats] += 0


def hashed(values: pa.ChunkedArray) -> Column:
    """Give each text a 64-bit hash, and each number itself."""
    if pa.types.is_string(values.type):
        return keyed_hash(values, _HASH_KEY)
    return np.asarray(values.to_numpy()).astype(np.uint64)


def _count_events(rows: pa.Table, observed: Observed) -> None:
    _count_newest(rows["occurred_at"], observed)
    hours = distinct(rows["occurred_at"].cast(pa.int64()).to_numpy() // _HOUR_MICROSECONDS)
    before = observed.columns.get(_HOURS, [])
    observed.columns[_HOURS] = [distinct(np.concatenate([*before, hours]))]


def _count_catalog(rows: pa.Table, observed: Observed) -> None:
    observed.sums["in_stock"] += pc.sum(pc.greater(rows["stock"], 0)).as_py() or 0
    observed.columns.setdefault(PRICES, []).append(rows["price"].drop_null().cast(pa.float64()).to_numpy())


def _count_users(rows: pa.Table, observed: Observed) -> None:
    observed.sums["with_email"] += len(rows) - rows["email"].null_count
    observed.sums["subscribed"] += pc.sum(rows["is_subscribed"]).as_py() or 0


def _count_profiles(rows: pa.Table, observed: Observed) -> None:
    _count_newest(_values(rows, "last_at"), observed)


def _count_newest(instants: pa.ChunkedArray, observed: Observed) -> None:
    micros = instants.cast(pa.int64())
    observed.note_most(NEWEST_AT, pc.max(micros).as_py())
    observed.sums[_TIMED] += int((micros.to_numpy() % _DAY_MICROSECONDS != 0).any())


def _nothing(rows: pa.Table, observed: Observed) -> None:
    """Most tables have no counts of their own."""


_TABLE_COUNT: Final[Mapping[str, Callable[[pa.Table, Observed], None]]] = {
    EVENTS.name: _count_events,
    CATALOG.name: _count_catalog,
    USERS.name: _count_users,
    PROFILES.name: _count_profiles,
}
