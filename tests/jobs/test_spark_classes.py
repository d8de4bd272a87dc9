"""The JVM maps the classes that were kept, and starts without them where it can not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import spark_classes
from jobs.spark_classes import VARIABLE, archive, is_whole, use_kept_classes

needs_kept = pytest.mark.skipif(not is_whole(), reason="no classes are kept here; make install keeps them")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(spark_classes.sys, "prefix", str(tmp_path / "an environment"))
    archive().parent.mkdir(parents=True)
    return archive()


def keep(file, content, length):
    file.write_bytes(content)
    file.with_suffix(".bytes").write_text(length)


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
    keep(kept, b"classes", "7")
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


@pytest.mark.parametrize("length", ["", "8", "6", "seven"])
def test_what_is_not_as_long_as_it_was_is_not_used(kept, length):
    keep(kept, b"classes", length)
    use_kept_classes()
    assert VARIABLE not in os.environ


def broken(whole, how):
    """Give kept classes that were cut short, or in which one byte is another."""
    if how == "cut":
        return whole[: len(whole) // 2]
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :]


@needs_kept
@pytest.mark.parametrize("how", ["cut", "another byte"])
def test_a_broken_file_costs_time_and_nothing_else(tmp_path, monkeypatch, how):
    monkeypatch.delenv(VARIABLE, raising=False)
    whole = archive().read_bytes()
    monkeypatch.setattr(spark_classes.sys, "prefix", str(tmp_path))
    archive().parent.mkdir(parents=True)
    keep(archive(), broken(whole, how), str(len(whole)))
    use_kept_classes()
    assert (VARIABLE in os.environ) == (how == "another byte")
    assert not start(tmp_path)
