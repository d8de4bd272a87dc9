"""The one sparse product: row-wise top n of A · B, exact and the same every time, with the terms of each sum counted.

One compiled loop (jobs/compiled.py): a row's sums and the number of their terms stand side by side in one array, a
heap keeps the n best, and nothing else of the product is ever there. Sums are added up in the order of A's row, in
single precision, so that they do not depend on blocks or threads; equal ones are ordered by column.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.compiled import compiled, plain, prefetch
from schemas.errors import GateError

Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]

_NOT_FINITE: Final = "a score or weight is not finite, so nothing was ranked; train the correlations again"
# How far ahead a row of B is asked for: where it starts first, then its first lines of the cache. Of 40 million
# interactions, 30 a row, waiting for them was half of all time; nearer, farther or fewer lines save less.
_START_AHEAD: Final = 12
_ROW_AHEAD: Final = 6
_LINES: Final = 4
_OF_A_LINE: Final = 16  # numbers of four bytes

_FIRST_ROOM: Final = 64  # entries a row that room is made for at first; it doubles when they do not suffice


@dataclass(frozen=True)
class TopProducts:
    """The best of each row, and how many terms each of their sums has.

    Shapes: lists (rows, columns), best first; terms is parallel to lists.data.
    """

    lists: sparse.csr_array
    terms: Int32s


def top_n_product(
    a: sparse.csr_array, b: sparse.csr_array, n: int, *, threads: int = 1, names: Int32s | None = None
) -> sparse.csr_array:
    """Give each row of A · B its n largest positive scores, best first, equal ones by column.

    Shapes: a (rows, k), b (k, columns); the answer (rows, columns), float32.
            names (columns,): which column of the answer each column of b is, where they stand in another order.
    Raises: GateError if a sum is not finite: one NaN would rank first for everybody.
    """
    return top_products(a, b, n, threads=threads, names=names).lists


def check_finite(*matrices: sparse.csr_array) -> None:
    """Let no score or weight pass that is infinite or not a number.

    Raises: GateError if there is one.
    """
    if not all(np.isfinite(matrix.data).all() for matrix in matrices):
        raise GateError(_NOT_FINITE)


def top_products(
    a: sparse.csr_array,
    b: sparse.csr_array,
    n: int,
    *,
    threads: int = 1,
    names: Int32s | None = None,
    counted: int | None = None,
    least_terms: int = 0,
    own: int | None = None,
) -> TopProducts:
    """Do what top_n_product does, and count.

    Terms are those with one of the first `counted` rows of B (all of them unless it says so); sums of fewer than
    `least_terms` are left out, and of row r the column own + r.
    Units: terms below 2^24.
    """
    rows, columns = a.shape[0], b.shape[1]
    names = np.arange(columns, dtype=np.int32) if names is None else names
    left = plain(a.indptr, np.int64), plain(a.indices, np.int32), plain(a.data, np.float32)
    right = plain(b.indptr, np.int64), plain(b.indices, np.int32), plain(b.data, np.float32)
    rules = (
        plain(names, np.int32), b.shape[0] if counted is None else counted, least_terms,
        -columns - rows if own is None else own, min(n, columns),
    )  # fmt: skip
    edges = np.linspace(0, rows, threads + 1).astype(np.int64).tolist()

    def multiply(first: int, last: int) -> tuple[npt.NDArray[np.int64], Int32s, Float32s, Int32s]:
        is_finite, *found = _best_of_rows(first, last, *left, *right, *rules, _FIRST_ROOM * (last - first))
        if not is_finite:
            raise GateError(_NOT_FINITE)
        length, column, score, terms = found
        return length, column, score, terms

    if threads == 1:
        parts = [multiply(0, rows)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(multiply, edges[:-1], edges[1:]))
    counts, column, score, terms = (np.concatenate(side) for side in zip(*parts, strict=True))
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return TopProducts(sparse.csr_array((score, column, indptr), shape=(rows, columns)), terms)


@compiled
def _best_of_rows(  # type: ignore[no-untyped-def]  # Numba finds the types: arrays as `top_products` makes them
    first, last, a_start, a_item, a, b_start, b_column, b, names, counted, least_terms, own, n, room,
):  # fmt: skip
    columns = len(names)
    # A sum and its count in one line of the processor's cache. What is not counted adds beyond the counts.
    sums = np.zeros(2 * columns, np.float32)
    counts = sums.view(np.int32)
    uncounted = np.int32(1 << 24)
    used = np.empty(columns + 1, np.int32)
    best, best_column, best_terms = np.empty(n, np.float32), np.empty(n, np.int32), np.empty(n, np.int32)
    length = np.zeros(last - first, np.int64)
    out_column, out_score, out_terms = np.empty(room, np.int32), np.empty(room, np.float32), np.empty(room, np.int32)
    written, is_finite = 0, True
    for row in range(first, last):
        found = 0
        for place in range(a_start[row], a_start[row + 1]):
            if place + _START_AHEAD < len(a_item):
                prefetch(b_start, a_item[place + _START_AHEAD])
                ahead = b_start[a_item[place + _ROW_AHEAD]]
                for entry in range(ahead, min(ahead + _LINES * _OF_A_LINE, len(b_column)), _OF_A_LINE):
                    prefetch(b_column, entry)
                    prefetch(b, entry)
            of, weight = a_item[place], a[place]
            one = np.int32(1) if of < counted else uncounted
            for entry in range(b_start[of], b_start[of + 1]):
                column = b_column[entry]
                # Without a branch: whether a column is new cannot be foreseen, and to find out takes a look at memory.
                used[found] = column
                found += counts[2 * column + 1] == 0
                sums[2 * column] += weight * b[entry]
                counts[2 * column + 1] += one

        held = 0
        for place in range(found):
            column = used[place]
            score, terms = sums[2 * column], counts[2 * column + 1] & np.int32((1 << 24) - 1)
            sums[2 * column], counts[2 * column + 1] = np.float32(0), np.int32(0)
            is_finite &= -np.inf < score < np.inf
            if score <= 0 or terms < least_terms or (held == n and score < best[0]):
                continue
            name = names[column]
            if name != own + row:
                held = _offer(best, best_column, best_terms, held, score, name, terms)

        while written + held > len(out_column):
            more = len(out_column)
            out_column = np.concatenate((out_column, np.empty(more, np.int32)))
            out_score = np.concatenate((out_score, np.empty(more, np.float32)))
            out_terms = np.concatenate((out_terms, np.empty(more, np.int32)))
        length[row - first] = held
        # The heap gives its worst first.
        for left in range(held - 1, -1, -1):
            to = written + left
            out_column[to], out_score[to], out_terms[to] = best_column[0], best[0], best_terms[0]
            _sift(best, best_column, best_terms, left, best[left], best_column[left], best_terms[left])
        written += held
    return is_finite, length, out_column[:written].copy(), out_score[:written].copy(), out_terms[:written].copy()


@compiled
def _offer(best, best_column, best_terms, held, score, column, terms):  # type: ignore[no-untyped-def]
    """Put an entry into the heap of the best, whose worst stands first; return how many it holds then."""
    if held == len(best):
        if held > 0 and (score > best[0] or column < best_column[0]):
            _sift(best, best_column, best_terms, held, score, column, terms)
        return held
    place = held
    while place > 0:
        above = (place - 1) // 2
        if best[above] < score or (best[above] == score and best_column[above] > column):
            break
        best[place], best_column[place], best_terms[place] = best[above], best_column[above], best_terms[above]
        place = above
    best[place], best_column[place], best_terms[place] = score, column, terms
    return held + 1


@compiled
def _sift(best, best_column, best_terms, held, score, column, terms):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the heap's first, of `held` entries."""
    place = 0
    while True:
        below = 2 * place + 1
        if below >= held:
            break
        other = below + 1
        if other < held and (
            best[other] < best[below] or (best[other] == best[below] and best_column[other] > best_column[below])
        ):
            below = other
        if best[below] > score or (best[below] == score and best_column[below] < column):
            break
        best[place], best_column[place], best_terms[place] = best[below], best_column[below], best_terms[below]
        place = below
    best[place], best_column[place], best_terms[place] = score, column, terms


def by_popularity(b: sparse.csr_array) -> tuple[sparse.csr_array, Int32s]:
    """Put the columns of B into the order of how often they come, and name them.

    The product adds up into one number a column; where the common ones stand together, these stay in the processor's
    cache.
    """
    names = np.argsort(-np.bincount(b.indices, minlength=b.shape[1]), kind="stable").astype(np.int32)
    place = np.empty_like(names)
    place[names] = np.arange(len(names), dtype=np.int32)
    return sparse.csr_array((b.data, place[b.indices], b.indptr), shape=b.shape), names
