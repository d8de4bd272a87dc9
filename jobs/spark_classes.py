"""The classes that Spark's JVM loads, kept in a file that the next JVM maps: a job starts sooner.

A night starts a JVM for each of its Spark jobs, and most of what each does before its first task is to read, check and
link the same 10,000 classes out of the jars. Class-data sharing (JEP 350) keeps them linked, 100 MB beside the packages
of this environment. The JVM itself looks whether the file is of its own release and of these very jars, adds up its
checksums, and starts without it where something is not right: it is for speed alone, and may be missing. Only of a file
that was cut short a JVM dies (17.0.15), so that its length is kept beside it.

Run: python -m jobs.spark_classes     (once on each machine that submits jobs; `make install` does it)
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "SPARK_SUBMIT_OPTS"  # what spark-submit hands to the JVM that it becomes
_QUIETLY: Final = "-Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off"
_CHECKED: Final = "-XX:+VerifySharedSpaces"
_LOAD: Final = "--load"


def archive() -> Path:
    """Say where the classes are kept: with the packages whose jars they are of."""
    return Path(sys.prefix) / "share" / "ryml" / "spark-classes.jsa"


def is_whole() -> bool:
    """Say whether there are kept classes, as long as they were when they were kept."""
    try:
        return archive().stat().st_size == int(_length_of(archive()).read_text())
    except (OSError, ValueError):
        return False


def use_kept_classes() -> None:
    """Let every JVM that this process and its children start map the kept classes, if there are any."""
    given = os.environ.get(VARIABLE, "")
    if "-XX:SharedArchiveFile" not in given and is_whole():
        os.environ[VARIABLE] = f'{given} "-XX:SharedArchiveFile={archive()}" {_CHECKED} {_QUIETLY}'.strip()


def keep_classes() -> Path:
    """Start a session that does a little of everything, and keep what its JVM loaded. Takes half a minute.

    Raises: CalledProcessError if Spark does not run.
    """
    file = archive()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        options = f'"-XX:ArchiveClassesAtExit={made}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 {_QUIETLY}'
        command = [str(Path(sys.prefix) / "bin" / "spark-submit"), "--master", "local[1]"]
        quiet = ["--conf", "spark.ui.enabled=false", "--conf", "spark.log.level=ERROR"]
        subprocess.run(
            [*command, *quiet, __file__, _LOAD], check=True, capture_output=True,
            env={"SPARK_LOCAL_IP": "127.0.0.1", **os.environ, "PYSPARK_PYTHON": sys.executable, VARIABLE: options},
        )  # fmt: skip
        _length_of(file).write_text(str(made.stat().st_size))
        made.replace(file)
    return file


def _length_of(file: Path) -> Path:
    return file.with_suffix(".bytes")


def _load() -> None:
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.getOrCreate()
    # As jobs.spark_session.map_parts does it: its own module would need the repository on the workers' path.
    spark.sparkContext.parallelize(range(2), 2).map(str).collect()
    spark.stop()


if __name__ == "__main__":
    if sys.argv[1:] == [_LOAD]:
        _load()
    else:
        keep_classes()
