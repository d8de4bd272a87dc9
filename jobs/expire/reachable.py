"""Which published partitions may go: the rule, on names alone.

- A partition is *within keeping* up to `keep_days` of its table after its date, that day included.
- *Roots* are the newest partition of every table and campaign, however old, and every undated partition.
- *Live* is every root, and every partition within keeping that something live names as an input.
- What something live names as an input is *held*, even past its keeping time: whatever is kept can be made again. What
  a held partition itself names is not held by that, so a chain (each day's profiles name the day before's) ends one
  step behind its keeping time.

Expired is what is neither a root, nor within keeping, nor held. Inputs count by name: a partition that was published
again since is still the one that a repetition would read.
"""

import datetime as dt
from collections.abc import Iterable, Mapping

from schemas.layout import UNDATED, Partition


def expired(
    inputs: Mapping[Partition, Iterable[str]], *, as_of: dt.date, keep_days: Mapping[str, int]
) -> list[Partition]:
    """Choose from all published partitions, each with the paths of those it was made from, the ones that may go."""
    by_path = {str(partition): partition for partition in inputs}
    kept = {partition for partition in inputs if _is_within(partition, as_of, keep_days)}
    live = roots(inputs)
    held: set[Partition] = set()
    todo = list(live)
    while todo:
        for path in inputs[todo.pop()]:
            named = by_path.get(path)
            if named is None or named in held:
                continue
            held.add(named)
            if named in kept and named not in live:
                live.add(named)
                todo.append(named)
    return sorted(set(inputs) - kept - live - held, key=str)


def roots(partitions: Iterable[Partition]) -> set[Partition]:
    """Return the newest partition of every table and campaign, which is the last good one, and all undated ones."""
    newest: dict[tuple[str, str | None], Partition] = {}
    for partition in partitions:
        key = (partition.table, partition.campaign)
        if key not in newest or partition.date > newest[key].date:
            newest[key] = partition
    return set(newest.values())


def _is_within(partition: Partition, as_of: dt.date, keep_days: Mapping[str, int]) -> bool:
    # A table without a number is kept for good; so is what has no date.
    days = keep_days.get(partition.table)
    return partition.date == UNDATED or days is None or (as_of - partition.date).days <= days
