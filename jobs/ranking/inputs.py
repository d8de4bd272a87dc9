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
from jobs.ranking.correlation_table import correlation_table, items_of_groups
from jobs.ranking.fallback import ladder
from jobs.ranking.item_facts import NO_KIND, ItemFacts, item_facts
from jobs.ranking.quota import Quota
from jobs.ranking.quota_inputs import QuotaInputs, quota_inputs
from jobs.ranking.recommend import Shared, near_matrix
from jobs.ranking.starter_items import starter_rows
from jobs.ranking.trending import EVERYTHING
from jobs.ranking.user_batch import UserBatch
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.ranking_rules import FallbackStep, RankingSettings
from schemas.tables import CORRELATIONS, HYBRID_USERS, TRENDING, Table

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

    `correlations` is None for campaigns of what is back in stock; `earlier_catalogs` are theirs. `trending` and
    `starters` (lists by the users' features) are what the fallback ladder has; where there is one, `users` are read,
    so that users without a profile get something too. `quota` is None for campaigns without one.
    """

    date: dt.date
    profiles: Manifest
    catalog: Manifest
    correlations: Manifest | None
    earlier_catalogs: tuple[Manifest, ...] = ()
    trending: Manifest | None = None
    starters: Manifest | None = None
    users: Manifest | None = None
    quota: QuotaInputs | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """All of them."""
        some = (self.profiles, self.catalog, self.correlations, self.trending, self.starters, self.users)
        quota = self.quota.manifests if self.quota else ()
        return [manifest for manifest in (*some, *self.earlier_catalogs, *quota) if manifest is not None]

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

    def shared(self, lake: Lake, settings: RankingSettings, *, only: Int64s | None = None) -> Shared:
        """Read what all users are ranked with; `only` for users whose recent items are among these.

        Memory: with `only` a file of correlations and the rows of these items, otherwise all of them.
        """
        facts, table = self.facts(lake, settings), None
        if self.correlations is not None and settings.candidates.kind == "correlations":
            columns = ["item", "other_item", "score"]
            parts = (lake.read_file(self.correlations, entry, columns) for entry in self.correlations.files)
            if only is not None:
                wanted = pa.array(only, pa.int32())
                parts = (part.filter(pc.is_in(part["item"], value_set=wanted)) for part in parts)
            table = correlation_table(parts, facts, settings.candidates.neighbours)
        steps = ladder(settings.fallback_steps, self._lists(lake), facts)
        return Shared(facts, near_matrix(table, facts), table, steps, items_of_groups(facts))

    def read_quota(self, lake: Lake, campaign: str, facts: ItemFacts) -> Quota | None:
        """Read which new items are to be shown, and to whom they are close; None if there is nothing to be done."""
        return self.quota.read(lake, self.catalog, campaign, facts) if self.quota else None

    def _lists(self, lake: Lake) -> dict[FallbackStep, pa.Table]:
        """Read the lists of the fallback ladder, by step."""
        lists: dict[FallbackStep, pa.Table] = {}
        if self.starters is not None:
            lists["hybrid"] = lake.read(self.starters)
        if self.trending is not None:
            trending = lake.read(self.trending)
            is_everybodys = pc.equal(trending["key"], EVERYTHING)
            lists["trending"] = trending.filter(is_everybodys)
            lists["trending_in_categories"] = trending.filter(pc.invert(is_everybodys))
        return lists

    def batch(self, users: RankedUsers, settings: RankingSettings, shared: Shared) -> UserBatch:
        """Judge some users at the end of the date."""
        return UserBatch.of(users.profiles, settings, len(shared.facts.dropped_by), self.now)

    def users_of_bucket(self, lake: Lake, bucket: int) -> tuple[RankedUsers, int]:
        """Read a bucket's users; say as well how many have no profile."""
        profiles = lake.read(self.profiles, bucket=bucket)
        count = len(profiles)
        group = np.full(len(profiles), NO_KIND, np.int64)
        if self.users is not None:
            columns = ["user_id", *(["locale", "properties"] if self.starters is not None else [])]
            users = lake.read(self.users, columns=columns, bucket=bucket)
            profiles, (row,) = with_rows_for(profiles, [users["user_id"]])
            group = np.full(len(profiles), NO_KIND, np.int64)
            if self.starters is not None:
                group[row] = starter_rows(users, lake.read(self.starters, columns=["key"]))
        return RankedUsers(profiles, group), len(profiles) - count


def ranking_inputs(lake: Lake, date: dt.date, campaign: str, settings: RankingSettings) -> RankingInputs:
    """Find the partitions that a campaign's lists are made from.

    Raises: EmptyPartitionError if one is not there, or there are no correlations of the last 14 days.
    """
    profiles, catalog = lake.manifest(Partition("profiles", date)), lake.manifest(Partition("catalog", date))
    correlations: Manifest | None = None
    earlier: tuple[Manifest, ...] = ()
    if settings.candidates.kind == "correlations":
        correlations = _latest(lake, CORRELATIONS, date, campaign)
        if correlations is None:
            raise EmptyPartitionError(
                f"no correlations of {date} or the {CORRELATIONS_MAX_AGE_DAYS} days before it; run train_correlations"
            )
    else:
        days = (date - dt.timedelta(days=back) for back in range(1, settings.candidates.out_days + 1))
        found = (lake.find(Partition("catalog", day)) for day in days)
        earlier = tuple(manifest for manifest in found if manifest is not None)
    steps = settings.fallback_steps
    has_trending = "trending" in steps or "trending_in_categories" in steps
    trending = _latest(lake, TRENDING, date, campaign) if has_trending else None
    starters = _latest(lake, HYBRID_USERS, date, campaign) if "hybrid" in steps else None
    users = lake.find(Partition("users", date)) if trending or starters else None
    quota = quota_inputs(lake, date, campaign, settings.exposure) if settings.has_quota else None
    return RankingInputs(date, profiles, catalog, correlations, earlier, trending, starters, users, quota)


def _latest(lake: Lake, table: Table, date: dt.date, campaign: str) -> Manifest | None:
    return lake.latest(table.name, up_to=date, campaign=campaign, days=CORRELATIONS_MAX_AGE_DAYS)


def _was_out(lake: Lake, catalog: pa.Table, earlier: tuple[Manifest, ...]) -> pa.ChunkedArray:
    """Find the items of a catalog that were sold out, or not in the catalog, on one of the days before."""
    was_out = np.zeros(len(catalog), np.bool_)
    for manifest in earlier:
        before = lake.read(manifest, columns=["item_id", "stock"])
        in_stock = before.filter(pc.greater(before["stock"], 0))["item_id"]
        was_out |= ~pc.is_in(catalog["item_id"], value_set=in_stock.combine_chunks()).to_numpy()
    return catalog["item_id"].filter(pa.array(was_out))
