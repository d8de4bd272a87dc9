"""The stable item index: the shop's string ids to int32 positions, append-only and the same for every date."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.read_once import read_once
from schemas.errors import PublishConflictError, StorageError
from schemas.layout import UNDATED, Partition

_PARTITION = Partition("item_index", UNDATED)
_PUBLISH_TRIES = 5


def read_index(lake: Lake) -> pa.StringArray:
    """Return the item ids in item order (position i is item i); empty for a new lake."""
    manifest = lake.find(_PARTITION)
    if manifest is None:
        return pa.array([], pa.string())
    return read_once(lake, manifest, ["item_id"])["item_id"].combine_chunks()


def find_items(index: pa.StringArray, item_ids: pa.ChunkedArray) -> pa.Int32Array:
    """Turn item ids into items, null for an id that is not in the index. For as many ids as a catalog has."""
    return pc.index_in(item_ids.combine_chunks(), value_set=index)


def to_items(index: pa.StringArray, item_ids: pa.ChunkedArray) -> pa.Int32Array:
    """Turn item ids into items.

    Raises: StorageError if an id is not in the index.
    """
    # Looked up the other way round: a hash table of a bucket's few distinct ids is made, not one of the whole index
    # for each of the buckets.
    coded = pa.chunked_array(item_ids.chunks, pa.string()).combine_chunks().dictionary_encode()
    place = pc.index_in(index, value_set=coded.dictionary)
    known = np.flatnonzero(place.is_valid())
    item_of = np.full(len(coded.dictionary), -1, np.int32)
    item_of[place.drop_null().to_numpy()] = known
    items = item_of[coded.indices.to_numpy()] if len(coded) else np.empty(0, np.int32)
    if missing := int((items < 0).sum()):
        raise StorageError(
            f"{missing} of {len(items)} item ids are not in the item index; run index_items for the date first"
        )
    return pa.array(items, pa.int32())


def append_items(lake: Lake, new_ids: Iterable[pa.ChunkedArray], run_id: str) -> Manifest:
    """Append the ids that the index lacks, in byte order, and publish it; known ids keep their item for ever.

    Two runs that append at once take turns: the loser starts again from the winner's index.
    """
    candidates = pa.chunked_array([chunk for ids in new_ids for chunk in ids.chunks], pa.string()).unique()
    for _ in range(_PUBLISH_TRIES):
        known = read_index(lake)
        missing = candidates.filter(pc.invert(pc.is_in(candidates, value_set=known)))
        current = lake.find(_PARTITION)
        if current is not None and len(missing) == 0:
            return current
        ids = pa.concat_arrays([known, missing.take(pc.sort_indices(missing))])
        rows = pa.table({"item": pa.array(range(len(ids)), pa.int32()), "item_id": ids})
        attempt = lake.attempt(_PARTITION, run_id)
        try:
            return attempt.publish(
                [attempt.write(rows)], inputs=[], parameters={}, metrics={"new": len(missing)}, replaces=current
            )
        except PublishConflictError:
            attempt.discard()
    raise StorageError(f"the item index was published by others {_PUBLISH_TRIES} times in a row; run index_items again")
