"""The one shape of Spark work: parts in order, and workers that do not read archives again before each task."""

import os
import sys
import zipimport
from pathlib import Path

import pytest
from pyspark import SparkConf

from jobs import spark_session
from jobs.spark_session import map_parts
from jobs.worker_daemon import READ_AHEAD


def test_a_worker_that_has_run_a_part_reads_no_archive_before_its_next_one(spark):
    def cached_archives(_: int) -> int:
        return sum(isinstance(finder, zipimport.zipimporter) for finder in sys.path_importer_cache.values())

    # One partition a job: one worker runs one part, and is used again for the next job's.
    found = [map_parts(spark, cached_archives, [number], "count archives")[0] for number in range(6)]

    assert len(found) == 6
    assert sum(found[-2:]) == 0, f"archives that stayed cached, task by task: {found}"


def test_results_come_in_the_order_of_the_parts(spark):
    assert map_parts(spark, abs, list(range(-7, 0)), "count", partitions=3) == [7, 6, 5, 4, 3, 2, 1]


def test_workers_are_forked_with_what_they_need_read_already(spark):
    def known(_: int) -> tuple[bytes, list[str]]:
        return Path(f"/proc/{os.getppid()}/cmdline").read_bytes(), sorted({*names} & {*sys.modules})

    names = ("numba", *READ_AHEAD)
    [(parent, modules)] = map_parts(spark, known, [0], "look around")

    assert b"jobs.worker_daemon" in parent
    assert modules == sorted(names)


@pytest.mark.parametrize(
    ("given", "is_ours"),
    [
        ({"spark.master": "local[2]"}, True),
        ({"spark.master": "local"}, True),
        ({"spark.master": "local-cluster[2,1,1024]"}, False),
        ({"spark.master": "yarn"}, False),
        ({"spark.master": "local[2]", "spark.python.daemon.module": "pyspark.daemon"}, False),
    ],
)
def test_our_daemon_forks_workers_of_this_machine_alone(spark, monkeypatch, given, is_ours):
    assert spark is not None  # a JVM, whose settings are read before
    monkeypatch.setattr(spark_session, "SparkConf", lambda: SparkConf(loadDefaults=False).setAll(list(given.items())))

    assert spark_session._forks_workers_here() is is_ours
