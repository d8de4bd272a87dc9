"""Which processes belong to a stack, and how they end. The only module that uses psutil.

A process belongs if the stack started it and wrote it down, if it descends from one that belongs, or if its environment
has the stack's marker. The marker is what finds a grandchild that began a session of its own and lost its
parent: Airflow gives every task its own process group, and Spark's JVM outlives a killed task.
A pid alone proves nothing, because pids are used again.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no type information is published with it

MARKER = "RYML_STACK_ROOT"
# setproctitle, which Airflow uses, overwrites the environment that other processes can see unless told not to.
MARKER_STAYS_READABLE = {"SPT_NOENV": "1"}
LEADERS_SHARE = 0.4  # of the grace: 2 of 5 s; an Airflow component without running tasks ends in 0.3 to 1.6 s
_POLL_SECONDS = 0.1
_KILL_SECONDS = 10.0  # a process that the kernel has not ended by then hangs in a device and can not be ended


def fingerprint(pid: int) -> str | None:
    """Identify a running process so that a later one with the same pid differs; None if there is none.

    On Linux: boot id and start time in clock ticks, which no change of the clock moves.
    """
    stat, boot = Path(f"/proc/{pid}/stat"), Path("/proc/sys/kernel/random/boot_id")
    try:
        if boot.exists():
            # The command, which may hold blanks, ends with the last parenthesis; then come state and 18 more fields.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            return None if fields[0] in "ZX" else f"{boot.read_text().strip()}/{fields[19]}"
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except (OSError, psutil.Error):
        return None


def members(root: Path, recorded: Iterable[tuple[int, str]]) -> list[int]:
    """List the pids that belong to the stack of this root and run; never the caller and what the caller runs in.

    `recorded` are (pid, fingerprint) pairs; one whose pid went to another process is passed over.
    """
    found: set[int] = {pid for pid, written in recorded if fingerprint(pid) == written}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == str(root):
                found.add(process.pid)
    for pid in tuple(found):
        with suppress(psutil.Error):
            found.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return sorted(pid for pid in found - own if fingerprint(pid) is not None)


def owner_of_port(port: int) -> str | None:
    """Name the process that listens on a TCP port, if the system tells us."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def end_all(
    find: Callable[[], list[int]],
    *,
    leaders: Collection[tuple[int, str]],
    grace_seconds: float,
    reap: Callable[[], None] = lambda: None,
    hurry: Callable[[], bool] = lambda: False,
) -> int:
    """Ask the leaders to terminate, then everybody, then kill what is left; say how many had to be killed.

    Leaders come first because they take their own children along, and in order: an idle worker of Airflow's executor
    that is told to end by itself may die with the queue's lock in its hand, and the scheduler then waits for the others
    for ever. Asked a second time, scheduler and triggerer stop waiting for their tasks and triggers. `find` is asked
    again and again, so that processes born meanwhile are caught. `reap` collects the exit status of direct children,
    which stay zombies otherwise; `hurry` ends the waiting early.
    """
    asked: set[tuple[int, str | None, bool]] = set()
    began = time.monotonic()
    while running := find():
        passed_seconds = time.monotonic() - began
        if passed_seconds >= grace_seconds or hurry():
            break
        for pid in running:
            identity, is_everybody = (pid, fingerprint(pid)), passed_seconds >= LEADERS_SHARE * grace_seconds
            if (is_everybody or identity in leaders) and (*identity, is_everybody) not in asked:
                asked.add((*identity, is_everybody))
                _send(pid, signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
        reap()
    killed: set[int] = set()
    deadline = time.monotonic() + _KILL_SECONDS
    while (running := find()) and time.monotonic() < deadline:
        for pid in running:
            killed.add(pid)
            _send(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
        reap()
    return len(killed)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
