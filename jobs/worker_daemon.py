"""The process that Spark forks its Python workers from, with what all of them need read already.

Spark starts it in place of `pyspark.daemon` (spark.python.daemon.module). Each worker would otherwise read Arrow, SciPy
and Numba for itself, all at the same time: about three seconds of a core each, before its first row. What was read once
is in the memory of all of them, once. See docs/decisions/050.
"""

import gc
import importlib
from typing import Final

import numpy as np
from pyspark.daemon import manager

from jobs.ranking.csr_rows import stacked

READ_AHEAD: Final = ("pyarrow.parquet", "pyarrow.compute", "scipy.sparse", "jobs.lake.lake")


def read_ahead() -> None:
    """Import what the parts of every job work with, and have Numba look up its own functions (a second of a core).

    It starts no thread that works: a fork would not have it.
    """
    for name in READ_AHEAD:
        importlib.import_module(name)
    # Its first compiled loop is what has Numba look.
    none = np.empty(0, np.int64)
    stacked([(none, none, np.empty(0, np.float32))], 0, 0)
    # What is there at the fork is never garbage; a collection would write to each object, and so copy its page.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    read_ahead()
    manager()  # type: ignore[no-untyped-call]  # the same that pyspark.daemon runs
