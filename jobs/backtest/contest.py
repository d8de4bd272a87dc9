"""Measure models on one split: full ranking, with the exclusions that serving applies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from jobs.backtest.split import Split
from jobs.lake.list_columns import rank_within
from jobs.ranking.capped_lists import capped_lists
from jobs.ranking.item_model import fit
from jobs.ranking.metrics import RankingFigures, measure
from jobs.ranking.neighbours import Together, co_occurring, rows_of
from jobs.ranking.sparse_product import check_finite
from schemas.item_models import ItemModelSettings
from schemas.training import TrainingSettings

AT: Final = 20  # lists are as long as those that get published; measures count up to here
SHORT_DEPTH: Final = 20  # items per list of the published table
_BLOCK_ITEMS: Final = 2_000
_USERS: Final = 10_000  # test users that are ranked at a time


@dataclass(frozen=True)
class Entry:
    """One model of the contest and how it did."""

    model: str
    role: str
    figures: RankingFigures


def label(settings: ItemModelSettings) -> str:
    """Name a model by its kind and settings; what is 0 or not there is left out."""
    return _named(settings.model_dump())


def _named(values: Mapping[str, Any]) -> str:
    parts = [str(values["kind"])]
    for name, value in values.items():
        if name == "kind" or not value:
            continue
        if isinstance(value, Mapping):
            parts.append(f"+ ({_named(value)})")
        else:
            parts.append(f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}")
    return " ".join(parts)


def correlations_of(
    learn: sparse.csr_array, settings: ItemModelSettings, training: TrainingSettings, together: Together
) -> sparse.csr_array:
    """Fit a model and lay its lists out as the published table would.

    Shapes: learn (users, items), of which `together` was made; the answer (items, items), each row best first.
    """
    model, items = fit(learn, settings, by_items=together.by_items), learn.shape[1]
    blocks = [
        co_occurring(
            model, together, first, min(first + _BLOCK_ITEMS, items), depth=training.depth,
            min_support=training.min_support,
        ).lists
        for first in range(0, items, _BLOCK_ITEMS)
    ]  # fmt: skip
    return stacked(blocks)


def stacked(blocks: list[sparse.csr_array]) -> sparse.csr_array:
    """Put the lists of blocks one below the other, each in its own order."""
    indptr = np.concatenate([np.zeros(1, np.int64), np.concatenate([np.diff(block.indptr) for block in blocks])])
    return sparse.csr_array(
        (
            np.concatenate([block.data for block in blocks]),
            np.concatenate([block.indices for block in blocks]),
            np.cumsum(indptr),
        ),
        shape=(sum(block.shape[0] for block in blocks), blocks[0].shape[1]),
    )


def shortened(lists: sparse.csr_array, depth: int) -> sparse.csr_array:
    """Keep the first `depth` of each row."""
    row = rows_of(lists)
    keep = rank_within(row) < depth
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[keep], minlength=lists.shape[0]))))
    return sparse.csr_array((lists.data[keep], lists.indices[keep], indptr), shape=lists.shape)


def measured(correlations: sparse.csr_array, split: Split) -> RankingFigures:
    """Rank for every test user as serving does, and compare with what they took up."""
    check_finite(correlations, split.history)
    known_by = _known_by(split.learn)
    ranked = [
        capped_lists(split.history[rows], correlations, split.excluded[rows], AT) for rows in _batches(split.test_users)
    ]
    return measure(stacked(ranked), split.truth, AT, known_by).figures()


def measured_popularity(split: Split) -> RankingFigures:
    """Show every test user the most popular items, but for what is excluded for them."""
    return measure(popular_lists(split.learn, split.excluded, AT), split.truth, AT, _known_by(split.learn)).figures()


def popular_lists(learn: sparse.csr_array, excluded: sparse.csr_array, n: int) -> sparse.csr_array:
    """Give each user the n items that most users have, without the excluded ones; ties by item.

    Shapes: learn (users, items), excluded (test users, items); the answer (test users, items), best first.
    """
    items = learn.shape[1]
    counts = np.bincount(learn.indices, minlength=items).astype(np.float32)
    # Nobody gets further down the list than n places and as many as are excluded for them.
    reach = min(items, n + int(np.diff(excluded.indptr).max(initial=0)))
    top = np.lexsort((np.arange(items), -counts))[:reach]
    top = top[counts[top] > 0]
    popular = sparse.csr_array(
        (counts[top], top.astype(np.int32), np.array([0, len(top)], np.int32)), shape=(1, items), dtype=np.float32
    )
    everybody = sparse.csr_array(np.ones((excluded.shape[0], 1), np.float32))
    return capped_lists(everybody, popular, excluded, n)


def _known_by(learn: sparse.csr_array) -> npt.NDArray[np.float64]:
    return np.bincount(learn.indices, minlength=learn.shape[1]) / max(learn.shape[0], 1)


def _batches(users: int) -> list[slice]:
    return [slice(first, min(first + _USERS, users)) for first in range(0, users, _USERS)]
