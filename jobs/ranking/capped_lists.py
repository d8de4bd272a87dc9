"""Row-wise top n under caps: at most so many items of one category or brand in a list, exact and the same every time.

The list is what walking down the full ranking gives that takes an item unless its kind is full. The walk needs as many
ranked items as it passes over, so it starts with a few more than n; rows that come to the end of what was ranked, and
were not through, are ranked again four times as deep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.ranking.csr_rows import nothing_in, row_of, stacked
from jobs.ranking.item_facts import NO_KIND
from jobs.ranking.sparse_product import ranked_product

_MARGIN: Final = 4  # ranked beyond n at first
_DEEPER: Final = 4
TAKEN: Final = -1
NOT_REACHED: Final = -2

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cap:
    """At most `most` items of one kind. Shapes: kind (items,), codes; items of NO_KIND are not capped."""

    name: str
    most: int
    kind: npt.NDArray[np.int32]


def capped_product(
    a: sparse.csr_array,
    b: sparse.csr_array,
    n: int,
    caps: Sequence[Cap],
    started: sparse.csr_array | None = None,
) -> sparse.csr_array:
    """Give each row of A · B its best, until with those it has `started` with it holds n.

    Shapes: a (rows, k), b (k, columns), as `check_finite` let through; started and the answer (rows, columns).
    The answer is ordered like top_n_product's and does not repeat what was started with.
    """
    if started is None:
        started = nothing_in(a.shape[0], b.shape[1])
    if not caps and started.nnz == 0:
        return ranked_product(a, b, n)
    columns = b.shape[1]
    open_rows, depth = np.arange(a.shape[0]), min(n + _MARGIN, columns)
    found: list[tuple[Int64s, npt.NDArray[np.int32], npt.NDArray[np.float32]]] = []
    while len(open_rows):
        is_all = len(open_rows) == a.shape[0]
        ranked = ranked_product(a if is_all else a[open_rows], b, depth)
        fate, taken = walk(ranked, n, caps, started if is_all else started[open_rows])
        cut_off = (taken < n) & (np.diff(ranked.indptr) == depth) & (depth < columns)
        row = row_of(ranked)
        keep = (fate == TAKEN) & ~cut_off[row]
        found.append((open_rows[row[keep]], ranked.indices[keep], ranked.data[keep]))
        open_rows, depth = open_rows[cut_off], min(depth * _DEEPER, columns)
    return stacked(found, a.shape[0], columns)


def walk(
    ranked: sparse.csr_array, n: int, caps: Sequence[Cap], started: sparse.csr_array
) -> tuple[npt.NDArray[np.int8], Int64s]:
    """Walk down all rows at once, a place at a time.

    Returns what became of each entry (TAKEN, NOT_REACHED or the position of the cap that was full) and how many each
    row then holds, those that it started with included.
    """
    count, fate = np.diff(ranked.indptr), np.full(ranked.nnz, NOT_REACHED, np.int8)
    taken = np.diff(started.indptr).astype(np.int64)
    held = [_kinds_held(cap, started, n) for cap in caps]
    for place in range(int(count.max(initial=0))):
        rows = np.flatnonzero((count > place) & (taken < n))
        if len(rows) == 0:
            break
        entry = ranked.indptr[rows] + place
        item, met = ranked.indices[entry], np.full(len(rows), TAKEN, np.int8)
        for position, (cap, kinds) in reversed(list(enumerate(zip(caps, held, strict=True)))):
            kind = cap.kind[item]
            is_full = (kind != NO_KIND) & ((kinds[rows] == kind[:, None]).sum(axis=1) >= cap.most)
            met[is_full] = position
        fate[entry] = met
        rows, item = rows[met == TAKEN], item[met == TAKEN]
        for cap, kinds in zip(caps, held, strict=True):
            kinds[rows, taken[rows]] = cap.kind[item]
        taken[rows] += 1
    return fate, taken


def _kinds_held(cap: Cap, started: sparse.csr_array, n: int) -> npt.NDArray[np.int32]:
    """The kinds of what the rows hold, side by side; places that are free hold NO_KIND, which is never compared."""
    count = np.diff(started.indptr)
    kinds = np.full((started.shape[0], n), NO_KIND, np.int32)
    row = np.repeat(np.arange(started.shape[0]), count)
    kinds[row, np.arange(started.nnz) - np.repeat(started.indptr[:-1], count)] = cap.kind[started.indices]
    return kinds
