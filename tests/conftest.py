"""Fixtures for all tests."""

from rehearsal_fixture import rehearsal_server
from spark_fixture import spark

__all__ = ["rehearsal_server", "spark"]
