"""What the gate of the correlations looks at beyond their form: the very table, as it lies there to be published."""

import hashlib
import io
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from jobs.backtest.contest import AT, popular_lists
from jobs.backtest.recompute import Evidence, rows_that_differ
from jobs.lake.lake import Attempt
from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.lake.manifest import FileEntry
from jobs.quality.figures import Figures, Observed, observe
from jobs.ranking.capped_lists import capped_lists
from jobs.ranking.item_model import ItemModel
from jobs.ranking.neighbours import rows_of
from jobs.ranking.sparse_product import check_finite
from schemas.contracts import CONTRACTS
from schemas.errors import StorageError
from schemas.item_models import ItemModelSettings
from schemas.tables import CORRELATIONS

SAMPLED_ROWS: Final = 8  # of a block of 2,000 items; each costs 1 to 20 ms
_SAMPLED_USERS: Final = 2_000
LEAST_USERS: Final = 100  # with fewer a hit rate is a matter of luck
_SEED: Final = 20_260_101

TOO_FEW: Final = {"hit_rate_of_popularity": f"fewer than {LEAST_USERS} users have three items"}


def sampled_items(first: int, last: int) -> npt.NDArray[np.int64]:
    """Spread a few items over a block, the same ones every time."""
    return np.unique(np.linspace(first, last - 1, min(SAMPLED_ROWS, last - first)).astype(np.int64))


def look_at(
    rows: pa.Table, block: tuple[int, int], evidence: Evidence, model: ItemModelSettings, *, depth: int,
    min_support: int, fitted: ItemModel, little_support: int = 0,
) -> Observed:  # fmt: skip
    """Count what one file of the table holds, and make some of its rows once more.

    `block` is the first item that the file is about, and the one after its last.
    """
    observed, sample = observe(CONTRACTS[CORRELATIONS.name], rows), sampled_items(*block)
    item, others = rows["item"].to_numpy(), flat(rows["other_item"])
    items = evidence.by_users.shape[1]
    observed.sums["pairs"] = len(others)
    observed.sums["self_neighbours"] = int((np.repeat(item, lengths(rows["other_item"])) == others).sum())
    observed.sums["items_not_in_index"] = _outside(item, items) + _outside(others, items)
    observed.sums["rows_recomputed"] = len(sample)
    different = rows_that_differ(
        rows,
        sample,
        evidence,
        model,
        depth=depth,
        min_support=min_support,
        fitted=fitted,
        little_support=little_support,
    )
    observed.sums["rows_recomputed_differently"] = len(different)
    return observed


def figures_of_table(observed: Observed, interactions: sparse.csr_array, hit_rate: float | None) -> Figures:
    """Turn the counts of all files into figures."""
    counted = ("self_neighbours", "items_not_in_index", "rows_recomputed", "rows_recomputed_differently")
    # Counted, because finding the different ones of tens of millions by sorting took a tenth of the training.
    items_of_users = np.count_nonzero(np.bincount(interactions.indices, minlength=interactions.shape[1]))
    return {
        "items_with_neighbours_share": observed.sums["rows"] / items_of_users,
        **{name: observed.sums[name] for name in counted},
        **({} if hit_rate is None else {"hit_rate_of_popularity": hit_rate}),
    }


def _outside(item: npt.NDArray[np.int32], items: int) -> int:
    return int(((item < 0) | (item >= items)).sum())


def read_back(attempt: Attempt, entry: FileEntry) -> pa.Table:
    """Read a file of the attempt from where it lies.

    Raises: StorageError if it is not what was written.
    """
    data = attempt.lake.storage.read(f"{attempt.folder}/{entry.name}")
    if data is None or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StorageError(
            f"{attempt.lake.uri}/{attempt.folder}/{entry.name} is missing or not what was just written; nothing was "
            "published. Look at the disk, and run the job again"
        )
    return pq.read_table(io.BytesIO(data), page_checksum_verification=True).cast(CORRELATIONS.schema)


def as_matrix(parts: Iterable[pa.Table], items: int) -> sparse.csr_array:
    """Lay tables of correlations, in item order, out as one matrix (items, items); each row keeps its order."""
    tables = list(parts)
    item = np.concatenate([np.repeat(rows["item"].to_numpy(), lengths(rows["other_item"])) for rows in tables])
    score, other = (np.concatenate([flat(rows[name]) for rows in tables]) for name in ("score", "other_item"))
    # What is no item, or no number, is counted elsewhere, and stops the table there.
    keep = np.isfinite(score) & (other >= 0) & (other < items) & (item < items)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(item[keep], minlength=items))))
    return sparse.csr_array((score[keep], other[keep], indptr), shape=(items, items))


def hit_rate_of_popularity(interactions: sparse.csr_array, correlations: sparse.csr_array) -> float | None:
    """Hide one item of each sampled user; say how many times as often as the popular items the lists find it.

    Shapes: interactions (users, items), correlations (items, items). None where too few users have three items.
    The table was trained with what is hidden, so that this is a floor and no measure of quality: the backtest is that.
    """
    users = np.flatnonzero(np.diff(interactions.indptr) >= 3)  # one is hidden, two speak for it
    if len(users) < LEAST_USERS:
        return None
    chosen = interactions[users[np.linspace(0, len(users) - 1, min(_SAMPLED_USERS, len(users))).astype(np.int64)]]
    row = rows_of(chosen)
    draws = np.random.default_rng(_SEED).random(chosen.nnz)
    hidden = np.zeros(chosen.nnz, np.bool_)
    order = np.lexsort((draws, row))
    hidden[order[rank_within(row[order]) == 0]] = True
    history, truth = _part(chosen, ~hidden), chosen.indices[hidden]
    ones = sparse.csr_array((np.ones(history.nnz, np.float32), history.indices, history.indptr), shape=history.shape)
    check_finite(correlations)
    ranked = capped_lists(ones, correlations, history, AT)
    popular = _hits(popular_lists(interactions, ones, AT), truth)
    # Where not even one user likes what all like, one hit is enough to be better.
    return _hits(ranked, truth) / max(popular, 0.5)


def _hits(ranked: sparse.csr_array, truth: npt.NDArray[np.int32]) -> int:
    return int((ranked.indices == truth[rows_of(ranked)]).sum())


def _part(matrix: sparse.csr_array, keep: npt.NDArray[np.bool_]) -> sparse.csr_array:
    counts = np.bincount(rows_of(matrix)[keep], minlength=matrix.shape[0])
    indptr = np.concatenate(([0], np.cumsum(counts)))
    return sparse.csr_array((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
