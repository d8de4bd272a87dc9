"""What lies in a lake: the one place that lists folders. Readers never do."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.storage import StoredFile
from schemas.errors import StorageError
from schemas.layout import MANIFEST_NAME, STOPPED_NAME, Partition
from schemas.tables import TABLES

STAGING = "staging"  # the folder of the backfills' own lakes


@dataclass(frozen=True)
class Published:
    """A published partition: its manifest, parsed and to the byte."""

    manifest: Manifest
    data: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that the manifest names."""
        return sum(entry.bytes for entry in self.manifest.files)


@dataclass(frozen=True)
class Folder:
    """A folder of files (an attempt, or a staged lake), or one file; `modified_at` is that of the newest file."""

    path: str
    table: str
    size_bytes: int
    modified_at: dt.datetime


@dataclass(frozen=True)
class Inventory:
    """Everything that a lake holds. `stopped`: the checks that stopped a run, where nothing passed since."""

    published: dict[Partition, Published]
    attempts: list[Folder]
    staged: list[Folder]
    stopped: list[Folder]

    @property
    def named(self) -> set[str]:
        """The attempt folders that a manifest names."""
        return {found.manifest.folder for found in self.published.values()}


def take_inventory(lake: Lake) -> Inventory:
    """List the lake's tables and the backfills' staged lakes; what else lies there is not ryml's and not listed.

    Raises: StorageError if a manifest is torn or lies in another partition's place: nothing may be judged by it.
    """
    storage = lake.storage
    published: dict[Partition, Published] = {}
    attempts: list[Folder] = []
    stopped: list[Folder] = []
    for table in TABLES:
        files = list(storage.list_files(table))
        for file in files:
            if file.path.endswith(f"/{MANIFEST_NAME}"):
                data = storage.read(file.path)
                if data is not None:  # else deleted since it was listed
                    manifest = Manifest.from_bytes(data, f"{lake.uri}/{file.path}")
                    if manifest.partition.manifest_path != file.path:
                        raise StorageError(
                            f"{lake.uri}/{file.path} is the manifest of {manifest.partition}; expected that of its own "
                            "folder. Move it back or delete it by hand"
                        )
                    published[manifest.partition] = Published(manifest, data)
        attempts += _folders(files, marker="attempt=")
        stopped += [
            Folder(file.path, table, file.size_bytes, file.modified_at)
            for file in files
            if file.path.endswith(f"/{STOPPED_NAME}")
        ]
    return Inventory(published, attempts, _folders(storage.list_files(STAGING), marker=""), stopped)


def _folders(files: Iterable[StoredFile], *, marker: str) -> list[Folder]:
    """Add the files up by the first folder below the top whose name starts with the marker."""
    found: dict[str, Folder] = {}
    for file in files:
        table, *parts = file.path.split("/")
        depth = next((place for place, part in enumerate(parts[:-1]) if part.startswith(marker)), None)
        if depth is None:
            continue
        path = "/".join([table, *parts[: depth + 1]])
        before = found.get(path)
        size = file.size_bytes + (before.size_bytes if before else 0)
        modified_at = max(file.modified_at, before.modified_at) if before else file.modified_at
        found[path] = Folder(path, table, size, modified_at)
    return list(found.values())
