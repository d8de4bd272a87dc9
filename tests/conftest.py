"""Fixtures for all tests."""

from airflow_fixture import airflow_db, dagbag
from rehearsal_fixture import rehearsal_server
from spark_fixture import spark

__all__ = ["airflow_db", "dagbag", "rehearsal_server", "spark"]


def pytest_addoption(parser):
    """Add the switch of `make golden`."""
    parser.addoption("--golden", action="store_true", help="write golden files anew")
