"""A table that every task of a job needs whole, read and checked once by each process that runs them."""

import functools

import pyarrow as pa

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest

_TABLES = 2  # held at most: the item index and the ids of a catalog


def read_once(lake: Lake, manifest: Manifest, columns: list[str]) -> pa.Table:
    """Read columns of a partition, or give what this process has read of that very attempt before.

    For what is small: it is held until others take its place.
    """
    return _read(_Same(lake, manifest), tuple(columns))


class _Same:
    """A partition's attempt as the key of a cache: equal where the lake and the attempt's folder are."""

    def __init__(self, lake: Lake, manifest: Manifest) -> None:
        self.lake, self.manifest = lake, manifest
        self._key = (lake.uri, manifest.folder, manifest.content_sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(_TABLES)
def _read(of: _Same, columns: tuple[str, ...]) -> pa.Table:
    return of.lake.read(of.manifest, columns=list(columns))
