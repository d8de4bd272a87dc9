"""Which bucket a user belongs to, and the keyed hashes of ids and addresses: SipHash-2-4, in batches.

pandas' `hash_array` is the one compiled, keyed and portable string hash in the lock; a test pins its values, because
a changed hash would send every user's history to another bucket.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pandas.util import hash_array

# Fixed for ever: it decides where every per-user file of every lake puts a user. Not a secret.
_BUCKET_KEY = "ryml user bucket"

Strings: TypeAlias = "pa.StringArray | pa.ChunkedArray[Any]"


def keyed_hash(values: Strings, key: str) -> npt.NDArray[np.uint64]:
    """Hash strings (no nulls) with a key of exactly 16 bytes."""
    return np.asarray(hash_array(values.to_numpy(zero_copy_only=False), hash_key=key, categorize=False))


def bucket_of(user_ids: Strings, buckets: int) -> npt.NDArray[np.int64]:
    """Give each user id (no nulls) its bucket, 0 to `buckets` - 1."""
    if len(user_ids) == 0:
        return np.empty(0, np.int64)
    return (keyed_hash(user_ids, _BUCKET_KEY) % np.uint64(buckets)).astype(np.int64)
