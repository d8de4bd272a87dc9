"""How long a Spark job that does nothing takes, with what is kept and read ahead for it and without.

Each is a spark-submit with two workers, as Airflow starts it, from its start to its end: JVM, session, one map in
Python. In turn, so that a machine that slows down slows both; the median counts. First the classes of Spark's JVM are
kept or not (jobs/spark_classes.py), for a map that needs nothing; then the workers of a map that reads a table and runs
a compiled loop are forked with that in their memory (jobs/worker_daemon.py) or read it each for itself.

Run: PYTHONPATH=. .venv/bin/python bench/session_start.py [--runs 5]
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.export_rows import measure
from jobs.spark_classes import VARIABLE, archive, is_whole, use_kept_classes

NOTHING = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
print(sum(spark.sparkContext.parallelize([1, 2], 2).map(int).collect()))
spark.stop()
"""
LITTLE = """
from jobs.spark_session import map_parts, open_session
spark = open_session("little")
def work(part):
    from jobs.worker_daemon import read_ahead
    read_ahead()
    return part
print(sum(map_parts(spark, work, [1, 2], "little")))
spark.stop()
"""
# As in Airflow: see SPARK_CONF in plugins/ryml_airflow/launch.py.
CONF = (
    "spark.ui.enabled=false", "spark.log.level=WARN", "spark.driver.memory=1g",
    "spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


def main(runs: int) -> None:
    """Print the medians of both, and the ratio, of each comparison."""
    if not is_whole():
        sys.exit(f"{archive()} is missing or cut short; expected the classes to be kept. Run make install")
    use_kept_classes()
    kept = {VARIABLE: os.environ[VARIABLE]}
    daemons = {"for themselves": ("spark.python.daemon.module=pyspark.daemon",), "ahead": ()}
    _compare("classes", NOTHING, {"plain": ((), {VARIABLE: ""}), "kept": ((), kept)}, runs)
    _compare("workers read", LITTLE, {name: (conf, kept) for name, conf in daemons.items()}, runs)


def _compare(what: str, script: str, ways: dict[str, tuple[tuple[str, ...], dict[str, str]]], runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.py"
        file.write_text(script)
        own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        commands = {
            name: [Path(sys.prefix) / "bin" / "spark-submit", "--master", "local[2]",
                   *(part for value in (*CONF, *more) for part in ("--conf", value)), file]
            for name, (more, _) in ways.items()
        }  # fmt: skip
        found = [{name: measure(commands[name], **own, **ways[name][1]) for name in ways} for _ in range(runs)]
    seconds = {name: statistics.median(run[name].seconds for run in found) for name in ways}
    cpu = {name: statistics.median(run[name].cpu_seconds for run in found) for name in ways}
    for name in ways:
        print(f"  {what} {name:<15}{seconds[name]:6.1f} s {cpu[name]:6.1f} CPU s")
    before, after = seconds.values()
    print(f"median of {runs} each: {before / after:.2f} times as fast; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    main(**vars(parser.parse_args()))
