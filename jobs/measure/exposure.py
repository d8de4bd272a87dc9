"""How widely a send showed the shop's items: coverage, concentration and how much the lists differ."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.list_columns import flat, lengths, rank_within
from jobs.lake.mixing import GAMMA, UInt64s, mix

Int64s = npt.NDArray[np.int64]


@dataclass
class Exposure:
    """Adds up the lists of one user bucket after the other.

    Shapes: shown (items,) counts how often each item was shown. Memory: 8 bytes an item and 8 bytes a distinct list.
    """

    items: int
    shown: Int64s = field(init=False)
    lists: int = 0
    _list_hashes: UInt64s = field(init=False)

    def __post_init__(self) -> None:
        """Start from nothing shown."""
        self.shown = np.zeros(self.items, np.int64)
        self._list_hashes = np.empty(0, np.uint64)

    def add(self, item: pa.ChunkedArray) -> None:
        """Count the item lists of more users."""
        self.shown += np.bincount(flat(item), minlength=self.items)
        self.lists += len(item)
        self._list_hashes = np.union1d(self._list_hashes, list_hashes(item))

    def measures(self, eligible_items: int | None) -> dict[str, float]:
        """Name what was found; what needs the number of eligible items is left out where that is not known."""
        shown = int(self.shown.sum())
        found = {
            "items_recommended": float(np.count_nonzero(self.shown)),
            "mean_list_length": shown / self.lists if self.lists else 0.0,
            "distinct_lists": float(len(self._list_hashes)),
            "top_item_share": float(self.shown.max(initial=0)) / shown if shown else 0.0,
        }
        if eligible_items is not None:
            found["items_eligible"] = float(eligible_items)
            found["item_coverage"] = found["items_recommended"] / eligible_items if eligible_items else 0.0
            found["item_gini"] = gini(self.shown, eligible_items)
        return found


def gini(shown: Int64s, population: int) -> float:
    """Say how unevenly the shows fall on the items: 0 for all alike, towards 1 for all on one.

    Items of the population that were never shown count as 0.
    Source: Fleder and Hosanagar, Blockbuster culture's next rise or fall, Management Science 55(5), 2009, section 3.
    """
    counts = np.sort(shown[shown > 0]).astype(np.float64)
    if len(counts) == 0:
        return 0.0
    # The zeros come first and add nothing; the others' ranks start behind them.
    rank = np.arange(population - len(counts) + 1, population + 1)
    return float(2 * (rank * counts).sum() / (population * counts.sum()) - (population + 1) / population)


def list_hashes(item: pa.ChunkedArray) -> UInt64s:
    """Hash each row's list, order included, to 64 bits.

    Ten million different lists collide with a chance of 3 in a million, and then count one too few.
    """
    counts = lengths(item)
    row = np.repeat(np.arange(len(counts)), counts)
    # Every item gets a number of its own at every place; a list is their sum, which wraps around.
    places = rank_within(row).astype(np.uint64) + np.uint64(1)
    element = mix(mix(flat(item).astype(np.uint64)) + places * GAMMA)
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(element, dtype=np.uint64)))
    end = np.cumsum(counts)
    hashes: UInt64s = total[end] - total[end - counts]
    return hashes
