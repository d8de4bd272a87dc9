"""Files of the lake, on a local folder or on S3: data through pyarrow, the conditional put through boto3.

`replace_if` is the only write that readers can notice. It is atomic and durable: locally a synced temporary file,
`os.replace` and a directory sync under a lock; on S3 one conditional put. `list_files` and `delete_if` are there for
expiry alone: readers start from a manifest and never list.
"""

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from schemas.errors import ConfigError, PublishConflictError, StorageError

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


def open_storage(uri: str) -> Storage:
    """Open the storage that a lake URI names: a local path, `file://…` or `s3://bucket/prefix`."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
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
                raise PublishConflictError(_conflict(f"{self.root}/{path}"))
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
                raise PublishConflictError(_conflict(f"{self.root}/{path}"))
            target.unlink()
            _sync_folder(target.parent)

    def list_files(self, path: str) -> Iterator[StoredFile]:
        for item in sorted((self.folder / path).rglob("*"), key=Path.as_posix):
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                if item.name != _LOCK_NAME and not item.is_dir():
                    found = item.stat(follow_symlinks=False)
                    modified_at = dt.datetime.fromtimestamp(found.st_mtime, dt.UTC)
                    yield StoredFile(item.relative_to(self.folder).as_posix(), found.st_size, modified_at)


class S3Storage:
    """A prefix in an S3 bucket. Credentials, region and endpoint come from the usual AWS variables."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        # Imported here: local lakes, which are most, need neither boto3 nor its 0.4 s of import.
        import boto3

        if not bucket:
            raise ConfigError("the lake's S3 URI names no bucket; expected s3://bucket/prefix")
        self.bucket, self.prefix = bucket, prefix
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = boto3.client("s3")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._filesystem = fs.S3FileSystem(endpoint_override=endpoint, region=self._client.meta.region_name)

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def read(self, path: str) -> bytes | None:
        try:
            with self._filesystem.open_input_file(f"{self.bucket}/{self._key(path)}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def create(self, path: str) -> IO[bytes]:
        file: IO[bytes] = self._filesystem.open_output_stream(f"{self.bucket}/{self._key(path)}")
        return file

    def replace_if(self, path: str, data: bytes, expected: bytes | None) -> None:
        from botocore.exceptions import ClientError

        if self.read(path) != expected:
            raise PublishConflictError(_conflict(f"{self.root}/{path}"))
        # The ETag of a single-part put is the MD5 of its bytes (not a security use): no second look-up, no race.
        condition = (
            {"IfNoneMatch": "*"}
            if expected is None
            else {"IfMatch": f'"{hashlib.md5(expected, usedforsecurity=False).hexdigest()}"'}
        )
        try:
            self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, **condition)  # type: ignore[arg-type]
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                # A put that timed out after it had succeeded is answered so when it is tried again.
                if self.read(path) == data:
                    return
                raise PublishConflictError(_conflict(f"{self.root}/{path}")) from error
            raise StorageError(f"{self.root}/{path}: S3 refused the write ({code}); check bucket and rights") from error

    def delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(f"{self.bucket}/{self._key(path)}")

    def delete_if(self, path: str, expected: bytes) -> None:
        from botocore.exceptions import ClientError

        key = self._key(path)
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            if found["Body"].read() != expected:
                raise PublishConflictError(_conflict(f"{self.root}/{path}"))
            # Stores that do not know the condition on a delete ignore it; the comparison then narrows the race.
            self._client.delete_object(Bucket=self.bucket, Key=key, IfMatch=found["ETag"])
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                return
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise PublishConflictError(_conflict(f"{self.root}/{path}")) from error
            raise StorageError(
                f"{self.root}/{path}: S3 refused the delete ({code}); check bucket and rights"
            ) from error

    def list_files(self, path: str) -> Iterator[StoredFile]:
        start = len(self._key(""))
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(path) + "/")
        for page in pages:
            for item in page.get("Contents", []):
                if item["Key"].endswith("/"):  # what pyarrow leaves so that a folder stays when it is empty
                    continue
                yield StoredFile(item["Key"][start:], item["Size"], item["LastModified"].astimezone(dt.UTC))


class HashingFile:
    """A file for pyarrow's writers that counts and hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes_written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._file.write(data)
        self.bytes_written += len(data)
        return len(data)

    def tell(self) -> int:
        return self.bytes_written

    def flush(self) -> None:
        """Nothing to do: close makes the bytes durable."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._file.close()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def as_arrow(self) -> pa.NativeFile:
        return pa.PythonFile(self, mode="w")


def _conflict(path: str) -> str:
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
