"""The stable item index: the shop's string ids to int32 positions, append-only and the same for every date."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from schemas.errors import PublishConflictError, StorageError
from schemas.layout import UNDATED, Partition

_PARTITION = Partition("item_index", UNDATED)
_PUBLISH_TRIES = 5


def read_index(lake: Lake) -> pa.StringArray:
    """Return the item ids in item order (position i is item i); empty for a new lake."""
    manifest = lake.find(_PARTITION)
    if manifest is None:
        return pa.array([], pa.string())
    return lake.read(manifest, columns=["item_id"])["item_id"].combine_chunks()


def to_items(index: pa.StringArray, item_ids: pa.ChunkedArray) -> pa.Int32Array:
    """Turn item ids into items.

    Raises: StorageError if an id is not in the index.
    """
    items = pc.index_in(item_ids, value_set=index)
    if items.null_count:
        raise StorageError(
            f"{items.null_count} of {len(items)} item ids are not in the item index; run index_items for the date first"
        )
    combined = items.combine_chunks() if isinstance(items, pa.ChunkedArray) else items
    return combined.cast(pa.int32())


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
