"""The quota's two passes over batches of users: rank and count who is close; then place each batch's share.

Between them a batch's lists and close pairs lie in the run's folder, so that nothing is ranked twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import feather

from jobs.lake.lake import Lake
from jobs.lake.list_columns import lengths
from jobs.lake.scratch import Scratch
from jobs.ranking.exposure import place_new_items, share_out
from jobs.ranking.inputs import RankingInputs
from jobs.ranking.quota import Quota, open_pairs, shown_already, similarities, with_new_items
from jobs.ranking.recommend import recommend
from jobs.ranking.shared_inputs import load_shared
from schemas.ranking_rules import RankingSettings

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Room:
    """What the first pass counts of one bucket's batches.

    Shapes: users (batches, new), how many may get each new item; shown (new,), lists that have it anyway.
    """

    users: Int64s
    shown: Int64s


@dataclass(frozen=True)
class Shares:
    """How many lists of each batch each new item is to be put into, by bucket. Shapes: (batches, new) each."""

    by_bucket: tuple[Int64s, ...]

    @classmethod
    def of(cls, quota: Quota, rooms: Iterable[Room]) -> Self:
        """Share out what is wanted, less what the lists have without the quota."""
        found = list(rooms)
        shown = np.sum([room.shown for room in found], axis=0, dtype=np.int64)
        users = np.concatenate([room.users for room in found])
        shared = share_out(np.maximum(quota.wanted - shown, 0), users)
        ends = np.cumsum([len(room.users) for room in found])
        return cls(tuple(np.split(shared, ends[:-1])))


def rank_with_room(
    lake: Lake, inputs: RankingInputs, folder: Path, settings: RankingSettings, batch_users: int, bucket: int
) -> Room:
    """Rank a bucket's users as without a quota, keep the lists in the folder, and count who may get what."""
    shared, quota, scratch = load_shared(folder), Quota.load(folder), Scratch(folder)
    users, _ = inputs.users_of_bucket(lake, bucket)
    room, shown = [np.empty((0, len(quota.items)), np.int64)], np.zeros(len(quota.items), np.int64)
    for number, first in enumerate(range(0, len(users.profiles), batch_users)):
        some = users.slice(first, batch_users)
        batch = inputs.batch(some, settings, shared)
        lists = recommend(batch, shared, settings, some.features)
        pairs = open_pairs(batch, lists, quota, shared, settings)
        feather.write_feather(lists, str(_lists_path(folder, bucket, number)))
        scratch.save(_pairs_name(bucket, number), pairs)
        room.append(np.bincount(pairs.indices, minlength=len(quota.items))[None])
        shown += shown_already(lists, quota)
    return Room(np.concatenate(room), shown)


def place_in_batch(
    folder: Path, bucket: int, number: int, quota: Quota, shares: Shares, settings: RankingSettings
) -> pa.Table:
    """Read a batch's lists back and put its share of new items into them."""
    lists = feather.read_table(str(_lists_path(folder, bucket, number)))
    pairs, share = Scratch(folder).load(_pairs_name(bucket, number)), shares.by_bucket[bucket][number]
    placed = place_new_items(pairs, share, lengths(lists["item"]), settings.exposure.max_slot_share)
    return with_new_items(lists, placed, similarities(pairs, placed), quota, settings.slots)


def _lists_path(folder: Path, bucket: int, number: int) -> Path:
    return folder / f"lists-{bucket}-{number}.arrow"


def _pairs_name(bucket: int, number: int) -> str:
    return f"pairs-{bucket}-{number}"
