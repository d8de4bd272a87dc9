"""The frozen list of what a run of expire_data may delete, written before anything goes."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from jobs.expire.inventory import Inventory
from schemas.errors import StorageError

FOLDER = "expired"


@dataclass(frozen=True)
class ExpiredPartition:
    """A partition that may go, exactly as it was when it was listed."""

    partition: str
    folder: str
    manifest_sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ExpiredFolder:
    """A folder that no manifest names and nobody writes to any more."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class ExpiryList:
    """What may be deleted, and as of which date that was decided."""

    as_of: str
    partitions: tuple[ExpiredPartition, ...]
    attempts: tuple[ExpiredFolder, ...]
    staged: tuple[ExpiredFolder, ...]
    stopped: tuple[ExpiredFolder, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files on the list."""
        folders = (*self.attempts, *self.staged, *self.stopped)
        return sum(entry.size_bytes for entry in self.partitions) + sum(folder.size_bytes for folder in folders)

    def counts(self) -> dict[str, int]:
        """Sum the list up."""
        return {
            "rows": len(self.partitions) + len(self.attempts) + len(self.staged) + len(self.stopped),
            "partitions": len(self.partitions),
            "attempts": len(self.attempts),
            "staged": len(self.staged),
            "stopped": len(self.stopped),
            "bytes": self.size_bytes,
        }

    def to_bytes(self) -> bytes:
        """Serialise, in a fixed order."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse a list.

        Raises: StorageError if it is torn.
        """
        try:
            body = json.loads(data)
            return cls(
                as_of=body["as_of"],
                partitions=tuple(ExpiredPartition(**entry) for entry in body["partitions"]),
                attempts=tuple(ExpiredFolder(**entry) for entry in body["attempts"]),
                staged=tuple(ExpiredFolder(**entry) for entry in body["staged"]),
                stopped=tuple(ExpiredFolder(**entry) for entry in body["stopped"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{where} is not a whole list ({type(error).__name__}); list again") from error

    def changed_since(self, now: "ExpiryList", inventory: Inventory) -> list[str]:
        """Name what is on this list but may not be deleted any more. What is gone already is no change."""
        published = {str(partition) for partition in inventory.published}
        there = {folder.path for folder in (*inventory.attempts, *inventory.staged, *inventory.stopped)}
        partitions = {entry.partition: entry.manifest_sha256 for entry in now.partitions}
        folders = {entry.path for entry in (*now.attempts, *now.staged, *now.stopped)}
        return [
            *(
                entry.partition
                for entry in self.partitions
                if entry.partition in published and partitions.get(entry.partition) != entry.manifest_sha256
            ),
            *(entry.path for entry in (*self.attempts, *self.staged, *self.stopped) if entry.path in there - folders),
        ]
