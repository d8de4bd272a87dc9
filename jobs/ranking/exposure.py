"""The quota of new items: who gets which one, in which slot. Pure functions over one batch of users.

Each new item has to be in `min_sends` mails within `within_days`; what past receipts say it had is taken off. An item
goes only to users with a recent item that is close to it, at most one new item a user, into the last slot of their
list or behind a short one, and all of them together take at most `max_slot_share` of the slots. What a night has no
room for is left to the next ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.lake.list_columns import rank_within
from jobs.ranking.item_vectors import LENGTH, Vectors
from schemas.cold_start import ExposureSettings

_BLOCK_SCORES: Final = 8_000_000  # similarities that are there at once: 32 MB

Int64s = npt.NDArray[np.int64]


def close_items(vectors: Vectors, new_items: Int64s, min_similarity: float) -> sparse.csr_array:
    """Say which items each new item is close to.

    Shapes: vectors (items, components); new_items (new,); the answer (items, new), cosines of at least min_similarity.
    """
    columns = vectors[new_items].astype(np.float32).T
    blocks = []
    for rows in _row_blocks(len(vectors), len(new_items)):
        similarity = (vectors[rows].astype(np.float32) @ columns) / np.float32(LENGTH * LENGTH)
        similarity[similarity < min_similarity] = 0
        blocks.append(sparse.csr_array(similarity))
    close: sparse.csr_array = sparse.vstack(blocks, format="csr")
    return close


def same_category(paths: npt.NDArray[np.integer[Any]], new_items: Int64s, none: int) -> sparse.csr_array:
    """Stand in for close_items where there is no hybrid model: items of the same category are close.

    Shapes: paths (items,), each item's category by number, or `none`; the answer (items, new), ones.
    """
    blocks = []
    for rows in _row_blocks(len(paths), len(new_items)):
        is_same = (paths[rows, None] == paths[new_items]) & (paths[rows] != none)[:, None]
        blocks.append(sparse.csr_array(is_same.astype(np.float32)))
    same: sparse.csr_array = sparse.vstack(blocks, format="csr")
    return same


def closeness(recent: sparse.csr_array, close: sparse.csr_array, forbidden: sparse.csr_array) -> sparse.csr_array:
    """Say how close each user is to each new item: the largest similarity to one of their recent items.

    Shapes: recent (users, items), an entry for each of a user's recent items; close (items, new); forbidden (users,
            new), an entry where a rule of the campaign keeps the item from the user. The answer (users, new).
    """
    rows, columns = recent.shape[0], close.shape[1]
    # No sparse product takes the maximum: every user, item and new item together, then the largest of each.
    per_item = np.diff(close.indptr)[recent.indices]
    user = np.repeat(np.repeat(np.arange(rows), np.diff(recent.indptr)), per_item)
    start = np.repeat(close.indptr[recent.indices], per_item)
    place = start + np.arange(len(user)) - np.repeat(np.cumsum(per_item) - per_item, per_item)
    new, similarity = close.indices[place].astype(np.int64), close.data[place]
    order = np.lexsort((-similarity, new, user))
    user, new, similarity = user[order], new[order], similarity[order]
    first = rank_within(user * columns + new) == 0
    rule_row = np.repeat(np.arange(rows), np.diff(forbidden.indptr))
    allowed = first & ~np.isin(user * columns + new, rule_row * columns + forbidden.indices)
    user, new, similarity = user[allowed], new[allowed], similarity[allowed]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(user, minlength=rows))))
    return sparse.csr_array((similarity, new.astype(np.int32), indptr), shape=(rows, columns))


def _row_blocks(items: int, new: int) -> Iterator[slice]:
    size = max(1, _BLOCK_SCORES // max(new, 1))
    yield from (slice(first, first + size) for first in range(0, items, size))


def sends_wanted(sends: Int64s, settings: ExposureSettings) -> Int64s:
    """Say how many more mails each new item has to be in; `sends` (new,) are those of the last within_days."""
    return np.maximum(settings.min_sends - sends, 0)


def share_out(wanted: Int64s, room: Int64s) -> Int64s:
    """Share what is wanted out to batches, in proportion to the users that each batch has close to an item.

    Shapes: wanted (new,); room (batches, new), users close to each new item; the answer (batches, new), never more than
            the room, in total what is wanted or all the room there is. What is left over by rounding goes to the
            largest remainders, ties to the first batch.
    """
    total = room.sum(axis=0)
    wanted = np.minimum(wanted, total)
    exact = room * wanted  # x total: whole numbers, so nothing depends on rounding
    parts = exact // np.maximum(total, 1)
    left = wanted - parts.sum(axis=0)
    remainder = np.where(parts < room, exact - parts * total, -1)
    order = np.argsort(-remainder, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(room))[:, None], axis=0)
    shared: Int64s = parts + (rank < left)
    return shared


@dataclass(frozen=True)
class Placements:
    """Which users of a batch get which new item: parallel, by user."""

    user: Int64s
    new: Int64s


def place_new_items(close: sparse.csr_array, quota: Int64s, list_lengths: Int64s, max_slot_share: float) -> Placements:
    """Choose who gets which new item: the closest pairs first, one a user, no item beyond its quota.

    Shapes: close (users, new), from `closeness`; quota (new,); list_lengths (users,), slots that are filled
            already. Users without a list get none. At most floor(max_slot_share x filled slots) placements.
    """
    budget = int(np.floor(max_slot_share * int(list_lengths.sum()) + 1e-9))
    user = np.repeat(np.arange(close.shape[0]), np.diff(close.indptr))
    open_ = (list_lengths[user] > 0) & (quota[close.indices] > 0)
    user, new, similarity = user[open_], close.indices[open_].astype(np.int64), close.data[open_]
    chosen_user, chosen_new = np.empty(0, np.int64), np.empty(0, np.int64)
    quota = quota.copy()
    # Each round offers every user their closest item that still has quota, and gives an item to its closest users. It
    # fills an item or serves everybody who is left, so there are at most as many rounds as new items.
    while len(user) and budget > len(chosen_user):
        order = np.lexsort((new, -similarity, user))
        mine = order[rank_within(user[order]) == 0]
        by_item = mine[np.lexsort((user[mine], -similarity[mine], new[mine]))]
        taken = by_item[rank_within(new[by_item]) < quota[new[by_item]]]
        taken = taken[np.lexsort((new[taken], user[taken], -similarity[taken]))][: budget - len(chosen_user)]
        chosen_user, chosen_new = np.concatenate((chosen_user, user[taken])), np.concatenate((chosen_new, new[taken]))
        quota -= np.bincount(new[taken], minlength=len(quota))
        stays = ~np.isin(user, user[taken]) & (quota[new] > 0)
        user, new, similarity = user[stays], new[stays], similarity[stays]
    order = np.argsort(chosen_user)
    return Placements(chosen_user[order], chosen_new[order])
