"""The hybrid model as tables of the lake, and back, with everything checked that a reader relies on.

Files are held against their digests when they are read (jobs/lake/lake.py). What is checked here is that vectors
belong to the model that is published with them, and that they are vectors.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat, lengths, list_column
from jobs.lake.manifest import Manifest
from jobs.ranking.hybrid import HybridModel
from jobs.ranking.item_vectors import LENGTH, LENGTH_SLACK, VectorItems, Vectors, check_vectors
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import HYBRID_FEATURES, HYBRID_ITEMS, Table


def feature_rows(model: HybridModel, item_names: pa.StringArray, user_names: pa.StringArray) -> pa.Table:
    """Lay the model out as rows, items' features first."""
    vectors = np.concatenate((model.item_vectors, model.user_vectors))
    sides = ["item"] * len(item_names) + ["user"] * len(user_names)
    return pa.table(
        {
            "side": pa.array(sides, pa.string()),
            "feature": pa.concat_arrays([item_names, user_names]),
            "bias": pa.array(np.concatenate((model.item_biases, model.user_biases)), pa.float32()),
            "vector": _vector_column(HYBRID_FEATURES, vectors),
        },
        schema=HYBRID_FEATURES.schema,
    )


def item_rows(item: npt.NDArray[np.int64], vectors: Vectors) -> pa.Table:
    """Lay item vectors out as rows, by item.

    Shapes: item (rows,) and vectors (rows, components), in any order.
    """
    order = np.argsort(item)
    columns = {"item": pa.array(item[order], pa.int32()), "vector": _vector_column(HYBRID_ITEMS, vectors[order])}
    return pa.table(columns, schema=HYBRID_ITEMS.schema)


def vectors_of_wrong_length(rows: pa.Table, components: int) -> int:
    """Count rows whose vector has other than the model's components, or, in whole numbers, another length than all."""
    counts = lengths(rows["vector"])
    wrong = counts != components
    if rows.schema.field("vector").type.value_type == pa.int16():
        row = np.repeat(np.arange(len(rows)), counts)
        squares = np.bincount(row, flat(rows["vector"]).astype(np.float64) ** 2, minlength=len(rows))
        wrong |= np.abs(np.sqrt(squares) - LENGTH) > LENGTH_SLACK
    return int(wrong.sum())


def read_vectors(lake: Lake, vectors: Manifest, items: int) -> VectorItems:
    """Read the item vectors for all items of the index; those without one are near nothing.

    Raises: StorageError if a file is not the one that its manifest names; GateError if the vectors are not those of
    the model beside them, or are no vectors.
    """
    model = lake.manifest(Partition(HYBRID_FEATURES.name, vectors.partition.date, vectors.partition.campaign))
    if vectors.inputs.get(str(model.partition)) != model.content_sha256:
        raise GateError(
            f"{vectors.partition} was not made from the model that {model.partition} holds now; expected its digest "
            f"{model.content_sha256[:12]} among its inputs. Run train_hybrid for {vectors.partition.date} again"
        )
    rows = lake.read(vectors)
    components = {int(count) for count in np.unique(lengths(rows["vector"]))}
    item = rows["item"].to_numpy()
    if len(components) != 1 or item.max(initial=0) >= items:
        raise GateError(
            f"{vectors.partition} has vectors of {sorted(components)} components for items up to "
            f"{item.max(initial=0):,}, expected one number of components and items below {items:,}. Run train_hybrid "
            f"for {vectors.partition.date} again"
        )
    every = np.zeros((items, *components), np.int16)
    every[item] = flat(rows["vector"]).reshape(len(rows), -1)
    check_vectors(every)
    return VectorItems(every)


def _vector_column(table: Table, vectors: npt.NDArray[np.float32] | Vectors) -> pa.Array:
    counts = np.full(len(vectors), vectors.shape[1])
    return list_column(table, "vector", vectors.reshape(-1), counts)
