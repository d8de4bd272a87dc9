"""What a ranking is made from: which partitions, and what is read of them.

Whoever ranks or explains starts here, so that an explanation reads what the ranking read.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest, Window
from jobs.profiles.fold import with_rows_for
from jobs.ranking.correlation_table import correlation_table
from jobs.ranking.fallback import ladder
from jobs.ranking.item_facts import NO_KIND, ItemFacts, item_facts
from jobs.ranking.recommend import Shared, near_matrix
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.ranking_rules import RankingSettings
from schemas.tables import CORRELATIONS

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankedUsers:
    """The users of one bucket: their profiles, an empty one for those without, and their group in the step `hybrid`."""

    profiles: pa.Table
    features: Int64s

    def slice(self, first: int, length: int) -> Self:
        """Cut out a batch of them."""
        return type(self)(self.profiles.slice(first, length), self.features[first : first + length])


@dataclass(frozen=True)
class RankingInputs:
    """The partitions that one campaign's lists of one date are made from.

    `correlations` is None for campaigns of what is back in stock; `earlier_catalogs` are theirs. `users` are read
    where a step of the fallback ladder has lists, so that users without a profile get them too.
    """

    date: dt.date
    profiles: Manifest
    catalog: Manifest
    correlations: Manifest | None
    earlier_catalogs: tuple[Manifest, ...]
    users: Manifest | None

    @property
    def manifests(self) -> list[Manifest]:
        """All of them."""
        some = (self.profiles, self.catalog, self.correlations, self.users, *self.earlier_catalogs)
        return [manifest for manifest in some if manifest is not None]

    @property
    def now(self) -> int:
        """The instant at which users are judged: the end of the date, in microseconds."""
        return int(self.until.timestamp()) * 1_000_000

    @property
    def until(self) -> dt.datetime:
        """The end of the date."""
        return Window.of_days(self.date, self.date).end_at

    def facts(self, lake: Lake, settings: RankingSettings) -> ItemFacts:
        """Judge the items of the index by the date's catalog."""
        catalog = lake.read(self.catalog)
        was_out = _was_out(lake, catalog, self.earlier_catalogs) if self.correlations is None else None
        return item_facts(catalog, read_index(lake), settings, until=self.until, was_out=was_out)

    def shared(self, lake: Lake, settings: RankingSettings) -> Shared:
        """Read what all users are ranked with."""
        facts, table = self.facts(lake, settings), None
        if self.correlations is not None and settings.candidates.kind == "correlations":
            columns = ["item", "other_item", "score"]
            parts = (lake.read_file(self.correlations, entry, columns) for entry in self.correlations.files)
            table = correlation_table(parts, facts, settings.candidates.neighbours)
        return Shared(facts, near_matrix(table, facts), table, ladder(settings.fallback.steps, {}, facts))

    def users_of_bucket(self, lake: Lake, bucket: int) -> tuple[RankedUsers, int]:
        """Read a bucket's users; say as well how many have no profile."""
        profiles = lake.read(self.profiles, bucket=bucket)
        count = len(profiles)
        if self.users is not None:
            users = lake.read(self.users, columns=["user_id"], bucket=bucket)
            profiles, _ = with_rows_for(profiles, [users["user_id"]])
        return RankedUsers(profiles, np.full(len(profiles), NO_KIND, np.int64)), len(profiles) - count


def ranking_inputs(lake: Lake, date: dt.date, campaign: str, settings: RankingSettings) -> RankingInputs:
    """Find the partitions that a campaign's lists are made from.

    Raises: EmptyPartitionError if one is not there, or there are no correlations of the last 14 days.
    """
    profiles, catalog = lake.manifest(Partition("profiles", date)), lake.manifest(Partition("catalog", date))
    correlations: Manifest | None = None
    earlier: tuple[Manifest, ...] = ()
    if settings.candidates.kind == "correlations":
        correlations = lake.latest(CORRELATIONS.name, up_to=date, campaign=campaign, days=CORRELATIONS_MAX_AGE_DAYS)
        if correlations is None:
            raise EmptyPartitionError(
                f"no correlations of {date} or the {CORRELATIONS_MAX_AGE_DAYS} days before it; run train_correlations"
            )
    else:
        days = (date - dt.timedelta(days=back) for back in range(1, settings.candidates.out_days + 1))
        found = (lake.find(Partition("catalog", day)) for day in days)
        earlier = tuple(manifest for manifest in found if manifest is not None)
    return RankingInputs(date, profiles, catalog, correlations, earlier, None)


def _was_out(lake: Lake, catalog: pa.Table, earlier: tuple[Manifest, ...]) -> pa.ChunkedArray:
    """Find the items of a catalog that were sold out, or not in the catalog, on one of the days before."""
    was_out = np.zeros(len(catalog), np.bool_)
    for manifest in earlier:
        before = lake.read(manifest, columns=["item_id", "stock"])
        in_stock = before.filter(pc.greater(before["stock"], 0))["item_id"]
        was_out |= ~pc.is_in(catalog["item_id"], value_set=in_stock.combine_chunks()).to_numpy()
    return catalog["item_id"].filter(pa.array(was_out))
