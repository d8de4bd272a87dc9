"""Leave the future out: what users had done before a cut to learn from, and what they took up after it to be found.

A profile keeps the last instant of each record. One whose last instant lies after the cut is taken away whole: nothing
of the future is left in the past, and an item that a user came back to counts as taken up after the cut.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pandas.util import hash_array
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, list_column
from jobs.profiles.pairs import pairs_of_profiles
from jobs.ranking.csr_rows import ones_like
from jobs.ranking.interactions import DAY, Interest, in_order, user_order
from jobs.ranking.item_facts import NO_KIND
from jobs.ranking.rules import exclusion_matrix
from jobs.ranking.user_batch import UserBatch
from schemas.campaign import Campaign
from schemas.tables import PROFILES

Kind = Literal["by time", "at random"]
_LISTS: Final = ("item", "event_type", "last_at", "count")
_ONE_IN: Final = 5  # items of a user that are left out where time says nothing
_HASH_KEY: Final = "ryml left out..."


@dataclass(frozen=True)
class Split:
    """One comparison's data.

    Shapes: all (users, items). `learn` has the sample's users, the others the test users alone: `history` what ranking
            starts from, weighed as the campaign weighs it; `excluded` ones for what it may not show; `truth` ones for
            what is to be found.
    """

    kind: Kind
    learn: sparse.csr_array
    history: sparse.csr_array
    excluded: sparse.csr_array
    truth: sparse.csr_array

    @property
    def test_users(self) -> int:
        """How many users there is something to be found for."""
        return self.truth.shape[0]


@dataclass(frozen=True)
class _Parts:
    """One bucket of the sample; rows are its users."""

    order: npt.NDArray[np.uint64]
    learn: sparse.csr_array
    history: sparse.csr_array
    excluded: sparse.csr_array
    truth: sparse.csr_array


def split_profiles(
    read: Callable[[], Iterable[pa.Table]], campaign: Campaign, *, share: float, since: int, until: int, items: int
) -> Split:
    """Split by time; at random where time leaves too few users to be found something for.

    `read` gives the profiles bucket by bucket, `share` is the share of the users that is looked at.
    Units: since and until in microseconds: the window of training, whose last days are the future.
    """
    cut = until - campaign.training.backtest.holdout_days * DAY
    split = _split(read(), campaign, "by time", share=share, since=since, until=cut, end=until, items=items)
    if split.test_users >= campaign.training.backtest.min_test_users:
        return split
    again = _split(read(), campaign, "at random", share=share, since=since, until=until, end=until, items=items)
    return again if again.test_users > split.test_users else split


def _split(
    buckets: Iterable[pa.Table], campaign: Campaign, kind: Kind, *, share: float, since: int, until: int, end: int,
    items: int,
) -> Split:  # fmt: skip
    interest = Interest.of(campaign.training, since=since, until=until)
    later = Interest.of(campaign.training, since=until if kind == "by time" else since, until=end)
    parts = []
    for profiles in buckets:
        order = user_order(profiles["user_id"])
        chosen = order <= np.uint64(int(share * np.iinfo(np.uint64).max)) if share < 1 else np.ones(len(order), bool)
        rows, order = profiles.filter(pa.array(chosen)), order[chosen]
        past, future = _by_time(rows, until) if kind == "by time" else _at_random(rows, order)
        parts.append(_part(past, future, campaign, order, interest, later, until, items))
    learn = in_order([part.learn for part in parts], [part.order for part in parts])
    return Split(kind, learn, *_test_users(parts, campaign.training.backtest.test_users))


def _part(
    past_rows: pa.Table, future_rows: pa.Table, campaign: Campaign, order: npt.NDArray[np.uint64], interest: Interest,
    later: Interest, now: int, items: int,
) -> _Parts:  # fmt: skip
    past, future = pairs_of_profiles(past_rows), pairs_of_profiles(future_rows)
    history, excluded = serving_side(past_rows, campaign, now, items)
    taken_up = later.matrix(future, items)
    known = excluded.astype(bool).astype(np.int8)
    found = (taken_up > 0).astype(np.int8)
    truth = (found - found.multiply(known)).tocsr()
    truth.eliminate_zeros()
    truth.sort_indices()
    return _Parts(order, interest.matrix(past, items), history, excluded, sparse.csr_array(truth.astype(np.float32)))


def serving_side(past: pa.Table, campaign: Campaign, now: int, items: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Give what ranking would start from at an instant, and what it would rule out, by the campaign's rules.

    Twins are not looked at: which items are variants of which is the catalog's to say.
    """
    batch = UserBatch.of(past, campaign, items, now)
    nobody = np.full(items, NO_KIND, np.int32)
    excluded = exclusion_matrix(batch.excluded, nobody, len(batch), 0)
    excluded.sum_duplicates()
    return batch.interest, ones_like(excluded, items)


def _test_users(parts: list[_Parts], limit: int) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
    """Keep the first `limit` users, in their order, that have both a history and something to be found."""
    order = np.concatenate([part.order for part in parts])
    joined = [
        sparse.vstack([getattr(part, name) for part in parts], format="csr")
        for name in ("history", "excluded", "truth")
    ]
    usable = np.flatnonzero((np.diff(joined[0].indptr) > 0) & (np.diff(joined[2].indptr) > 0))
    rows = usable[np.argsort(order[usable], kind="stable")][:limit]
    history, excluded, truth = (matrix[rows] for matrix in joined)
    return history, excluded, truth


def _by_time(profiles: pa.Table, cut: int) -> tuple[pa.Table, pa.Table]:
    """Part the records into those before an instant and those from it on."""
    return _parted(profiles, flat(profiles["last_at"]) < cut)


def _at_random(profiles: pa.Table, order: npt.NDArray[np.uint64]) -> tuple[pa.Table, pa.Table]:
    """Part each user's items at random, the same way whenever it is done: four to learn from, one to be found."""
    user = np.repeat(order, lengths(profiles["item"]))
    item = flat(profiles["item"]).astype(np.uint64)
    drawn = hash_array(user ^ hash_array(item, hash_key=_HASH_KEY))
    return _parted(profiles, drawn % np.uint64(_ONE_IN) != 0)


def _parted(profiles: pa.Table, is_past: npt.NDArray[np.bool_]) -> tuple[pa.Table, pa.Table]:
    row = np.repeat(np.arange(len(profiles)), lengths(profiles["item"]))

    def side(chosen: npt.NDArray[np.bool_]) -> pa.Table:
        counts = np.bincount(row[chosen], minlength=len(profiles))
        columns = {name: list_column(PROFILES, name, flat(profiles[name])[chosen], counts) for name in _LISTS}
        # What was mailed since the cut stands among what was mailed before it: neither side knows of mails.
        no_mails = {
            name: list_column(PROFILES, name, flat(profiles[name])[:0], np.zeros(len(profiles), np.int64))
            for name in PROFILES.schema.names
            if name.startswith("mailed_")
        }
        return pa.table({"user_id": profiles["user_id"], **columns, **no_mails}, schema=PROFILES.schema)

    return side(is_past), side(~is_past)


def micros(instant: dt.datetime) -> int:
    """Count the microseconds since 1970."""
    return int(instant.timestamp()) * 1_000_000
