"""The guard that keeps every test on this machine, tried with addresses that nobody has (RFC 5737, RFC 3849)."""

import socket
import urllib.request

import pytest
from loopback_guard import REFUSED, ReachedOut

from jobs.delivery.sendgrid_client import SendGridProvider


@pytest.mark.parametrize(("family", "address"), [
    (socket.AF_INET, ("192.0.2.1", 443)), (socket.AF_INET6, ("2001:db8::1", 443, 0, 0)),
])  # fmt: skip
def test_another_machine_is_refused(family, address):
    with socket.socket(family) as one, pytest.raises(ReachedOut):
        one.connect(address)
    with socket.socket(family) as one, pytest.raises(ReachedOut):
        one.connect_ex(address)
    assert REFUSED[-2:] == [address[0]] * 2


def test_the_mail_client_cannot_leave_either():
    with pytest.raises(ReachedOut):
        SendGridProvider("SG.key", "https://192.0.2.1").list_size("x")
    with pytest.raises(ReachedOut):
        urllib.request.urlopen("http://192.0.2.1/", timeout=1)


def test_this_machine_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
