"""Fixtures for all tests."""

from airflow_fixture import airflow_db, dagbag
from fork_server import forks
from hypothesis import HealthCheck, settings
from loopback_guard import refuse_other_machines
from rehearsal_fixture import receiver, rehearsal_server
from scoreboard_fixture import print_scoreboard, scoreboard
from spark_fixture import spark

__all__ = ["airflow_db", "dagbag", "forks", "receiver", "rehearsal_server", "scoreboard", "spark"]


refuse_other_machines()
# How fast a machine draws or runs an example decides nothing.
settings.register_profile("ryml", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ryml")


def pytest_addoption(parser):
    """Add the switch of `make golden`."""
    parser.addoption("--golden", action="store_true", help="write golden files anew")


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Print the figures of `make scoreboard`."""
    print_scoreboard(terminalreporter, config)
