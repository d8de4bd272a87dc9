"""Which bucket a user belongs to, and the keyed hashes of ids and addresses: SipHash-2-4, in batches.

The values are those of pandas' `hash_array`, with which lakes and ledgers were begun. A test pins some and holds all
against pandas, because a changed hash would send every user's history to another bucket.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.mixing import mix
from jobs.lake.siphash import siphash

# Fixed for ever: it decides where every per-user file of every lake puts a user. Not a secret.
_BUCKET_KEY = "ryml user bucket"

Strings: TypeAlias = "pa.StringArray | pa.ChunkedArray[Any]"


def keyed_hash(values: Strings, key: str) -> npt.NDArray[np.uint64]:
    """Hash strings (no nulls) with a key of exactly 16 bytes."""
    # A part at a time: what is read in many parts may be more than one array of strings can hold.
    parts = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    hashes = [siphash(_texts(part), key.encode()) for part in parts]
    return mix(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)


def _texts(values: Any) -> pa.StringArray:
    """Give what pandas would hash of each value: of a missing one the text None."""
    texts = values if values.type == pa.string() else values.cast(pa.string())
    return texts.fill_null("None") if texts.null_count else texts


def bucket_of(user_ids: Strings, buckets: int) -> npt.NDArray[np.int64]:
    """Give each user id (no nulls) its bucket, 0 to `buckets` - 1."""
    if len(user_ids) == 0:
        return np.empty(0, np.int64)
    return (keyed_hash(user_ids, _BUCKET_KEY) % np.uint64(buckets)).astype(np.int64)
