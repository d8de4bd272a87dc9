"""The figures of recommendation lists: whether they may be shown, and whether they have collapsed into one another.

The most common items and lists are counted per bucket down to rank 100. An item in more than 1 in 100/slots of a
bucket's lists, and a list that more than 1 in 100 of its users have, is always among these; so is what a gate stops at.
"""

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.quality.figures import Figures, Observed, observe
from schemas.contracts import CONTRACTS
from schemas.tables import RECOMMENDATIONS

_KEPT: Final = 100

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def observe_lists(rows: pa.Table, *, in_catalog: Bools, in_stock: Bools, slots: int, min_items: int) -> Observed:
    """Count one bucket of recommendations.

    Shapes: in_catalog and in_stock (items,), by item; an item beyond them is in neither.
    """
    observed = observe(CONTRACTS[RECOMMENDATIONS.name], rows)
    counts, items = lengths(rows["item"]), flat(rows["item"]).astype(np.int64)
    known = items < len(in_catalog)
    observed.sums["shown_items"] = len(items)
    observed.sums["shown_in_catalog"] = int(in_catalog[items[known]].sum())
    observed.sums["shown_in_stock"] = int(in_stock[items[known]].sum())
    fits = (counts == 0) | ((counts >= min_items) & (counts <= slots))
    observed.sums["lists_of_wrong_length"] = int((~fits).sum())
    table = _as_rows(items, counts, slots)
    ordered = np.sort(table, axis=1)
    observed.sums["repeats_in_lists"] = int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum())
    lists, users = np.unique(table, axis=0, return_counts=True) if len(table) else (table, np.empty(0, np.int64))
    observed.sums["lists"], observed.sums["distinct_lists"] = len(table), len(lists)
    observed.tops["list"] = _top([row[row >= 0].tobytes() for row in lists[_largest(users)]], users[_largest(users)])
    item, shown = np.unique(items, return_counts=True)
    observed.tops["item"] = _top([row.tobytes() for row in item[_largest(shown)]], shown[_largest(shown)])
    return observed


def list_figures(observed: Observed, *, in_stock: bool) -> Figures:
    """Turn the counts of all buckets into figures; that of the stock only where the campaign goes by it."""
    shown, lists = max(1, observed.sums["shown_items"]), max(1, observed.sums["lists"])
    figures = {
        "items_in_catalog_share": observed.sums["shown_in_catalog"] / shown,
        "top_item_share": max(observed.tops.get("item", Counter()).values(), default=0) / lists,
        "top_list_share": max(observed.tops.get("list", Counter()).values(), default=0) / lists,
        "distinct_lists_share": observed.sums["distinct_lists"] / lists,
        **{name: observed.sums[name] for name in ("lists_of_wrong_length", "repeats_in_lists")},
    }
    return figures | ({"items_in_stock_share": observed.sums["shown_in_stock"] / shown} if in_stock else {})


def _as_rows(items: Ints, counts: Ints, slots: int) -> Ints:
    """Lay lists out side by side, without the empty ones, short ones filled with -1."""
    counts = counts[counts > 0]
    table = np.full((len(counts), int(counts.max(initial=slots))), -1, np.int64)
    row = np.repeat(np.arange(len(counts)), counts)
    table[row, rank_within(row)] = items
    return table


def _largest(counts: Ints) -> Ints:
    return np.argsort(-counts, kind="stable")[:_KEPT]


def _top(keys: list[bytes], counts: Ints) -> Counter[bytes]:
    return Counter(dict(zip(keys, counts.tolist(), strict=True)))
