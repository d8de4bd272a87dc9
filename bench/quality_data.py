"""Read a folder's events.parquet and divide it into what trains and what tests."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from jobs.ranking.validation import Interactions, share_of_each_user
from schemas.errors import ConfigError

TEST_SHARE = 0.2
# Events that undo interest; their rows are left out.
NEGATIVE = re.compile(r"cancel|refund|remove|return|dislike|unlike|unsubscribe", re.IGNORECASE)
SEED = 2_026  # names the draw


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
    has_times: bool

    @property
    def test_users(self) -> npt.NDArray[np.int64]:
        """Users that have something to be found."""
        return np.flatnonzero(np.diff(self.test.indptr))


def read(folder: Path) -> Data:
    """Read, check and divide.

    Raises: ConfigError naming what is wrong with the file.
    """
    path = folder / "events.parquet"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; DATA= names a folder with an events.parquet")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}") from error
    missing = [name for name in ("user_id", "item_id") if name not in schema.names]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}, expected user_id and item_id; it has {schema.names}")
    wanted = [n for n in ("user_id", "item_id", "event_type", "ts", "split") if n in schema.names]
    events = pq.read_table(path, columns=wanted)
    events = events.filter(pc.and_(pc.is_valid(events["user_id"]), pc.is_valid(events["item_id"])))
    if "event_type" in wanted:
        events = events.filter(_shows_interest(events["event_type"]))
    if len(events) == 0:
        raise ConfigError(f"{path} has no event of interest with both ids, expected at least some")
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
            "expected some of both; give it more events or a column split"
        )
    return Data(
        protocol,
        train,
        sparse.csr_array((np.ones(len(test), np.float32), (test // shape[1], test % shape[1])), shape=shape),
        users,
        items,
        at is not None,
    )


def _shows_interest(event_type: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pc.cast(event_type, pa.string())
    negative = [kind for kind in pc.unique(text).to_pylist() if kind is not None and NEGATIVE.search(kind)]
    return pc.invert(pc.fill_null(pc.is_in(text, pa.array(negative, pa.string())), False))


def _numbered(ids: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Number ids in their own order, so that the order of the rows decides nothing."""
    if pa.types.is_dictionary(ids.type):
        ids = pc.cast(ids, ids.type.value_type)
    distinct = pc.unique(ids)
    distinct = distinct.take(pc.sort_indices(distinct))
    return distinct, pc.index_in(ids, distinct).to_numpy(zero_copy_only=False).astype(np.int64)


def _instants(ts: pa.ChunkedArray, path: Path) -> npt.NDArray[np.int64]:
    """Give times as whole numbers that grow with time; what has none counts as the oldest."""
    kind = ts.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_date(kind):
            ts = pc.cast(ts, pa.timestamp("us"))
        if pa.types.is_timestamp(ts.type):
            ts = pc.cast(ts, pa.int64())
        elif pa.types.is_floating(ts.type) or pa.types.is_decimal(ts.type):
            ts = pc.cast(pc.round(pc.multiply(pc.cast(ts, pa.float64()), 1e3)), pa.int64())
        else:
            ts = pc.cast(ts, pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"{path}: ts of type {kind} is no time: {error}") from error
    if ts.null_count == len(ts):
        return np.zeros(len(ts), np.int64)
    return pc.fill_null(ts, pc.min(ts)).to_numpy().astype(np.int64)


def _divide(
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64] | None,
    split: pa.ChunkedArray | None,
    path: Path,
) -> tuple[str, npt.NDArray[np.bool_]]:
    """Mark the rows that test: as the file says, else the newest fifth, else a fifth of each user's items."""
    if split is not None:
        is_test = pc.fill_null(pc.equal(pc.cast(split, pa.string()), "test"), False).to_numpy(zero_copy_only=False)
        if not is_test.any():
            raise ConfigError(f"{path}: split is test in no row; expected some, or no column split")
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
