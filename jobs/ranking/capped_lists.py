"""Row-wise best n of A · B without what is ruled out, under caps: exact, and the same every time.

A list is what walking down a row's full ranking gives that takes an item unless its kind is full: at most so many items
of one category or brand. Nothing of the product is ever there but one row's candidates, some hundreds, in a hash table
that fits into the processor's first cache; a product into one number a column, as packages have it, waits for the
second and third cache instead (docs/decisions/044).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.compiled import compiled, plain, prefetch
from jobs.ranking.item_facts import NO_KIND

TAKEN: Final = -1
NOT_REACHED: Final = -2

_FREE: Final = -1  # a place of the hash table that holds no item
_MARGIN: Final = 4  # candidates sorted beyond n at first; a row whose caps pass over more is sorted again
_DEEPER: Final = 4
# Of the next user's recent items, so many lines of the cache of each one's scores are asked for: 50 neighbours and 14
# more, for they seldom begin with a line. Without it a seventh of the time is spent waiting.
_LINES: Final = 4
_OF_A_LINE: Final = 16  # numbers of four bytes

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cap:
    """At most `most` items of one kind. Shapes: kind (items,), codes; items of NO_KIND are not capped."""

    name: str
    most: int
    kind: Int32s


def capped_lists(
    interest: sparse.csr_array,
    scores: sparse.csr_array,
    ruled_out: sparse.csr_array,
    n: int,
    *,
    caps: Sequence[Cap] = (),
    twins: sparse.csr_array | None = None,
    started: sparse.csr_array | None = None,
    threads: int = 1,
) -> sparse.csr_array:
    """Give each row of interest · scores its best items, until with those it has `started` with it holds n.

    Shapes: interest (rows, k); scores (k, items); ruled_out (rows, items + groups): what no row may have, by item or by
    group; twins (groups, items), the items of each group; started and the answer (rows, items).
    Only sums above 0 count. Best first, equal ones by item; what a row started with is not repeated.
    All values have to be finite (see sparse_product.check_finite).
    """
    rows, items = interest.shape[0], scores.shape[1]
    kinds = np.stack([cap.kind for cap in caps]) if caps else np.empty((0, items), np.int32)
    shared = (
        *_parts(scores), plain(scores.data, np.float32),
        *(_parts(twins) if twins is not None else (np.zeros(1, np.int64), _NOTHING)),
        plain(kinds, np.int32), plain(np.array([cap.most for cap in caps], np.int64), np.int64),
    )  # fmt: skip
    held = _parts(started) if started is not None else (plain(np.zeros(rows + 1), np.int64), _NOTHING)
    per_row = (*_parts(interest), plain(interest.data, np.float32), *_parts(ruled_out), *held)
    item, score, count = np.empty((rows, n), np.int32), np.empty((rows, n), np.float32), np.zeros(rows, np.int64)

    def rank(first: int, last: int) -> None:
        _rank_rows(first, last, *per_row, *shared, n, item, score, count)

    edges = np.linspace(0, rows, threads + 1).astype(np.int64).tolist()
    if threads == 1:
        rank(0, rows)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rank, edges[:-1], edges[1:]))
    listed = np.arange(n) < count[:, None]
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(count, out=indptr[1:])
    return sparse.csr_array((score[listed], item[listed], indptr), shape=(rows, items))


def fates(ranked: sparse.csr_array, n: int, caps: Sequence[Cap]) -> npt.NDArray[np.int8]:
    """Walk down rows that are ranked already; say what became of each entry.

    The answer is parallel to ranked.data: TAKEN, the position of the cap that was full, or NOT_REACHED.
    """
    fate = np.full(ranked.nnz, NOT_REACHED, np.int8)
    if caps:
        kinds, most = np.stack([cap.kind for cap in caps]), np.array([cap.most for cap in caps], np.int64)
        _walk_rows(*_parts(ranked), plain(kinds, np.int32), plain(most, np.int64), n, fate)
    return fate


_NOTHING: Final = plain(np.empty(0), np.int32)


def _parts(matrix: sparse.csr_array) -> tuple[Int64s, Int32s]:
    return plain(matrix.indptr, np.int64), plain(matrix.indices, np.int32)


@compiled
def _rank_rows(  # type: ignore[no-untyped-def]  # Numba finds the types: arrays as `capped_lists` makes them
    first, last,
    interest_start, interest_of, interest, out_start, out_item, held_start, held_item,
    score_start, score_item, score, twin_start, twin_item, kinds, most,
    n, list_item, list_score, list_count,
):  # fmt: skip
    items, caps = kinds.shape[1], kinds.shape[0]
    size, shift = 2048, np.uint32(21)  # 2^11 places: 11 bits of a hash
    keys, sums, used = np.full(size, _FREE, np.int32), np.zeros(size, np.float32), np.empty(size, np.uint32)
    key, bits = np.empty(size, np.uint64), sums.view(np.uint32)
    best, best_item = np.empty(n + _MARGIN, np.uint64), np.empty(n + _MARGIN, np.int32)
    bits_of_score = np.empty(1, np.uint32)
    score_of_bits = bits_of_score.view(np.float32)
    fate, kept = np.empty(n + _MARGIN, np.int8), np.empty((caps, n), np.int32)
    never = np.float32(-np.inf)
    for row in range(first, last):
        # Of the second next user where the scores start, of the next one the scores.
        if row + 2 < last:
            for place in range(interest_start[row + 2], interest_start[row + 3]):
                prefetch(score_start, interest_of[place])
            for place in range(interest_start[row + 1], interest_start[row + 2]):
                ahead = score_start[interest_of[place]]
                for entry in range(ahead, min(ahead + _LINES * _OF_A_LINE, len(score_item)), _OF_A_LINE):
                    prefetch(score_item, entry)
                    prefetch(score, entry)
        # At most half of the places are ever used, so that a free one is near; of most users' an eighth.
        bound = held_start[row + 1] - held_start[row]
        for place in range(out_start[row], out_start[row + 1]):
            group = out_item[place] - items
            bound += 1 if group < 0 else twin_start[group + 1] - twin_start[group]
        for place in range(interest_start[row], interest_start[row + 1]):
            of = interest_of[place]
            bound += score_start[of + 1] - score_start[of]
        bound = min(bound, items)
        if 2 * bound > size:
            while 2 * bound > size:
                size, shift = size * 2, np.uint32(shift - np.uint32(1))
            keys, sums, used = np.full(size, _FREE, np.int32), np.zeros(size, np.float32), np.empty(size, np.uint32)
            key, bits = np.empty(size, np.uint64), sums.view(np.uint32)

        found = 0
        # What is ruled out goes first: whatever is added to minus infinity stays there.
        for place in range(out_start[row], out_start[row + 1]):
            group = out_item[place] - items
            if group < 0:
                slot, found = _enter(keys, used, found, out_item[place], shift)
                sums[slot] = never
            else:
                for member in range(twin_start[group], twin_start[group + 1]):
                    slot, found = _enter(keys, used, found, twin_item[member], shift)
                    sums[slot] = never
        for place in range(held_start[row], held_start[row + 1]):
            slot, found = _enter(keys, used, found, held_item[place], shift)
            sums[slot] = never
        for place in range(interest_start[row], interest_start[row + 1]):
            of, weight = interest_of[place], interest[place]
            for entry in range(score_start[of], score_start[of + 1]):
                slot, found = _enter(keys, used, found, score_item[entry], shift)
                sums[slot] += weight * score[entry]

        candidates = 0
        for place in range(found):
            slot = used[place]
            # One number to be compared: the bits of positive scores are in the order of the scores themselves, and of
            # equal ones the larger has the smaller item.
            key[candidates] = (np.uint64(bits[slot]) << np.uint64(32)) | np.uint64(np.uint32(~keys[slot]))
            candidates += sums[slot] > 0
            keys[slot], sums[slot] = _FREE, np.float32(0)

        held = held_start[row + 1] - held_start[row]
        depth = n + _MARGIN
        while True:
            ranked = _best(key, candidates, depth, best, best_item)
            for cap in range(caps):
                for place in range(held):
                    kept[cap, place] = kinds[cap, held_item[held_start[row] + place]]
            holds = _walk(best_item, 0, ranked, kinds, most, kept, held, n, fate)
            if holds >= n or ranked == candidates:
                break
            depth *= _DEEPER
            if depth > len(best):
                best, best_item = np.empty(depth, np.uint64), np.empty(depth, np.int32)
                fate = np.empty(depth, np.int8)
        count = 0
        for place in range(ranked):
            if fate[place] == TAKEN:
                bits_of_score[0] = best[place] >> np.uint64(32)
                list_item[row, count], list_score[row, count] = best_item[place], score_of_bits[0]
                count += 1
        list_count[row] = count


@compiled
def _walk_rows(start, item, kinds, most, n, fate):  # type: ignore[no-untyped-def]
    kept = np.empty((len(kinds), n), np.int32)
    for row in range(len(start) - 1):
        _walk(item, start[row], start[row + 1], kinds, most, kept, 0, n, fate)


@compiled
def _enter(keys, used, found, item, shift):  # type: ignore[no-untyped-def]
    """Find an item's place in the hash table, or take a free one (Fibonacci hashing, linear probing).

    Returns the place, and how many places are used.
    """
    # Unsigned, or Numba looks whether a place counts from the end.
    slot = np.uint64(np.uint32(np.uint32(item) * np.uint32(2654435769)) >> shift)
    key = keys[slot]
    while (key != item) & (key != _FREE):
        slot = (slot + np.uint64(1)) & np.uint64(len(keys) - 1)
        key = keys[slot]
    # Without a branch: whether an item is new cannot be foreseen, and that cost a seventh of all time.
    used[found], keys[slot] = slot, item
    return slot, found + (key == _FREE)


@compiled
def _best(key, candidates, depth, best, best_item):  # type: ignore[no-untyped-def]
    """Sort the best candidates of a row, at most `depth`, and name their items; return how many."""
    ranked = 0
    for place in range(candidates):
        one = key[place]
        if ranked == depth:
            if one < best[ranked - 1]:
                continue
            ranked -= 1
        to = ranked
        while to > 0 and best[to - 1] < one:
            best[to] = best[to - 1]
            to -= 1
        best[to] = one
        ranked += 1
    for place in range(ranked):
        best_item[place] = ~np.uint32(best[place] & np.uint64(0xFFFFFFFF))
    return ranked


@compiled
def _walk(item, start, stop, kinds, most, kept, holds, n, fate):  # type: ignore[no-untyped-def]
    """Walk down a row's items start…stop-1; `kept` are the kinds of what it holds. Return how many it holds then."""
    for place in range(start, stop):
        fate[place] = NOT_REACHED
        if holds == n:
            continue
        full = -1
        for cap in range(len(kinds)):
            kind = kinds[cap, item[place]]
            if kind != NO_KIND:
                same = 0
                for other in range(holds):
                    same += kept[cap, other] == kind
                if same >= most[cap]:
                    full = cap
                    break
        if full >= 0:
            fate[place] = full
            continue
        fate[place] = TAKEN
        for cap in range(len(kinds)):
            kept[cap, holds] = kinds[cap, item[place]]
        holds += 1
    return holds
