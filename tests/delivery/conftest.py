"""The small night that most tests of the delivery begin with."""

import pytest
from mail_night import mail_base_lake, small_messages
from small_night import PointedLedger, base_lake, small_requests


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A lake with one planned night; every night is a copy of it."""
    return base_lake(tmp_path_factory.mktemp("small_night"))


@pytest.fixture(scope="module")
def ledger():
    """A ledger in memory that each night starts anew."""
    return PointedLedger()


@pytest.fixture
def small(monkeypatch):
    """Requests of a few contacts, so that a small night has several."""
    small_requests(monkeypatch)


@pytest.fixture(scope="session")
def mail_base(tmp_path_factory):
    """The same, planned for Mail Send."""
    return mail_base_lake(tmp_path_factory.mktemp("mail_night"))


@pytest.fixture
def small_mails(monkeypatch):
    """Two mails a request."""
    small_messages(monkeypatch)
