"""What the quota of new items is made from: receipts of the days before, an earlier catalog, the hybrid's vectors."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

import numpy as np

from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.ranking.exposure import close_items, same_category, sends_wanted
from jobs.ranking.hybrid_tables import read_vectors
from jobs.ranking.item_facts import NO_KIND, ItemFacts
from jobs.ranking.new_items import new_items, new_since, past_sends
from jobs.ranking.quota import Quota
from schemas.cold_start import ExposureSettings
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS
from schemas.layout import Partition
from schemas.tables import CATALOG, HYBRID_FEATURES, HYBRID_ITEMS, RECEIPTS

# A catalog imported at once may be all new. Those that had the fewest mails are looked after first, the others on the
# nights after: so many new items bound what is kept of each user and each item.
MOST_ITEMS: Final = 500


@dataclass(frozen=True)
class QuotaInputs:
    """The partitions that a night's quota is made from; `vectors` and `model` are None where there is no hybrid."""

    settings: ExposureSettings
    receipts: tuple[Manifest, ...]
    earlier_catalog: Manifest | None
    vectors: Manifest | None
    model: Manifest | None

    @property
    def manifests(self) -> list[Manifest]:
        """All of them."""
        some = (*self.receipts, self.earlier_catalog, self.vectors, self.model)
        return [manifest for manifest in some if manifest is not None]

    def read(self, lake: Lake, catalog: Manifest, campaign: str, facts: ItemFacts) -> Quota | None:
        """Read the quota of a date's lists; None if no new item is short of mails.

        Memory: the vectors of all items, and one file of receipts.
        Raises: GateError if the vectors are not the model's.
        """
        date, index = catalog.partition.date, read_index(lake)
        columns = ["item_id", "stock", "created_at"]
        earlier = lake.read(self.earlier_catalog, columns=["item_id"]) if self.earlier_catalog else None
        rows = lake.read(catalog, columns=columns)
        items = new_items(rows, earlier, index, since=new_since(date, self.settings))
        items = items[facts.is_eligible[items]]
        wanted = sends_wanted(past_sends(lake, campaign, date, self.settings, items), self.settings)
        first = np.lexsort((items, -wanted))[:MOST_ITEMS]
        first = np.sort(first[wanted[first] > 0])
        items, wanted = items[first], wanted[first]
        if len(items) == 0:
            return None
        if self.vectors is None:
            return Quota(items, wanted, same_category(facts.path, items, NO_KIND))
        vectors = read_vectors(lake, self.vectors, len(index)).vectors
        return Quota(items, wanted, close_items(vectors, items, self.settings.min_similarity))


def receipts_before(date: dt.date, campaign: str, settings: ExposureSettings) -> list[Partition]:
    """Name the receipts that count as mails of late, newest first."""
    days = (date - dt.timedelta(days=back) for back in range(1, settings.within_days + 1))
    return [Partition(RECEIPTS.name, day, campaign) for day in days]


def catalog_before(date: dt.date, settings: ExposureSettings) -> Partition:
    """Name the catalog of the last day on which what it holds is not new any more."""
    return Partition(CATALOG.name, date - dt.timedelta(days=settings.new_within_days))


def quota_inputs(lake: Lake, date: dt.date, campaign: str, settings: ExposureSettings) -> QuotaInputs:
    """Find the partitions that a quota is made from; any of them may be missing."""
    found = (lake.find(partition) for partition in receipts_before(date, campaign, settings))
    receipts = tuple(manifest for manifest in found if manifest is not None)
    earlier = lake.find(catalog_before(date, settings))
    vectors = lake.latest(HYBRID_ITEMS.name, up_to=date, campaign=campaign, days=CORRELATIONS_MAX_AGE_DAYS)
    model = lake.find(Partition(HYBRID_FEATURES.name, vectors.partition.date, campaign)) if vectors else None
    return QuotaInputs(settings, receipts, earlier, vectors if model else None, model)
