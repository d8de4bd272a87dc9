"""The Spark session of a job and the one shape its work has: a narrow map over user buckets or item blocks."""

import contextlib
import functools
import logging
import os
import sys
import zipimport
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs.spark_classes import use_kept_classes

T = TypeVar("T")
R = TypeVar("R")

_DAEMON: Final = "spark.python.daemon.module"

# The C library gives a freed array of some MB back to the system, page by page, and takes it anew for the next one.
# Workers keep what they freed instead: one alone ranks faster so; what it brings two side by side is less than what
# their times differ by anyway. Units: bytes.
_KEEP_FREED: Final = {"MALLOC_MMAP_THRESHOLD_": 32 * 1024 * 1024, "MALLOC_TRIM_THRESHOLD_": 512 * 1024 * 1024}

_log = logging.getLogger(__name__)


def open_session(app_name: str) -> SparkSession:
    """Start or join the session; master, memory and the rest are the caller's (spark-submit, the Spark connection)."""
    # Workers run this very interpreter unless the deployment names another: the machine's `python3` has no pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    use_kept_classes()
    for name, size in _KEEP_FREED.items():
        os.environ.setdefault(name, str(size))
    builder = SparkSession.builder.appName(app_name)
    if _forks_workers_here():
        builder = builder.config(_DAEMON, "jobs.worker_daemon")
    return builder.getOrCreate()


def _forks_workers_here() -> bool:
    """Say whether our own daemon may fork the workers: on this machine, where the deployment names no other one.

    Elsewhere a machine may get our code only with its first task, when the daemon runs already.
    """
    SparkContext._ensure_initialized()  # the settings of spark-submit are the JVM's
    given = SparkConf()
    master = given.get("spark.master") or ""
    return (master == "local" or master.startswith("local[")) and given.get(_DAEMON) is None


@contextlib.contextmanager
def opening_session(app_name: str) -> Iterator["Future[SparkSession]"]:
    """Start the session beside other work: the JVM takes some seconds, of which this process waits for nearly all."""
    with ThreadPoolExecutor(1, "spark") as pool:
        yield pool.submit(open_session, app_name)


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
