"""Read a folder's events.parquet and divide it into what trains and what tests."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy import sparse

from jobs.ranking.validation import HeldBack, Interactions, share_of_each_user
from schemas.errors import ConfigError

TEST_SHARE = 0.2
# A split tests on what is newest if so many of its test rows, or of its users, say so.
NEARLY_ALL = 0.9
# Events that undo interest; their rows are left out.
NEGATIVE = re.compile(r"cancel|refund|remove|return|dislike|unlike|unsubscribe", re.IGNORECASE)
SEED = 2_026  # names the draw
# What the column split calls rows that test, whatever the case; all others train.
TESTS = ("test", "testing", "holdout")
_WITH_ZONE = r":\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"  # a time of day, then a zone


@dataclass(frozen=True)
class Data:
    """What trains and what tests; users and items are numbered in the order of their ids.

    Shapes: test (users, items) holds ones where a test pair is not in the training part; users and items hold the ids.
    """

    protocol: str
    train: Interactions
    test: sparse.csr_array
    users: pa.Array
    items: pa.Array
    held_back: HeldBack  # how the test rows were taken

    @property
    def test_users(self) -> npt.NDArray[np.int64]:
        """Users that have something to be found."""
        return np.flatnonzero(np.diff(self.test.indptr))


def read(folder: Path) -> Data:
    """Read, check and divide.

    Raises: ConfigError naming what is wrong with the file.
    """
    path = folder / "events.parquet"
    events = _table(path)
    events = events.filter(pc.and_(pc.is_valid(events["user_id"]), pc.is_valid(events["item_id"])))
    wanted = events.column_names
    if "event_type" in wanted:
        events = events.filter(_shows_interest(events["event_type"], path))
    if len(events) == 0:
        raise ConfigError(
            f"{path} has no event of interest with both ids, expected at least some; see which ids are null and "
            "which event_type say the contrary of interest"
        )
    users, user = _numbered(events["user_id"])
    items, item = _numbered(events["item_id"])
    at = _instants(events["ts"], path) if "ts" in wanted else None
    split = events["split"] if "split" in wanted else None
    protocol, is_test = _divide(user, item, at, split, path)
    shape = (len(users), len(items))
    train = Interactions.of(user[~is_test], item[~is_test], None if at is None else at[~is_test], shape)
    test = np.setdiff1d(user[is_test] * shape[1] + item[is_test], train.user * shape[1] + train.item)
    if len(train.user) == 0 or len(test) == 0:
        raise ConfigError(
            f"{path} leaves {len(train.user):,} training pairs and {len(test):,} new test pairs by {protocol}, "
            "expected some of both; give it more events, or a column split that leaves users something new to find"
        )
    return Data(
        protocol,
        train,
        sparse.csr_array((np.ones(len(test), np.float32), (test // shape[1], test % shape[1])), shape=shape),
        users,
        items,
        _held_back(protocol, user, at, is_test),
    )


def _table(path: Path) -> pa.Table:
    """Read the columns that count, of one file or of a folder of part files."""
    if not path.exists():
        others = sorted(other.name for other in path.parent.glob("*.parquet"))
        there = f"{path.parent} has {', '.join(others)}" if others else f"{path.parent} has no Parquet file"
        raise ConfigError(f"{path} does not exist; DATA= names a folder with an events.parquet; {there}")
    try:
        data = ds.dataset(path, format="parquet")
        names = data.schema.names
        missing = [name for name in ("user_id", "item_id") if name not in names]
        if missing:
            raise ConfigError(f"{path} lacks {', '.join(missing)}, expected user_id and item_id; it has {names}")
        wanted = [name for name in ("user_id", "item_id", "event_type", "ts", "split") if name in names]
        if twice := [name for name in wanted if names.count(name) > 1]:
            raise ConfigError(f"{path} has {', '.join(twice)} more than once, expected each column once; rename one")
        events = data.to_table(columns=wanted)
        return pa.table({name: _plain(name, events[name]) for name in wanted})
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}; write it anew") from error


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a column as Arrow can sort and compare it: no dictionary or view; what is not a number, as nothing."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = pc.cast(column, pa.string() if pa.types.is_string_view(column.type) else pa.binary())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
    if pa.types.is_nested(kind):
        raise ConfigError(f"{name} is of type {kind}, expected numbers, text or times; write one value a row")
    return column


def _shows_interest(event_type: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    try:
        text = pc.cast(event_type, pa.string())
    except pa.ArrowException as error:
        raise ConfigError(f"{path}: event_type of type {event_type.type} is no text: {error}; write text") from error
    negative = [kind for kind in pc.unique(text).to_pylist() if kind is not None and NEGATIVE.search(kind)]
    return pc.invert(pc.fill_null(pc.is_in(text, pa.array(negative, pa.string())), False))


def _numbered(ids: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Number ids in their own order, so that the order of the rows decides nothing."""
    distinct = pc.unique(ids)
    distinct = distinct.take(pc.sort_indices(distinct))
    return distinct, pc.index_in(ids, distinct).to_numpy(zero_copy_only=False).astype(np.int64)


def _instants(ts: pa.ChunkedArray, path: Path) -> npt.NDArray[np.int64]:
    """Give times as whole numbers that grow with time; what has none counts as the oldest."""
    kind = ts.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            ts = _read_text(ts)
        elif pa.types.is_date(kind):
            ts = pc.cast(ts, pa.timestamp("us"))
        if pa.types.is_floating(ts.type) or pa.types.is_decimal(ts.type):
            ts = pc.round(pc.multiply(pc.cast(ts, pa.float64()), 1e3))
        ts = pc.cast(ts, pa.int64())
    except pa.ArrowException as error:
        raise ConfigError(
            f"{path}: ts of type {kind} is no time: {error}; expected timestamps, dates, numbers, or text such as "
            "2026-01-31T08:00:00Z; mend it, or leave the column out"
        ) from error
    if ts.null_count == len(ts):
        return np.zeros(len(ts), np.int64)
    return pc.fill_null(ts, pc.min(ts)).to_numpy().astype(np.int64)


def _read_text(ts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read text: numbers if all are, else dates and times, each with a zone or in UTC; empty is nothing."""
    text = pc.utf8_trim_whitespace(pc.cast(ts, pa.string()))
    text = pc.if_else(pc.equal(text, ""), None, text)
    if pc.all(pc.match_substring_regex(text, r"^[+-]?\d+(\.\d+)?$")).as_py():
        return pc.cast(text, pa.float64())
    zoned = pc.match_substring_regex(text, _WITH_ZONE)
    inside = pc.cast(pc.if_else(zoned, text, None), pa.timestamp("us", tz="UTC"))
    outside = pc.cast(pc.if_else(zoned, None, text), pa.timestamp("us"))
    return pc.coalesce(pc.cast(inside, pa.int64()), pc.cast(outside, pa.int64()))


def _held_back(
    protocol: str, user: npt.NDArray[np.int64], at: npt.NDArray[np.int64] | None, is_test: npt.NDArray[np.bool_]
) -> HeldBack:
    """See how the rows that test were taken."""
    if protocol == "time":
        return "newest"
    if protocol == "random" or at is None or at.min() == at.max() or is_test.all():
        return "any"
    if (at[is_test] >= np.quantile(at[~is_test], NEARLY_ALL, method="lower")).mean() >= NEARLY_ALL:
        return "newest"
    users = user.max() + 1
    first, last = np.full(users, np.iinfo(np.int64).max), np.full(users, np.iinfo(np.int64).min)
    np.minimum.at(first, user[is_test], at[is_test])
    np.maximum.at(last, user[~is_test], at[~is_test])
    both = np.isin(np.arange(users), user[is_test]) & np.isin(np.arange(users), user[~is_test])
    return "newest of each user" if both.any() and (first >= last)[both].mean() >= NEARLY_ALL else "any"


def _divide(
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64] | None,
    split: pa.ChunkedArray | None,
    path: Path,
) -> tuple[str, npt.NDArray[np.bool_]]:
    """Mark the rows that test: as the file says, else the newest fifth, else a fifth of each user's items."""
    if split is not None:
        name = pc.utf8_lower(pc.utf8_trim_whitespace(pc.cast(split, pa.string())))
        is_test = pc.fill_null(pc.is_in(name, pa.array(TESTS)), False).to_numpy(zero_copy_only=False)
        if not is_test.any():
            found = ", ".join(str(value) for value in pc.unique(split).to_pylist()[:10])
            raise ConfigError(
                f"{path}: split is test in no row, it is {found}; expected {' or '.join(TESTS)} in some; name them so, "
                "or leave the column out"
            )
        return "split", is_test
    if at is not None and at.min() < at.max():
        ordered = np.sort(at)
        since = ordered[int(len(at) * (1 - TEST_SHARE))]
        since = since if since > ordered[0] else ordered[ordered > since][0]
        return "time", at >= since
    # A pair is on one side with all its rows.
    items = int(item.max()) + 1
    pairs, place = np.unique(user * items + item, return_inverse=True)
    return "random", share_of_each_user(pairs // items, pairs % items, TEST_SHARE, SEED)[place]
