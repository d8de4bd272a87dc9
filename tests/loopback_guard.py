"""No test reaches another machine: a connection to anything but this one is refused before a packet leaves.

A live provider, a mail server or a download would be one wrong setting away otherwise. Child processes that are started
anew (Spark's JVM) are not covered; the code under test that speaks HTTP is.
"""

import ipaddress
import socket
from typing import Any

REFUSED: list[str] = []  # every address that was asked for, for the test of the guard


class ReachedOut(Exception):
    """A test tried to connect to another machine."""


def is_here(family: int, address: Any) -> bool:
    """Whether an address of the socket module is on this machine."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_other_machines() -> None:
    """Put the guard in front of every socket of this process, for good."""
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, original: Any = original) -> Any:
            if not is_here(self.family, address):
                REFUSED.append(str(address[0]))
                raise ReachedOut(f"a test connects to {address[0]}; expected this machine alone. Use a local server")
            return original(self, address)

        setattr(socket.socket, name, guarded)
