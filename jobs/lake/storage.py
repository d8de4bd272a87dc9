"""Files of the lake, on a local folder or on S3: data through pyarrow, the conditional put through boto3.

`replace_if` is the only write that readers can notice. It is atomic and durable: locally a synced temporary file,
`os.replace` and a directory sync under a lock; on S3 one conditional put. `list_files` and `delete_if` are there for
expiry alone: readers start from a manifest and never list.
"""

import contextlib
import datetime as dt
import fcntl
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from schemas.errors import ConfigError, PublishConflictError

_LOCK_NAME = ".publish.lock"


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing finds it."""

    path: str
    size_bytes: int
    modified_at: dt.datetime


class Storage(Protocol):
    """What the lake needs of the place where its files lie. Paths are relative to the root, with `/`."""

    root: str

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, or None where there is no such file."""

    def create(self, path: str) -> IO[bytes]:
        """Open a new file for writing; it is durable once closed. It must not exist yet."""

    def replace_if(self, path: str, data: bytes, expected: bytes | None) -> None:
        """Replace the whole file if it still holds `expected` (None: if it does not exist).

        Raises: PublishConflictError if somebody else wrote it meanwhile.
        """

    def delete_folder(self, path: str) -> None:
        """Delete everything under the path; nothing there is fine."""

    def delete_if(self, path: str, expected: bytes) -> None:
        """Delete the file if it still holds `expected`; a file that is gone already is fine.

        Raises: PublishConflictError if somebody wrote it meanwhile.
        """

    def list_files(self, path: str) -> Iterator[StoredFile]:
        """Go through all files under the path, in byte order of their paths; nothing there is fine."""

    def drop_unfinished_uploads(self, before: dt.datetime) -> int:
        """Drop what uploads that were begun before an instant and never finished left; return how many there were."""


def open_storage(uri: str) -> Storage:
    """Open the storage that a lake URI names: a local path, `file://…` or `s3://bucket/prefix`."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        # Imported here: local lakes, which are most, need neither boto3 nor its 0.4 s of import.
        from jobs.lake.s3_storage import S3Storage

        return S3Storage(bucket=parts.netloc, prefix=parts.path.strip("/"))
    if parts.scheme in ("", "file"):
        return LocalStorage(Path(parts.path))
    raise ConfigError(
        f"lake {uri!r} has the scheme {parts.scheme!r}; expected a folder, file://… or s3://bucket/prefix"
    )


class _SyncedFile:
    """A local file whose close means that its bytes and its name are on the disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("xb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        if self._file.closed:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        _sync_folder(self._path.parent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class LocalStorage:
    """A folder of this machine (or one that every worker mounts)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.root = str(self.folder)

    def read(self, path: str) -> bytes | None:
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, path: str) -> IO[bytes]:
        return _SyncedFile(self.folder / path)  # type: ignore[return-value]  # duck-typed file

    def replace_if(self, path: str, data: bytes, expected: bytes | None) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / _LOCK_NAME):
            if self.read(path) != expected:
                raise PublishConflictError(changed_since(f"{self.root}/{path}"))
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)

    def delete_folder(self, path: str) -> None:
        # Deepest first; pathlib has no recursive delete and shutil's would follow the folder's own links.
        folder = self.folder / path
        if not folder.exists():
            return
        for item in sorted(folder.rglob("*"), reverse=True):
            item.rmdir() if item.is_dir() and not item.is_symlink() else item.unlink()
        folder.rmdir()

    def delete_if(self, path: str, expected: bytes) -> None:
        target = self.folder / path
        if not target.exists():
            return
        # The lock file stays: a writer that already waits for it would otherwise hold another lock than the next one.
        with _locked(target.parent / _LOCK_NAME):
            found = self.read(path)
            if found is None:
                return
            if found != expected:
                raise PublishConflictError(changed_since(f"{self.root}/{path}"))
            target.unlink()
            _sync_folder(target.parent)

    def list_files(self, path: str) -> Iterator[StoredFile]:
        for item in sorted((self.folder / path).rglob("*"), key=Path.as_posix):
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                if item.name != _LOCK_NAME and not item.is_dir():
                    found = item.stat(follow_symlinks=False)
                    modified_at = dt.datetime.fromtimestamp(found.st_mtime, dt.UTC)
                    yield StoredFile(item.relative_to(self.folder).as_posix(), found.st_size, modified_at)

    def drop_unfinished_uploads(self, before: dt.datetime) -> int:
        return 0


def changed_since(path: str) -> str:
    """Say that somebody else wrote a file that only one writer may write."""
    return f"{path} changed since it was read; expected to be its only writer. Run the job again on what is there now"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back, whatever happened
