"""Ports that nobody listens on, and that the system gives to nobody who asks for any.

A port from `bind(("127.0.0.1", 0))` is free the moment after it was closed, but the next socket of any test that runs
beside may get it. Linux and macOS give out ports from 32,768 up (net.ipv4.ip_local_port_range), so those below are left
to whoever names them.
"""

import contextlib
import random
import socket

_NAMED_ALONE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Find different ports of 127.0.0.1 that can be bound."""
    draw, found = random.SystemRandom(), []
    for _ in range(1_000):
        if len(found) == count:
            return found
        port = draw.choice(_NAMED_ALONE)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    raise AssertionError(f"found {len(found)} free ports of {_NAMED_ALONE}; expected {count}")
