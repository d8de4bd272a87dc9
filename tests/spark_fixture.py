"""One Spark session for all tests that need one; its Python workers find the repository as they do under Airflow."""

import os
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def spark():
    """A local session with two workers, as jobs open it."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    given = {"spark.ui.enabled": "false", "spark.log.level": "ERROR"}
    given |= dict.fromkeys(("spark.driver.host", "spark.driver.bindAddress"), "127.0.0.1")
    settings = " ".join(f"--conf {name}={value}" for name, value in given.items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--master local[2] {settings} pyspark-shell"
    from jobs.spark_session import open_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the session's start warns of its own deprecated imports
        session = open_session("tests")
    yield session
    session.stop()
