"""Write rows into one compressed file for an import, in batches: memory holds two of them, whatever the file.

The file has no name. Nothing of it, and so no address, is left when its process ends, however it does.
"""

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Final

import numpy as np
import pyarrow as pa

from jobs.delivery.client import FILE_BYTES, FILE_CONTACTS

MAX_ROWS: Final = FILE_CONTACTS
MAX_BYTES: Final = FILE_BYTES  # of the text, though it is packed: which of the two is meant is not documented
# Of text that is rendered at once. The next one is rendered while this one is packed.
_BATCH_BYTES: Final = 16_000_000
_FIRST_ROWS: Final = 1_000  # of a file, to learn how long rows are: 30 slots of four full fields are 500 MB
_LEVEL: Final = 3  # packs such text to 15 % at 115 MB/s; 6, the usual one, to 14 % at 48 MB/s
_IN_MEMORY_BYTES: Final = 32_000_000  # a larger file is on disk, where TMPDIR says
_PART_BYTES: Final = 262_144  # of an upload: each has the network's time-out, so that 70 kbit/s are enough
_GZIP: Final = 16 + zlib.MAX_WBITS  # a gzip header without name and time, so that the same rows give the same bytes


@dataclass(frozen=True)
class CsvFile:
    """A file of the first `stop` rows that were asked for: `size` bytes as they are uploaded."""

    content: IO[bytes]
    stop: int
    size: int
    sha256: str

    def parts(self) -> Iterator[bytes]:
        """Read it from its beginning."""
        self.content.seek(0)
        while part := self.content.read(_PART_BYTES):
            yield part

    def close(self) -> None:
        """Remove it."""
        self.content.close()


def write_file(
    header: bytes, render: Callable[[int, int], pa.StringArray], rows: int, *, between: Callable[[], None]
) -> CsvFile:
    """Write as many of `rows` rows as one import takes, from the first on.

    `render` gives the lines of the rows from a first to before a last one. `between` is called before each batch, and
    what it raises ends the writing.
    """
    packed = _Packed(header)
    try:
        with ThreadPoolExecutor(1, "pack") as pool:
            packing: Future[None] | None = None
            stop, room, batch = 0, MAX_BYTES - len(header), _FIRST_ROWS
            last = min(rows, MAX_ROWS)
            while stop < last:
                between()
                lines = render(stop, min(stop + batch, last))
                text, ends = _text_of(lines)
                fitting = int(np.searchsorted(ends, room, side="right"))
                taken = int(ends[fitting - 1]) if fitting else 0
                if packing is not None:
                    packing.result()
                packing = pool.submit(packed.add, text[:taken])
                stop, room = stop + fitting, room - taken
                if fitting < len(lines):
                    break
                batch = max(1, int(_BATCH_BYTES * len(lines) / len(text)))
            if packing is not None:
                packing.result()
    except BaseException:
        packed.content.close()
        raise
    if not stop:
        packed.content.close()
        raise ValueError(f"one contact takes more than {room} bytes; expected the field limits to prevent that")
    return packed.finished(stop)


class _Packed:
    """What was packed so far."""

    def __init__(self, header: bytes) -> None:
        # `finished` hands it on; CsvFile.close closes it.
        self.content: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._hash = hashlib.sha256()
        self._size = 0
        self.add(header)

    def add(self, text: bytes | memoryview) -> None:
        self._put(self._packer.compress(text))

    def finished(self, stop: int) -> CsvFile:
        self._put(self._packer.flush())
        return CsvFile(self.content, stop, self._size, self._hash.hexdigest())

    def _put(self, packed: bytes) -> None:
        self._hash.update(packed)
        self._size += len(packed)
        self.content.write(packed)


def _text_of(lines: pa.StringArray) -> tuple[memoryview, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Give the lines as the one text that they lie in memory as, and where each ends in it."""
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1].astype(np.int64)
    return memoryview(data)[bounds[0] : bounds[-1]], bounds[1:] - bounds[0]
