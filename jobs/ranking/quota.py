"""The quota of new items over a batch's lists: who may get which one, and the lists with those that were placed.

The lists are ranked first and as without a quota. A new item takes the last slot of a full list and is put behind a
shorter one. Who is close is in exposure.py; what is read for it in quota_inputs.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths, list_column
from jobs.lake.scratch import Scratch
from jobs.ranking.capped_lists import Cap
from jobs.ranking.correlation_table import twin_groups
from jobs.ranking.csr_rows import nothing_in, row_of
from jobs.ranking.exposure import Placements, closeness
from jobs.ranking.item_facts import NO_KIND, ItemFacts
from jobs.ranking.recommend import Shared, caps_of
from jobs.ranking.rules import exclusion_matrix
from jobs.ranking.user_batch import UserBatch
from schemas.ranking_rules import RankingSettings
from schemas.tables import RECOMMENDATION_SOURCES, RECOMMENDATIONS

EXPOSURE: Final = RECOMMENDATION_SOURCES.index("exposure")
# Pairs of a recent item and a new one that are laid out at once: some 200 MB with their sorting.
_PAIRS_AT_ONCE: Final = 4_000_000
_NAME: Final = "quota"

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quota:
    """The new items of a night that were in too few mails so far.

    Shapes: items (new,), in item order, all of them eligible; wanted (new,), mails still to be had, above 0; close
            (items of the index, new), from close_items or same_category.
    """

    items: Int64s
    wanted: Int64s
    close: sparse.csr_array

    def save(self, folder: Path) -> None:
        """Write it for tasks to map."""
        scratch = Scratch(folder)
        scratch.save_array(f"{_NAME}.items", self.items)
        scratch.save_array(f"{_NAME}.wanted", self.wanted)
        scratch.save(f"{_NAME}.close", self.close)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what was written."""
        scratch = Scratch(folder)
        items, wanted = (scratch.load_array(f"{_NAME}.{part}") for part in ("items", "wanted"))
        return cls(items, wanted, scratch.load(f"{_NAME}.close"))


def open_pairs(
    batch: UserBatch, lists: pa.Table, quota: Quota, shared: Shared, settings: RankingSettings
) -> sparse.csr_array:
    """Say who may get which new item, and how close they are to it.

    Nobody whom a rule keeps the item from, or whose list has no room for its kind under a cap; nobody without a list,
    and nobody whose list has one of the new items already.
    Shapes: `lists` is what `recommend` gives for the batch; the answer (users, new), similarities.
    """
    found = _closeness(batch.interest, quota.close, _forbidden(batch, quota, shared.facts))
    counts = lengths(lists["item"])
    row, item = np.repeat(np.arange(len(counts)), counts), flat(lists["item"]).astype(np.int64)
    may = counts > 0
    may[row[np.isin(item, quota.items)]] = False
    stays = may[row_of(found)]
    last = np.cumsum(counts) - 1
    gives_way = np.zeros(len(item), np.bool_)
    gives_way[last[counts == settings.slots]] = True
    for cap in caps_of(settings, shared.facts):
        stays &= ~_is_full(found, row[~gives_way], item[~gives_way], quota.items, cap)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row_of(found)[stays], minlength=len(counts)))))
    return sparse.csr_array((found.data[stays], found.indices[stays], indptr), shape=found.shape)


def shown_already(lists: pa.Table, quota: Quota) -> Int64s:
    """Count the lists that have each new item without the quota.

    Shapes: (new,).
    """
    item = flat(lists["item"]).astype(np.int64)
    return np.bincount(np.searchsorted(quota.items, item[np.isin(item, quota.items)]), minlength=len(quota.items))


def with_new_items(
    lists: pa.Table, placed: Placements, similarity: npt.NDArray[np.float32], quota: Quota, slots: int
) -> pa.Table:
    """Put the placed items into the lists: in the last slot of a full one, behind a shorter one.

    Shapes: similarity (placed,), which becomes the score.
    """
    counts = lengths(lists["item"])
    end, is_full = np.cumsum(counts), counts[placed.user] == slots
    replaced, behind = end[placed.user[is_full]] - 1, end[placed.user[~is_full]]
    values: dict[str, npt.NDArray[Any]] = {
        "item": quota.items[placed.new],
        "score": similarity,
        "source": np.full(len(placed.user), EXPOSURE, np.int8),
    }
    columns = {name: lists[name] for name in lists.schema.names}
    longer = counts + np.bincount(placed.user[~is_full], minlength=len(counts))
    for name, value in values.items():
        elements = flat(lists[name]).copy()
        elements[replaced] = value[is_full]
        columns[name] = list_column(RECOMMENDATIONS, name, np.insert(elements, behind, value[~is_full]), longer)
    return pa.table(columns, schema=RECOMMENDATIONS.schema)


def placed_in(lists: pa.Table, quota: Quota) -> Placements:
    """Read back from lists who was given which new item; those that are not new are left out."""
    source, row = flat(lists["source"]), np.repeat(np.arange(len(lists)), lengths(lists["item"]))
    item = flat(lists["item"]).astype(np.int64)
    found = np.flatnonzero((source == EXPOSURE) & np.isin(item, quota.items))
    return Placements(row[found], np.searchsorted(quota.items, item[found]))


def similarities(pairs: sparse.csr_array, placed: Placements) -> npt.NDArray[np.float32]:
    """Look up how close the placed pairs are; 0 where a pair may not be placed.

    Shapes: pairs (users, new), from `open_pairs`; the answer (placed,).
    """
    columns = np.int64(pairs.shape[1])
    keys, wanted = row_of(pairs) * columns + pairs.indices, placed.user * columns + placed.new
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys, wanted, sorter=order)
    found = np.zeros(len(wanted), np.float32)
    inside = np.flatnonzero(place < len(keys))
    hit = inside[keys[order[place[inside]]] == wanted[inside]]
    found[hit] = pairs.data[order[place[hit]]]
    return found


def _closeness(recent: sparse.csr_array, close: sparse.csr_array, forbidden: sparse.csr_array) -> sparse.csr_array:
    """Compute closeness some users at a time, so that what is laid out is bounded."""
    pairs = np.concatenate(([0], np.cumsum(np.diff(close.indptr)[recent.indices])))[recent.indptr]
    parts: list[sparse.csr_array] = [nothing_in(0, close.shape[1])]
    first = 0
    while first < recent.shape[0]:
        last = int(np.searchsorted(pairs, pairs[first] + _PAIRS_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), recent.shape[0])
        parts.append(closeness(recent[first:last], close, forbidden[first:last]))
        first = last
    found: sparse.csr_array = sparse.vstack(parts, format="csr")
    return found


def _forbidden(batch: UserBatch, quota: Quota, facts: ItemFacts) -> sparse.csr_array:
    """Mark the new items that a rule keeps from a user: the item itself, or its group of twins."""
    groups, new = twin_groups(facts), np.arange(len(quota.items))
    excluded = exclusion_matrix(batch.excluded, facts.twins, len(batch), groups)
    group = facts.twins[quota.items].astype(np.int64)
    has_twins = group != NO_KIND
    rows = np.concatenate((quota.items, len(facts.twins) + group[has_twins]))
    columns = np.concatenate((new, new[has_twins]))
    chosen = sparse.coo_array((np.ones(len(rows), np.float32), (rows, columns)), (excluded.shape[1], len(new)))
    forbidden: sparse.csr_array = sparse.csr_array(excluded @ chosen.tocsr())
    return forbidden


def _is_full(pairs: sparse.csr_array, row: Int64s, item: Int64s, new: Int64s, cap: Cap) -> Bools:
    """Mark the pairs whose list holds as many items of the new one's kind as a cap allows."""
    size = np.int64(cap.kind.max(initial=0)) + 1
    kind = cap.kind[item].astype(np.int64)
    held, times = np.unique((row * size + kind)[kind != NO_KIND], return_counts=True)
    wanted = cap.kind[new[pairs.indices]].astype(np.int64)
    full: Bools = (wanted != NO_KIND) & np.isin(row_of(pairs) * size + wanted, held[times >= cap.most])
    return full
