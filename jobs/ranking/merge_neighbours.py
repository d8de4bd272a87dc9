"""Where the hybrid's neighbours stand beside those of co-occurrence, by how many users speak for a pair.

The rule, for an item with fewer than `little_support` users (any other keeps its list as it is):

1. A pair with at least `enough_support` users in common speaks for itself: its score stays, and nothing that has
   fewer comes before it or takes its place.
2. A pair with s users in common, fewer than that, is w x co-occurrence + (1 - w) x scale x similarity, with
   w = s / enough_support.
3. A pair that only the hybrid knows is scale x similarity.

What 2 and 3 give is capped just below the item's weakest pair of 1. `scale` is what a similarity of 1 is worth: the
score of a typical 20th neighbour, since scores of co-occurrence have no unit of their own.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.lake.list_columns import rank_within
from jobs.ranking.neighbours import CO_OCCURRENCE, Neighbours, rows_of
from schemas.tables import CORRELATION_SOURCES

HYBRID: Final = CORRELATION_SOURCES.index("hybrid")
BOTH: Final = CORRELATION_SOURCES.index("both")
_TYPICAL_RANK: Final = 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MergeRule:
    """The numbers of the rule."""

    little_support: int
    enough_support: int
    scale: float


def typical_score(lists: sparse.csr_array) -> float:
    """Say what a similarity of 1 is worth: the median score of 20th neighbours, or of the last in shorter lists.

    Shapes: lists (some items, items), best first, such as every hundredth item's. Without any list it is 1.
    """
    counts = np.diff(lists.indptr)
    some = np.flatnonzero(counts)
    if len(some) == 0:
        return 1.0
    return float(np.median(lists.data[lists.indptr[some] + np.minimum(counts[some], _TYPICAL_RANK) - 1]))


def merge_hybrid(
    found: Neighbours,
    similar: sparse.csr_array,
    similar_support: npt.NDArray[np.int32],
    users_of_item: Ints,
    *,
    rule: MergeRule,
    depth: int,
) -> Neighbours:
    """Merge the hybrid's neighbours of a block of items into those of co-occurrence.

    Shapes: similar (block, items), the hybrid's cosines; similar_support parallel to similar.data, the users that each
            pair has in common; users_of_item (block,), the users of each item of the block. The answer has up to
            `depth` pairs an item, best first, ties by item.
    """
    items = found.lists.shape[1]
    row, other, score = rows_of(found.lists), found.lists.indices.astype(np.int64), found.lists.data.astype(np.float64)
    support = found.support.astype(np.int64)
    little = users_of_item < rule.little_support
    hybrid_row, hybrid_other = rows_of(similar), similar.indices.astype(np.int64)
    asked = little[hybrid_row]
    hybrid_key = (hybrid_row * items + hybrid_other)[asked]
    hybrid_score, hybrid_support = similar.data[asked].astype(np.float64), similar_support[asked].astype(np.int64)

    key = row * items + other
    order = np.argsort(hybrid_key)
    place = np.searchsorted(hybrid_key[order], key)
    place_in_bounds = np.minimum(place, max(len(order) - 1, 0))
    matched = hybrid_key[order][place_in_bounds] == key if len(order) else np.zeros(len(key), np.bool_)
    similarity = np.zeros(len(key))
    similarity[matched] = hybrid_score[order][place_in_bounds[matched]]
    is_weak = little[row] & (support < rule.enough_support)
    w = support / rule.enough_support
    score = np.where(is_weak, w * score + (1 - w) * rule.scale * similarity, score)
    source = np.where(is_weak & matched, BOTH, CO_OCCURRENCE)

    new = ~np.isin(hybrid_key, key)
    row = np.concatenate((row, hybrid_key[new] // items))
    other = np.concatenate((other, hybrid_key[new] % items))
    score = np.concatenate((score, rule.scale * hybrid_score[new]))
    support = np.concatenate((support, hybrid_support[new]))
    source = np.concatenate((source, np.full(int(new.sum()), HYBRID)))
    is_weak = np.concatenate((is_weak, np.ones(int(new.sum()), np.bool_)))
    capped = _capped(row, score, is_weak, len(users_of_item))
    return _ranked(row, other, capped, support, source, depth, found.lists.shape)


def _capped(
    row: Ints, score: npt.NDArray[np.float64], is_weak: npt.NDArray[np.bool_], rows: int
) -> npt.NDArray[np.float32]:
    """Keep weak pairs below the row's weakest pair that speaks for itself."""
    single = score.astype(np.float32)
    weakest = np.full(rows, np.inf, np.float32)
    np.minimum.at(weakest, row[~is_weak], single[~is_weak])
    below = np.nextafter(weakest[row], np.float32(0))
    return np.where(is_weak, np.minimum(single, below), single)


def _ranked(
    row: Ints,
    other: Ints,
    score: npt.NDArray[np.float32],
    support: Ints,
    source: npt.NDArray[np.int64],
    depth: int,
    shape: tuple[int, int],
) -> Neighbours:
    order = np.lexsort((other, -score, row))
    order = order[(score > 0)[order]]
    order = order[rank_within(row[order]) < depth]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[order], minlength=shape[0]))))
    lists = sparse.csr_array((score[order], other[order].astype(np.int32), indptr), shape=shape)
    return Neighbours(lists, support[order].astype(np.int32), source[order].astype(np.int8))
