"""What all batches of a ranking share, in a folder that every task maps: written once, in memory once."""

from pathlib import Path

import numpy as np

from jobs.lake.scratch import Scratch
from jobs.ranking.correlation_table import CorrelationTable
from jobs.ranking.fallback import Ladder
from jobs.ranking.item_facts import ItemFacts
from jobs.ranking.recommend import Shared

_STEPS = "ladder.steps.npy"
_GROUPS = "ladder.groups.npy"
_GROUP_OF_ITEM = "ladder.group_of_item.npy"
_REACH = "table.near.npy"


def save_shared(shared: Shared, folder: Path) -> None:
    """Write everything that `load_shared` reads."""
    scratch = Scratch(folder)
    shared.facts.save(folder)
    scratch.save("near", shared.near)
    scratch.save("twins", shared.twins)
    if shared.table is not None:
        scratch.save("table", shared.table.matrix)
        np.save(folder / _REACH, shared.table.near)
    for step, matrix in zip(shared.ladder.steps, shared.ladder.matrices, strict=True):
        scratch.save(f"ladder-{step}", matrix)
    np.save(folder / _STEPS, np.array([*shared.ladder.steps], np.str_))
    np.save(folder / _GROUPS, np.array(shared.ladder.groups, np.int64))
    np.save(folder / _GROUP_OF_ITEM, shared.ladder.group_of_item)


def load_shared(folder: Path) -> Shared:
    """Map what was written; its pages are shared by every process that maps them."""
    scratch = Scratch(folder)
    facts = ItemFacts.load(folder)
    steps = tuple(np.load(folder / _STEPS).tolist())
    matrices = tuple(scratch.load(f"ladder-{step}") for step in steps)
    has_table = (folder / _REACH).exists()
    table = CorrelationTable(scratch.load("table"), np.load(folder / _REACH, mmap_mode="r")) if has_table else None
    group_of_item = np.load(folder / _GROUP_OF_ITEM, mmap_mode="r")
    groups = tuple(np.load(folder / _GROUPS).tolist())
    ladder = Ladder(steps, matrices, groups, group_of_item)
    return Shared(facts, scratch.load("near"), table, ladder, scratch.load("twins"))
