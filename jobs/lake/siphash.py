"""SipHash-2-4 of many texts at once, over Arrow's buffers: no Python text is made of any of them.

Aumasson, Bernstein: SipHash: a fast short-input PRF, INDOCRYPT 2012.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.compiled import compiled, plain

UInt64s = npt.NDArray[np.uint64]


def siphash(texts: pa.StringArray, key: bytes) -> UInt64s:
    """Hash each text's UTF-8 (no nulls) with a key of exactly 16 bytes.

    Raises: ValueError for a key of another length.
    """
    if len(key) != 16:
        raise ValueError(f"a key of {len(key)} bytes; SipHash takes 16")
    hashes = np.empty(len(texts), np.uint64)
    if len(texts):
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        first, last = int(ends[0]), int(ends[-1])
        held = np.frombuffer(data, np.uint8)[first:last] if data is not None else np.empty(0, np.uint8)
        _hash(
            plain(held, np.uint8), plain(ends - first, np.int64), *np.frombuffer(key, "<u8").astype(np.uint64), hashes
        )
    return hashes


@compiled
def _hash(data, ends, key_0, key_1, hashes):  # type: ignore[no-untyped-def]
    for row in range(len(ends) - 1):
        at, stop = ends[row], ends[row + 1]
        length = stop - at
        v0 = key_0 ^ np.uint64(0x736F6D6570736575)
        v1 = key_1 ^ np.uint64(0x646F72616E646F6D)
        v2 = key_0 ^ np.uint64(0x6C7967656E657261)
        v3 = key_1 ^ np.uint64(0x7465646279746573)
        words = length >> 3
        # Behind the whole words one of the bytes that are left, with the length on top; then the end, of four rounds.
        for number in range(words + 2):
            word, rounds = np.uint64(0), 2
            if number < words:
                for byte in range(8):
                    word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
                at += 8
            elif number == words:
                word = np.uint64(length & 0xFF) << np.uint64(56)
                for byte in range(stop - at):
                    word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            else:
                v2 ^= np.uint64(0xFF)
                rounds = 4
            v3 ^= word
            for _ in range(rounds):
                v0 += v1
                v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
                v1 ^= v0
                v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
                v2 += v3
                v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
                v3 ^= v2
                v0 += v3
                v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
                v3 ^= v0
                v2 += v1
                v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
                v1 ^= v2
                v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
            v0 ^= word
        hashes[row] = v0 ^ v1 ^ v2 ^ v3
