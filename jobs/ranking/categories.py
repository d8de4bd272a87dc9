"""Categories as paths: `Home > Kitchen > Knives` lies in `Home > Kitchen`, which lies in `Home`."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.list_columns import lengths
from schemas.ranking_rules import CATEGORY_SEPARATOR

_MAX_LEVELS: Final = 8  # deeper paths count down to here: no shop's tree is deeper, but a broken feed's may be


def category_levels(category: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.ChunkedArray]:
    """Name every level of each row's path, its own last; rows without a category have none.

    Shapes: (levels,) twice: the row, and the path down to that level; by level, then by row.
    """
    parts = pc.split_pattern(pc.fill_null(category, ""), CATEGORY_SEPARATOR)
    depth = lengths(parts)
    depth[pc.equal(pc.fill_null(category, ""), "").to_numpy(zero_copy_only=False)] = 0
    rows, paths = [np.empty(0, np.int64)], [pa.array([], pa.string())]
    for level in range(1, min(int(depth.max(initial=0)), _MAX_LEVELS) + 1):
        row = np.flatnonzero(depth >= level)
        upper = pc.list_slice(parts.take(pa.array(row)), 0, level)
        rows.append(row)
        paths.extend(pc.binary_join(upper, CATEGORY_SEPARATOR).chunks)
    return np.concatenate(rows), pa.chunked_array(paths, pa.string())
