"""A file for pyarrow's writers that counts and hashes what passes through."""

import hashlib
from typing import IO

import pyarrow as pa


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
