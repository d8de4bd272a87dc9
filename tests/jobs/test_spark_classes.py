"""The JVM maps the classes that were kept, and starts without them where it can not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import spark_classes
from jobs.spark_classes import VARIABLE, archive, use_kept_classes

needs_kept = pytest.mark.skipif(not archive().exists(), reason="no classes are kept here; make install keeps them")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(spark_classes.sys, "prefix", str(tmp_path / "an environment"))
    return archive()


def start(tmp_path):
    """Start spark-submit's JVM; return which files it took classes from."""
    log = tmp_path / "classes.log"
    options = f"{os.environ.get(VARIABLE, '')} -Xlog:class+load:file={log}"
    command = [Path(sys.executable).parent / "spark-submit", "--version"]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, VARIABLE: options}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()
    loaded = log.read_text().splitlines()
    assert len(loaded) > 500
    return [line for line in loaded if "shared objects file (top)" in line]


def test_nothing_is_asked_of_the_jvm_where_nothing_was_kept(kept):
    use_kept_classes()
    assert VARIABLE not in os.environ


def test_what_was_asked_for_before_stays_and_nothing_is_asked_twice(kept, monkeypatch):
    kept.parent.mkdir(parents=True)
    kept.touch()
    monkeypatch.setenv(VARIABLE, "-Dname=value")
    use_kept_classes()
    use_kept_classes()
    assert os.environ[VARIABLE].startswith(f'-Dname=value "-XX:SharedArchiveFile={kept}" ')
    assert os.environ[VARIABLE].count("SharedArchiveFile") == 1


@needs_kept
def test_the_jvm_maps_them(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not start(tmp_path)
    use_kept_classes()
    assert len(start(tmp_path)) > 100


@needs_kept
def test_a_broken_file_costs_time_and_nothing_else(tmp_path, kept, monkeypatch):
    monkeypatch.undo()
    whole = archive().read_bytes()
    monkeypatch.setattr(spark_classes.sys, "prefix", str(tmp_path / "an environment"))
    monkeypatch.delenv(VARIABLE, raising=False)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(whole[: len(whole) // 2])
    use_kept_classes()
    assert not start(tmp_path)
