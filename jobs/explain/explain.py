"""Explain lists from a run's own inputs: the same code that ranked judges every candidate again."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.explain.explanation import Cause, Dropped, Explanation, Kept
from jobs.explain.pinned_lake import PinnedLake
from jobs.lake.buckets import bucket_of
from jobs.lake.code_version import code_version
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.ranking.exposure import Placements
from jobs.ranking.inputs import RankedUsers, RankingInputs, ranking_inputs
from jobs.ranking.judge import Verdicts, judge
from jobs.ranking.quota import Quota, open_pairs, placed_in, similarities, with_new_items
from jobs.ranking.recommend import Shared, own_lists, recommend
from jobs.ranking.rules import IN_LIST, MAILED_EVENT, RULES
from jobs.ranking.user_batch import UserBatch
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.ranking_rules import RankingSettings
from schemas.tables import EVENT_TYPES, RECOMMENDATION_SOURCES

_NO_EVENT: Final = -1
_OWN: Final = ("history", "wishlist")


@dataclass(frozen=True)
class JudgedUsers:
    """Some users of one bucket with their published lists, and the verdict on every candidate of theirs."""

    batch: UserBatch
    lists: pa.Table
    verdicts: Verdicts
    is_reproduced: bool


@dataclass(frozen=True)
class Explainer:
    """One run of a campaign, opened with the settings and inputs that it was made with."""

    lake: Lake
    made: Manifest
    settings: RankingSettings
    inputs: RankingInputs
    shared: Shared
    quota: Quota | None
    index: pa.StringArray
    titles: dict[int, str]

    @classmethod
    def open(cls, lake: Lake, campaign: str, date: dt.date, user_id: str | None = None) -> Self:
        """Open a run; for one user with the correlations of their recent items alone, whatever the shop's size.

        Raises: EmptyPartitionError if it was never published; StorageError if one of its inputs is not there as it was.
        """
        made = lake.manifest(Partition("recommendations", date, campaign))
        pinned = PinnedLake.of(lake, made)
        settings = RankingSettings.model_validate(made.parameters)
        inputs = ranking_inputs(pinned, date, campaign, settings)
        index = read_index(pinned)
        catalog = pinned.read(inputs.catalog, columns=["item_id", "title"])
        titles = dict(zip(to_items(index, catalog["item_id"]).to_pylist(), catalog["title"].to_pylist(), strict=True))
        only = None
        if user_id is not None:
            users, _ = inputs.users_of_bucket(pinned, _bucket(pinned, user_id))
            profile = users.profiles.filter(pc.equal(users.profiles["user_id"], user_id))
            only = UserBatch.of(profile, settings, len(index), inputs.now).interest.indices.astype(np.int64)
        shared = inputs.shared(pinned, settings, only=only)
        quota = inputs.read_quota(pinned, campaign, shared.facts)
        return cls(pinned, made, settings, inputs, shared, quota, index, titles)

    def judge_bucket(self, bucket: int, user_ids: Sequence[str] | None = None) -> JudgedUsers:
        """Judge the candidates of a bucket's users, or of some of them."""
        users, _ = self.inputs.users_of_bucket(self.lake, bucket)
        lists = self.lake.read(self.made, bucket=bucket)
        if user_ids is not None:
            wanted = pa.array(user_ids, pa.string())
            rows = pc.indices_nonzero(pc.is_in(lists["user_id"], value_set=wanted)).cast(pa.int64())
            users = RankedUsers(users.profiles.take(rows), users.features[rows.to_numpy()])
            lists = lists.take(rows)
        batch = UserBatch.of(users.profiles, self.settings, len(self.index), self.inputs.now)
        again = recommend(batch, self.shared, self.settings, users.features)
        if self.quota is not None:
            again = self._with_new_items(again, lists, batch, self.quota)
        is_reproduced = again.select(["user_id", "item", "source"]).equals(lists.select(["user_id", "item", "source"]))
        return JudgedUsers(batch, lists, judge(batch, self.shared, self.settings, lists), is_reproduced)

    def _with_new_items(self, again: pa.Table, lists: pa.Table, batch: UserBatch, quota: Quota) -> pa.Table:
        """Place the new items that the published lists have, where they may be.

        Who of those that are close was chosen depends on everybody else's lists, so it is taken as it was.
        """
        placed = placed_in(lists, quota)
        close = similarities(open_pairs(batch, again, quota, self.shared, self.settings), placed)
        placed, close = Placements(placed.user[close > 0], placed.new[close > 0]), close[close > 0]
        return with_new_items(again, placed, close, quota, self.settings.slots)

    def explain(self, user_id: str) -> Explanation:
        """Explain one user's list.

        Raises: EmptyPartitionError if the run does not know the user.
        """
        judged = self.judge_bucket(_bucket(self.lake, user_id), [user_id])
        if len(judged.lists) == 0:
            raise EmptyPartitionError(
                f"{self.made.partition} has no user {user_id!r}; expected an id of the shop, as it was on that day. "
                "Users without any event are in it only if the campaign's fallback has lists for them"
            )
        [row] = judged.lists.to_pylist()
        return Explanation(
            user_id=user_id,
            campaign=str(self.made.partition.campaign),
            date=self.made.partition.date,
            outcome=row["outcome"],
            kept=tuple(self._kept(judged, row)),
            dropped=tuple(self._dropped(judged.verdicts)),
            notes=tuple(self._notes(judged)),
        )

    def _kept(self, judged: JudgedUsers, row: dict[str, list[float]]) -> list[Kept]:
        causes = self._causes(judged)
        found = []
        for item, score, source in zip(row["item"], row["score"], row["source"], strict=True):
            name = RECOMMENDATION_SOURCES[int(source)]
            because = causes(int(item)) if name in _OWN else ()
            boost = float(self.shared.facts.boost[int(item)])
            found.append(Kept(*self._named(int(item)), float(score), name, boost, because, self._why(int(item), name)))
        return found

    def _why(self, item: int, source: str) -> str | None:
        """Say of a new item how many mails it was short of; its score is how close it is to one of the user's own."""
        if source != "exposure" or self.quota is None or item not in self.quota.items:
            return None
        wanted = int(self.quota.wanted[np.searchsorted(self.quota.items, item)])
        return (
            f"a new item, shown to get {wanted} more of {self.settings.exposure.min_sends} mails within "
            f"{self.settings.exposure.within_days} days"
        )

    def _causes(self, judged: JudgedUsers):  # type: ignore[no-untyped-def]  # a function from item to its causes
        interest = judged.batch.interest
        own, weight = interest.indices.astype(np.int64), interest.data
        _, whole = own_lists(judged.batch, self.shared, self.settings)
        rows = None
        if self.shared.table is not None:
            rows = self.shared.table.rows(own, near=not bool(whole[0])).tocsc()

        def causes(item: int) -> tuple[Cause, ...]:
            if rows is None:
                alike = {int(place): 1.0 for place in np.flatnonzero(own == item)}
            else:
                column = slice(rows.indptr[item], rows.indptr[item + 1])
                alike = dict(zip(rows.indices[column].tolist(), rows.data[column].tolist(), strict=True))
            found = [
                Cause(*self._named(int(own[place])), similarity, float(weight[place]))
                for place, similarity in alike.items()
            ]
            return tuple(sorted(found, key=lambda cause: (-cause.similarity * cause.weight, cause.item_id)))

        return causes

    def _dropped(self, verdicts: Verdicts) -> list[Dropped]:
        causes = verdicts.causes
        found = []
        for place in np.flatnonzero(causes.rule != IN_LIST):
            event: tuple[str, str, str] | tuple[()] = ()
            if causes.item[place] != _NO_EVENT:
                kind = int(causes.event_type[place])
                name = "mailed" if kind == MAILED_EVENT else EVENT_TYPES[kind]
                at = dt.datetime.fromtimestamp(int(causes.at[place]) / 1e6, dt.UTC).isoformat(timespec="seconds")
                event = (name, self.index[int(causes.item[place])].as_py(), at)
            item_id, title = self._named(int(verdicts.item[place]))
            found.append(Dropped(item_id, title, float(verdicts.score[place]), RULES[int(causes.rule[place])], *event))
        return found

    def _named(self, item: int) -> tuple[str, str | None]:
        return self.index[item].as_py(), self.titles.get(item)

    def _notes(self, judged: JudgedUsers) -> list[str]:
        notes = []
        if self.made.code_version != code_version():
            notes.append(f"the list was made by code {self.made.code_version}, this is {code_version()}")
        if not judged.is_reproduced:
            notes.append("ranking the user again gives another list than the one that was published")
        return notes


def _bucket(lake: Lake, user_id: str) -> int:
    return int(bucket_of(pa.array([user_id]), lake.buckets)[0])
