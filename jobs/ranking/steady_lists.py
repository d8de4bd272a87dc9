"""The lists that are shown: the best few of each item, which change only where that is a gain."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.item_index import to_items
from jobs.lake.list_columns import flat, lengths, list_column, rank_within
from schemas.tables import PRODUCT_CORRELATIONS

SHOWN: Final = 20  # items of a list

Bools = npt.NDArray[np.bool_]


def shown_lists(
    correlations: pa.Table, before: pa.Table | None, index: pa.StringArray, min_gain: float
) -> tuple[pa.Table, float]:
    """Cut correlations to the lists that are shown; return them and their churn.

    An item of the list before stays unless one that was not there beats it by more than `min_gain`, relatively, by the
    scores of now. Order is by score alone. Churn is the share of the entries that were not there before, over the items
    that had a list (0 without any).
    """
    item = np.repeat(correlations["item"].to_numpy(), lengths(correlations["other_item"]))
    other, score = flat(correlations["other_item"]), flat(correlations["score"]).astype(np.float64)
    was_shown = stood_in(before, item, other, index)
    held = np.where(was_shown, score * (1 + min_gain), score)
    # Of equal ones, what was there stays; then the correlations' own order, which settles ties by item.
    order = np.lexsort((np.arange(len(item)), ~was_shown, -held, item))
    chosen = np.zeros(len(item), np.bool_)
    chosen[order[rank_within(item[order]) < SHOWN]] = True
    return _as_table(correlations, chosen, index), _churn(before, item[chosen], was_shown[chosen], index)


def stood_in(
    before: pa.Table | None,
    item: npt.NDArray[np.int32] | npt.NDArray[np.intp],
    other: npt.NDArray[np.int32],
    index: pa.StringArray,
) -> Bools:
    """Tell which pairs stood in the lists before."""
    if before is None:
        return np.zeros(len(item), np.bool_)
    items = np.int64(len(index))
    listed_item = np.repeat(to_items(index, before["item_id"]).to_numpy(), lengths(before["other_item_id"]))
    others = pa.chunked_array([chunk.flatten() for chunk in before["other_item_id"].chunks], pa.string())
    listed = to_items(index, others)
    known = listed_item.astype(np.int64) * items + listed.to_numpy()
    # Arrow's look-up: NumPy's isin finds the different ones of both sides first, five times as long for millions.
    found = pc.is_in(pa.array(item.astype(np.int64) * items + other), value_set=pa.array(known))
    return found.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def replaced_without_gain(correlations: pa.Table, shown: pa.Table, before: pa.Table | None, index: pa.StringArray,
                          min_gain: float) -> int:  # fmt: skip
    """Count the lists in which an item had to go for one that is no better by `min_gain`: none, if all is right.

    Looked at from the result: the weakest newcomer of a list against the strongest that had to go.
    """
    # As wide as a position: NumPy's ufunc.at is ten times as slow for any other index.
    item = np.repeat(correlations["item"].to_numpy().astype(np.intp), lengths(correlations["other_item"]))
    other, score = flat(correlations["other_item"]), flat(correlations["score"]).astype(np.float64)
    was, now = stood_in(before, item, other, index), stood_in(shown, item, other, index)
    size = len(index)
    gone, newcomer = np.full(size, -np.inf), np.full(size, np.inf)
    np.maximum.at(gone, item[was & ~now], score[was & ~now])
    np.minimum.at(newcomer, item[now & ~was], score[now & ~was])
    left_out = np.full(size, -np.inf)
    np.maximum.at(left_out, item[~was & ~now], score[~was & ~now])
    stayed = np.full(size, np.inf)
    np.minimum.at(stayed, item[was & now], score[was & now])
    # A list that changed for too little, or that did not change though the gain was there.
    return int(((newcomer <= gone * (1 + min_gain)) | (left_out > stayed * (1 + min_gain) * (1 + 1e-9))).sum())


def _as_table(correlations: pa.Table, chosen: Bools, index: pa.StringArray) -> pa.Table:
    row = np.repeat(np.arange(len(correlations)), lengths(correlations["other_item"]))
    counts = np.bincount(row[chosen], minlength=len(correlations))
    others = index.take(pa.array(flat(correlations["other_item"])[chosen]))
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    kind = PRODUCT_CORRELATIONS.schema.field("other_item_id").type
    parallel = {
        name: list_column(PRODUCT_CORRELATIONS, name, flat(correlations[name])[chosen], counts)
        for name in ("score", "support", "source")
    }
    return pa.table(
        {
            "item_id": pc.take(index, correlations["item"].combine_chunks()),
            "other_item_id": pa.ListArray.from_arrays(offsets, others, type=kind),
            **parallel,
        },
        schema=PRODUCT_CORRELATIONS.schema,
    )


def _churn(before: pa.Table | None, item: npt.NDArray[np.int32], stayed: Bools, index: pa.StringArray) -> float:
    if before is None:
        return 0.0
    had_list = np.zeros(len(index), np.bool_)
    had_list[to_items(index, before["item_id"]).to_numpy()] = True
    compared = had_list[item]
    return float((compared & ~stayed).sum() / max(int(compared.sum()), 1))
