"""What the hybrid model is trained on: everybody's interest in a small shop, a fixed sample of users in a large one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.profiles.pairs import pairs_of_profiles
from jobs.ranking.interactions import Interest, user_order
from jobs.ranking.trending import demand_of_profiles
from schemas.cold_start import TrendingSettings
from schemas.tables import USERS

_KNOWN = ["user_id", "locale", "properties"]


@dataclass(frozen=True)
class Sample:
    """Some users: what they showed interest in, and what is known of them.

    Shapes: interactions (users, items), in the order of the users; users, parallel, has `locale` and `properties`, null
            for users that the shop no longer knows; demand (items,), as in jobs/ranking/trending.py, of the users read.
    """

    interactions: sparse.csr_array
    users: pa.Table
    demand: npt.NDArray[np.int64]


def read_sample(
    lake: Lake,
    profiles: Manifest,
    users: Manifest,
    *,
    interest: Interest,
    trending: TrendingSettings,
    items: int,
    limit: int,
) -> Sample:
    """Read user buckets until they hold `limit` interactions, and cut there.

    A bucket is a sample of the users by a hash of their ids, and so is what is kept of the last one: users stand in the
    order of another hash. Memory is bounded by a bucket and the sample.
    """
    parts, orders, known, held, demand = [], [], [], 0, np.zeros(items, np.int64)
    for bucket in range(lake.buckets):
        rows = lake.read(profiles, bucket=bucket)
        matrix = interest.matrix(pairs_of_profiles(rows), items)
        active = np.flatnonzero(np.diff(matrix.indptr))
        parts.append(matrix[active])
        orders.append(user_order(rows["user_id"])[active])
        known.append(_known_of(lake.read(users, columns=_KNOWN, bucket=bucket), rows["user_id"], active))
        demand += demand_of_profiles(rows, trending, now=interest.until, items=items)
        held += matrix.nnz
        if held >= limit:
            break
    order = np.argsort(np.concatenate(orders), kind="stable")
    interactions = sparse.csr_array(sparse.vstack(parts, format="csr")[order])
    kept = int(np.searchsorted(interactions.indptr, limit, side="right")) - 1
    # At least one user, even one with more than the limit.
    kept = max(kept, min(1, len(order)))
    some = pa.concat_tables(known).take(pa.array(order[:kept]))
    return Sample(sparse.csr_array(interactions[:kept]), some, demand)


def _known_of(users: pa.Table, user_ids: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Look up what is known of some of the users with a profile."""
    place = pc.index_in(user_ids.take(pa.array(rows)), value_set=users["user_id"])
    columns = {name: users[name].take(place) for name in ("locale", "properties")}
    return pa.table(columns, schema=pa.schema([USERS.schema.field(name) for name in columns]))
