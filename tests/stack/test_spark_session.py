"""The one shape of Spark work: parts in order, and workers that do not read archives again before each task."""

import sys
import zipimport

from jobs.spark_session import map_parts


def test_a_worker_that_has_run_a_part_reads_no_archive_before_its_next_one(spark):
    def cached_archives(_: int) -> int:
        return sum(isinstance(finder, zipimport.zipimporter) for finder in sys.path_importer_cache.values())

    # One partition a job: one worker runs one part, and is used again for the next job's.
    found = [map_parts(spark, cached_archives, [number], "count archives")[0] for number in range(6)]

    assert len(found) == 6
    assert sum(found[-2:]) == 0, f"archives that stayed cached, task by task: {found}"


def test_results_come_in_the_order_of_the_parts(spark):
    assert map_parts(spark, abs, list(range(-7, 0)), "count", partitions=3) == [7, 6, 5, 4, 3, 2, 1]
