"""Rows of the correlation table made once more, straight from the interactions and by another road.

The table comes from float32 products of whole blocks, cut, joined, written and read again. Here one row at a time is
summed in double precision over the users of the item, without any code of the models; then every number of the
published row must be there, and nothing better may be missing. A table that is transposed, shuffled or shifted by one
item, however plausible its scores, does not pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.lake.list_columns import flat, lengths
from jobs.lake.scratch import Scratch
from jobs.ranking.cooccurrence import POPULAR_ITEMS
from jobs.ranking.item_model import ItemModel
from jobs.ranking.neighbours import CO_OCCURRENCE
from schemas.item_models import CooccurrenceModel, ItemModelSettings

# Sums of up to a million float32 products; two roads differ by less.
_RELATIVE: Final = 1e-3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """The interactions from both sides, and what the formula needs of their rows and columns.

    Shapes: by_users (users, items) and by_items (items, users) hold the same weights.
    """

    by_users: sparse.csr_array
    by_items: sparse.csr_array
    user_squares: Floats
    item_squares: Floats

    @classmethod
    def of(cls, interactions: sparse.csr_array) -> "Evidence":
        """Turn interactions (users, items) to both sides."""
        by_items = interactions.T.tocsr()
        return cls(interactions, by_items, _squares(interactions), _squares(by_items))

    def save(self, scratch: Scratch, name: str) -> None:
        """Write both sides under a name."""
        scratch.save(f"{name}.by_users", self.by_users)
        scratch.save(f"{name}.by_items", self.by_items)
        scratch.save_array(f"{name}.user_squares", self.user_squares)
        scratch.save_array(f"{name}.item_squares", self.item_squares)

    @classmethod
    def load(cls, scratch: Scratch, name: str) -> "Evidence":
        """Map what `save` wrote."""
        squares = (scratch.load_array(f"{name}.{side}_squares") for side in ("user", "item"))
        return cls(scratch.load(f"{name}.by_users"), scratch.load(f"{name}.by_items"), *squares)

    def support(self, item: int) -> Floats:
        """Count the users that each item has in common with one."""
        rows = self.by_users[self.by_items[[item]].indices]
        return np.bincount(rows.indices, minlength=self.by_users.shape[1]).astype(np.float64)

    def formula(self, settings: ItemModelSettings) -> Callable[[int], Floats] | None:
        """Give what correlates one item with all by the model's formula; None for a model that has none for one row.

        What it needs of all items is worked out once: powers of 200,000 numbers take longer than a row.
        """
        if not isinstance(settings, CooccurrenceModel) or settings.sharpening > 0:
            return None
        degree = self.item_squares + settings.shrinkage
        degree[degree == 0] = 1.0  # an item that nobody has is with none
        own, others = degree**-settings.item_exponent, degree**-settings.other_exponent
        share = self.item_squares / self.item_squares.sum()
        share[np.lexsort((np.arange(len(share)), -share))[POPULAR_ITEMS:]] = 0

        def scores(item: int) -> Floats:
            column = self.by_items[[item]]
            rows = self.by_users[column.indices]
            weight = column.data.astype(np.float64) * self.user_squares[column.indices] ** -settings.user_exponent
            terms = np.repeat(weight, np.diff(rows.indptr)) * rows.data
            together = np.bincount(rows.indices, terms, minlength=self.by_users.shape[1])
            found: Floats = together * own[item] * others
            if settings.popularity > 0:
                found += settings.popularity * found.sum() * share
            return found

        return scores


def rows_that_differ(
    rows: pa.Table, items: npt.NDArray[np.int64], evidence: Evidence, settings: ItemModelSettings, *, depth: int,
    min_support: int, fitted: ItemModel, little_support: int = 0,
) -> list[int]:  # fmt: skip
    """Make the lists of some items once more; return those that are not what the table has.

    Items without a row have an empty list. `fitted` answers for a model that has no formula for one row, such as EASE.
    Items with fewer users than `little_support` have lists that were merged with the hybrid's: of these the support
    alone is made once more.
    """
    place = {int(item): number for number, item in enumerate(rows["item"].to_numpy())}
    starts = np.concatenate(([0], np.cumsum(lengths(rows["other_item"]))))
    other, score, support, source = (flat(rows[name]) for name in ("other_item", "score", "support", "source"))
    formula, different = evidence.formula(settings), []
    for item in items.tolist():
        number = place.get(item)
        listed = slice(0, 0) if number is None else slice(int(starts[number]), int(starts[number + 1]))
        if not _is_same(item, other[listed], score[listed], support[listed], source[listed], evidence, formula, depth,
                        min_support, fitted, little_support):  # fmt: skip
            different.append(item)
    return different


def _is_same(
    item: int, other: npt.NDArray[np.int32], score: npt.NDArray[np.float32], support: npt.NDArray[np.int32],
    source: npt.NDArray[np.int8], evidence: Evidence, formula: Callable[[int], Floats] | None, depth: int,
    min_support: int, fitted: ItemModel, little_support: int,
) -> bool:  # fmt: skip
    together = evidence.support(item)
    if ((other < 0) | (other >= len(together))).any():
        return False
    if len(np.unique(other)) < len(other) or (other == item).any() or (together[other] != support).any():
        return False
    if together[item] < little_support:
        return bool((np.diff(score) <= 0).all())
    if (source != CO_OCCURRENCE).any():
        return False
    if formula is not None:
        expected = formula(item)
    else:
        expected = fitted.block(item, item + 1, len(together)).toarray()[0].astype(np.float64)
    may_be_listed = together >= min_support
    may_be_listed[item] = False
    may_be_listed &= expected > 0
    if not may_be_listed[other].all() or len(other) != min(depth, int(may_be_listed.sum())):
        return False
    if not np.allclose(score, expected[other], rtol=_RELATIVE, atol=0) or (np.diff(score) > 0).any():
        return False
    may_be_listed[other] = False
    best_missing = float(expected[may_be_listed].max(initial=0))
    return len(other) == 0 or best_missing <= float(score[-1]) * (1 + _RELATIVE)


def _squares(matrix: sparse.csr_array) -> Floats:
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(row, matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[0]).astype(np.float64)
