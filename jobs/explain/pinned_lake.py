"""A lake in which only what one partition was made from can be found, as it was then."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from schemas.errors import StorageError
from schemas.layout import UNDATED, Partition


@dataclass(frozen=True)
class PinnedLake(Lake):
    """A view of a lake: of the dated partitions it finds those alone that a manifest names as its inputs.

    Whatever looks for inputs, such as the newest correlations, finds those that the run found. The item index is let
    through: it is only ever appended to.
    """

    pins: Mapping[str, str]

    @classmethod
    def of(cls, lake: Lake, made: Manifest) -> Self:
        """Pin a lake to the inputs of a partition.

        Raises: StorageError naming every input that is not there any more, or holds something else by now.
        """
        gone: list[str] = []
        for name, digest in sorted(made.inputs.items()):
            found = lake.find(partition_of(name))
            if found is None:
                gone.append(f"{name} has expired")
            elif found.content_sha256 != digest:
                gone.append(f"{name} was made again since ({digest[:12]} then, {found.content_sha256[:12]} now)")
        if gone:
            raise StorageError(
                f"{made.partition} can not be explained: {'; '.join(gone)}. What is explained would not be what was "
                f"recommended. How long inputs are kept stands in schemas/retention.py; to explain what would be "
                f"recommended now, build {made.partition.date} again"
            )
        return cls(lake.uri, lake.buckets, dict(made.inputs))

    def find(self, partition: Partition) -> Manifest | None:
        """Return the manifest of an input; None for anything else that has a date."""
        if partition.date != UNDATED and str(partition) not in self.pins:
            return None
        return super().find(partition)


def partition_of(path: str) -> Partition:
    """Read a partition back from its path, such as `recommendations/campaign=spring/date=2026-11-02`."""
    table, *parts = path.split("/")
    named = dict(part.split("=", 1) for part in parts)
    date = dt.date.fromisoformat(named["date"]) if "date" in named else UNDATED
    return Partition(table, date, named.get("campaign"))
