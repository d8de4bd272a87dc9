"""The figures of recommendation lists: whether they may be shown, and whether they have collapsed into one another.

The most common items and lists are counted per bucket down to rank 100. An item in more than 1 in 100/slots of a
bucket's lists, and a list that more than 1 in 100 of its users have, is always among these; so is what a gate stops at.
Which items were shown at all is kept as a bit per item.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.list_columns import flat, lengths
from jobs.lake.mixing import GAMMA, mix
from jobs.quality.figures import Figures, Observed, observe
from schemas.contracts import CONTRACTS
from schemas.tables import RECOMMENDATION_SOURCES, RECOMMENDATIONS

_KEPT: Final = 100
_OWN: Final = ("history", "wishlist")  # the sources that are no fallback
_SHOWN: Final = "items_shown"

# Of campaigns whose lists follow what came back into stock: on many days nobody gets one, or all the same single item.
FOLLOWS_STOCK: Final[Mapping[str, str]] = dict.fromkeys(
    (
        "recommended_share",
        "recommended_share_of_last_good",
        "top_item_share",
        "top_list_share",
        "distinct_lists_share",
        "catalog_coverage_of_last_good",
    ),
    "the campaign's lists follow what came back into stock, which differs from day to day",
)

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def observe_lists(rows: pa.Table, *, in_catalog: Bools, in_stock: Bools, slots: int, min_items: int) -> Observed:
    """Count one bucket of recommendations.

    Shapes: in_catalog and in_stock (items,), by item; an item beyond them is in neither.
    """
    observed = observe(CONTRACTS[RECOMMENDATIONS.name], rows)
    counts, items = lengths(rows["item"]), flat(rows["item"]).astype(np.int64)
    shown = np.bincount(items, minlength=len(in_catalog))
    known = shown[: len(in_catalog)]
    observed.sums["shown_items"] = len(items)
    observed.sums["shown_in_catalog"] = int(known[in_catalog].sum())
    observed.sums["shown_in_stock"] = int(known[in_stock].sum())
    fits = (counts == 0) | ((counts >= min_items) & (counts <= slots))
    observed.sums["lists_of_wrong_length"] = int((~fits).sum())
    table = _as_rows(items, counts, slots)
    ordered = np.sort(table, axis=1)
    observed.sums["repeats_in_lists"] = int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum())
    lists, users = _distinct(table)
    observed.sums["lists"], observed.sums["distinct_lists"] = len(table), len(lists)
    for length, users_of_it in enumerate(np.bincount(counts, minlength=slots + 1).tolist()):
        observed.sums[f"users_with_list_of.{length}"] = users_of_it
    _observe_sources(observed, flat(rows["source"]), np.repeat(np.arange(len(counts)), counts), len(counts))
    observed.columns[_SHOWN] = [np.packbits(known > 0)]
    observed.tops["list"] = _top([row[row >= 0].tobytes() for row in lists[_largest(users)]], users[_largest(users)])
    item = np.flatnonzero(shown)
    shown = shown[item]
    observed.tops["item"] = _top([row.tobytes() for row in item[_largest(shown)]], shown[_largest(shown)])
    return observed


def list_figures(observed: Observed, *, in_stock: bool, eligible_items: int, follows_stock: bool = False) -> Figures:
    """Turn the counts of all buckets into figures.

    That of the stock only where the campaign goes by it; those of FOLLOWS_STOCK not where it recommends what came back.
    """
    lists = max(1, observed.sums["lists"])
    own = sum(observed.sums[f"items_from.{source}"] for source in _OWN)

    def share_of_shown(count: int) -> float:
        """Where nothing is shown, nothing wrong is."""
        return count / observed.sums["shown_items"] if observed.sums["shown_items"] else 1.0

    figures = {
        "recommended_share": observed.sums["lists"] / max(1, observed.sums["rows"]),
        "items_in_catalog_share": share_of_shown(observed.sums["shown_in_catalog"]),
        "top_item_share": max(observed.tops.get("item", Counter()).values(), default=0) / lists,
        "top_list_share": max(observed.tops.get("list", Counter()).values(), default=0) / lists,
        "distinct_lists_share": observed.sums["distinct_lists"] / lists,
        "catalog_coverage": items_shown(observed) / max(1, eligible_items),
        "own_items_share": share_of_shown(own),
        **{name: observed.sums[name] for name in ("lists_of_wrong_length", "repeats_in_lists")},
    }
    if in_stock:
        figures["items_in_stock_share"] = share_of_shown(observed.sums["shown_in_stock"])
    if follows_stock:
        figures = {name: value for name, value in figures.items() if name not in FOLLOWS_STOCK}
        del figures["catalog_coverage"]
    return figures


def list_metrics(observed: Observed, *, slots: int, eligible_items: int) -> dict[str, Any]:
    """Say what the lists are like, for the manifest and the page of the night; whole numbers and rounded shares."""
    shown, lists = items_shown(observed), max(1, observed.sums["lists"])
    top = max(observed.tops.get("item", Counter()).values(), default=0)
    return {
        "users_by_list_length": {str(n): observed.sums[f"users_with_list_of.{n}"] for n in range(slots + 1)},
        "items_from": {name: observed.sums[f"items_from.{name}"] for name in RECOMMENDATION_SOURCES},
        "users_with_items_from": {name: observed.sums[f"users_from.{name}"] for name in RECOMMENDATION_SOURCES},
        "items_shown": shown,
        "catalog_coverage": round(shown / max(1, eligible_items), 4),
        "top_item_share": round(top / lists, 4),
        "distinct_lists": observed.sums["distinct_lists"],
    }


def items_shown(observed: Observed) -> int:
    """Count the items that are in at least one list."""
    parts = observed.columns.get(_SHOWN, [])
    return int(np.unpackbits(np.bitwise_or.reduce(parts)).sum()) if parts else 0


def _observe_sources(observed: Observed, source: npt.NDArray[Any], user: Ints, users: int) -> None:
    """Count items by where they come from, and the users that have at least one from there."""
    for code, name in enumerate(RECOMMENDATION_SOURCES):
        from_here = source == code
        observed.sums[f"items_from.{name}"] = int(from_here.sum())
        has_one = np.zeros(users, np.bool_)
        has_one[user[from_here]] = True
        observed.sums[f"users_from.{name}"] = int(has_one.sum())


def _as_rows(items: Ints, counts: Ints, slots: int) -> Ints:
    """Lay lists out side by side, without the empty ones, short ones filled with -1."""
    counts = counts[counts > 0]
    table = np.full((len(counts), int(counts.max(initial=slots))), -1, np.int64)
    table[np.arange(table.shape[1]) < counts[:, None]] = items
    return table


def _distinct(table: Ints) -> tuple[Ints, Ints]:
    """Give the different rows and how often each comes; they are told apart by 64 bits."""
    key = np.zeros(len(table), np.uint64)
    for column in table.T:
        key = mix(key + GAMMA + column.astype(np.uint64))
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    return table[first], counts


def _largest(counts: Ints) -> Ints:
    return np.argsort(-counts, kind="stable")[:_KEPT]


def _top(keys: list[bytes], counts: Ints) -> Counter[bytes]:
    return Counter(dict(zip(keys, counts.tolist(), strict=True)))
