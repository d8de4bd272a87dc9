"""How long a Spark job that does nothing takes, with the classes of Spark's JVM kept and without.

Each is a spark-submit with two workers, as Airflow starts it, from its start to its end: JVM, session, one map in
Python. In turn, so that a machine that slows down slows both; the median counts. See jobs/spark_classes.py.

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
# As in Airflow: see SPARK_CONF in plugins/ryml_airflow/launch.py.
CONF = (
    "spark.ui.enabled=false", "spark.log.level=WARN", "spark.driver.memory=1g",
    "spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
)  # fmt: skip


def main(runs: int) -> None:
    """Print the median of both, and the ratio."""
    if not is_whole():
        sys.exit(f"{archive()} is missing or cut short; expected the classes to be kept. Run make install")
    use_kept_classes()
    options = {"plain": "", "kept": os.environ[VARIABLE]}
    conf = [part for value in CONF for part in ("--conf", value)]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "nothing.py"
        script.write_text(NOTHING)
        command = [Path(sys.prefix) / "bin" / "spark-submit", "--master", "local[2]", *conf, script]
        own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
        found = [{name: measure(command, **own, **{VARIABLE: given}) for name, given in options.items()}
                 for _ in range(runs)]  # fmt: skip
    seconds = {name: statistics.median(run[name].seconds for run in found) for name in options}
    cpu = {name: statistics.median(run[name].cpu_seconds for run in found) for name in options}
    for name in options:
        print(f"  classes {name:<6}{seconds[name]:6.1f} s {cpu[name]:6.1f} CPU s")
    print(
        f"median of {runs} each: {seconds['plain'] / seconds['kept']:.2f} times as fast; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    main(**vars(parser.parse_args()))
