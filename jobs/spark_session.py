"""The Spark session of a job and the one shape its work has: a narrow map over user buckets or item blocks."""

import functools
import logging
import os
import sys
import zipimport
from collections.abc import Callable, Sequence
from typing import TypeVar

from pyspark.sql import SparkSession

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


def open_session(app_name: str) -> SparkSession:
    """Start or join the session; master, memory and the rest are the caller's (spark-submit, the Spark connection)."""
    # Workers run this very interpreter unless the deployment names another: the machine's `python3` has no pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return SparkSession.builder.appName(app_name).getOrCreate()


def map_parts(
    spark: SparkSession, work: Callable[[T], R], parts: Sequence[T], what: str, *, partitions: int | None = None
) -> list[R]:
    """Run `work` once for each part, and return the results in the parts' order.

    One Spark task a part, or `partitions` tasks in all, each with its run of parts.

    `work` reads and writes the lake itself and returns something small. Spark may run a part twice (a lost worker,
    speculation): each try writes files of the attempt anew, and only the driver's publish makes them count.
    """
    _log.info("%s: %d parts", what, len(parts))
    if not parts:
        return []
    # No shuffle and no broadcast: what a part needs travels in its own closure.
    slices = min(partitions or len(parts), len(parts))
    return spark.sparkContext.parallelize(parts, numSlices=slices).map(functools.partial(_run, work)).collect()


def _run(work: Callable[[T], R], part: T) -> R:
    """Run a part, and leave the worker quick to begin its next one.

    Before each task a worker of Spark invalidates all import caches, and Python 3.11 then reads the directory of every
    archive on its path again (python/cpython issue 103200): 0.3 s a task for pyspark.zip and py4j.zip, more than most
    of our parts take. Without a cached finder nothing is read; one is made again when something is imported.
    """
    try:
        return work(part)
    finally:
        for path, finder in list(sys.path_importer_cache.items()):
            if isinstance(finder, zipimport.zipimporter):
                del sys.path_importer_cache[path]
