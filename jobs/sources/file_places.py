"""Where a source's files lie: a local folder or a prefix on S3, and each file as a stream or as a file to seek in."""

import fnmatch
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Self
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from jobs.lake.s3_filesystem import open_s3
from schemas.errors import ConfigError

PACKINGS: Final = (".gz", ".bz2", ".zst", ".lz4")
_GLOB: Final = frozenset("*?[")
_COPY_BYTES: Final = 2**20


@dataclass(frozen=True)
class SourceFile:
    """One file, wherever it lies."""

    filesystem: fs.FileSystem
    path: str

    @classmethod
    def local(cls, path: Path) -> Self:
        """Name a file of this machine."""
        return cls(fs.LocalFileSystem(), str(path))

    @property
    def name(self) -> str:
        """The file's own name, for messages."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """What the file is, whatever it is packed in: `.csv` of `events.csv.gz`; empty where there is no suffix."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.name).suffixes]
        if suffixes and suffixes[-1] in PACKINGS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def is_packed(self) -> bool:
        """Whether the file is unpacked while it is read."""
        return self.name.lower().endswith(PACKINGS)

    def stream(self) -> pa.NativeFile:
        """Open the file to be read from its start, unpacked."""
        # By its name in lower case: Arrow takes `.GZ` for no packing.
        packing = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}.get(
            PurePosixPath(self.name.lower()).suffix
        )
        return self.filesystem.open_input_stream(self.path, compression=packing)

    def seekable(self) -> pa.NativeFile:
        """Open the file to be read anywhere; a packed one is unpacked into a temporary file that has no name."""
        if not self.is_packed:
            return self.filesystem.open_input_file(self.path)
        with tempfile.NamedTemporaryFile() as unpacked, self.stream() as packed:
            shutil.copyfileobj(packed, unpacked, _COPY_BYTES)
            unpacked.flush()
            return pa.OSFile(unpacked.name, mode="r")


@dataclass(frozen=True)
class SourceFolder:
    """A folder of files. `place` is how messages name it."""

    filesystem: fs.FileSystem
    root: str
    place: str

    @classmethod
    def open(cls, place: str) -> Self:
        """Open a local folder or `s3://bucket/prefix`.

        Credentials, region and endpoint of S3 come from the usual AWS variables, as those of a lake on S3 do.
        """
        parts = urlsplit(place)
        if parts.scheme != "s3":
            return cls(fs.LocalFileSystem(), str(Path(place).absolute()), place)
        if not parts.netloc:
            raise ConfigError(f"the data folder {place} names no bucket; expected s3://bucket/prefix")
        return cls(open_s3(), f"{parts.netloc}{parts.path}".rstrip("/"), place)

    def files(self, pattern: str, source: str) -> list[SourceFile]:
        """Find the file of that name, or those that a pattern with `*` fits, in order of their names.

        Raises: ConfigError if there is none, or no such folder.
        """
        if self._info("").type != fs.FileType.Directory and self.filesystem.type_name != "s3":  # S3 has no folders
            raise ConfigError(
                f"source {source}: the data folder {self.place} does not exist; "
                f"put the data there or say where it is (DATA=folder, --data folder)"
            )
        if not _GLOB & set(pattern):
            if self._info(pattern).type != fs.FileType.File:
                raise ConfigError(
                    f"source {source}: {self.place}/{pattern} does not exist; expected the file that the settings "
                    f"name, in the folder that --data or data_folder names"
                )
            return [SourceFile(self.filesystem, self._path(pattern))]
        found = [SourceFile(self.filesystem, path) for path in self._fitting(pattern)]
        if not found:
            raise ConfigError(f"source {source}: no file is called {pattern} in {self.place}; check both")
        return found

    def holds(self, name: str) -> bool:
        """Tell whether the folder has a file of that name."""
        return bool(self._info(name).type == fs.FileType.File)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _info(self, name: str) -> fs.FileInfo:
        try:
            return self.filesystem.get_file_info(self._path(name))
        except OSError as error:
            raise ConfigError(
                f"{self.place} cannot be looked into ({type(error).__name__}); check the bucket, its rights and the "
                f"AWS variables"
            ) from error

    def _fitting(self, pattern: str) -> list[str]:
        """List what fits a pattern part by part: `*` stays within a folder, `**` is any number of them."""
        fixed = []
        parts = pattern.split("/")
        while not _GLOB & set(parts[0]):
            fixed.append(parts.pop(0))
        start = self._path("/".join(fixed))
        # Only as deep as the pattern reaches: a bucket may hold more than the shop's files.
        selector = fs.FileSelector(start, allow_not_found=True, recursive=len(parts) > 1)
        infos = self.filesystem.get_file_info(selector)
        names = [info.path for info in infos if info.type == fs.FileType.File]
        return sorted(path for path in names if _fits(path.removeprefix(f"{start}/").split("/"), parts))


def _fits(path: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_fits(path[skipped:], pattern[1:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _fits(path[1:], pattern[1:])
