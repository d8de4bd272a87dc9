"""`make stop`: ends the stack of this checkout, or what is left of it, and nothing else."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from ryml_airflow.stack.processes import end_all, members
from ryml_airflow.stack.stack_file import read_record, remove_record
from ryml_airflow.stack.supervisor import GRACE_SECONDS

# The launcher gives its parts GRACE_SECONDS, kills them, and needs a moment for itself.
_LAUNCHER_SECONDS = GRACE_SECONDS + 15.0
_POLL_SECONDS = 0.1


def down(root: Path, *, grace_seconds: float = GRACE_SECONDS) -> str:
    """Stop the launcher, which stops the rest; then whatever has no launcher any more. Say what was done."""
    record = read_record(root)
    launcher = record.launcher if record else None
    was_running = launcher is not None and launcher.is_running
    if launcher is not None and was_running:
        with suppress(ProcessLookupError):
            os.kill(launcher.pid, signal.SIGTERM)
        deadline = time.monotonic() + _LAUNCHER_SECONDS
        while launcher.is_running and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    leftovers = end_leftovers(root, grace_seconds=grace_seconds)
    if was_running:
        return "Stopped." if not leftovers else f"Stopped; {leftovers} processes did not stop with their launcher."
    return f"Stopped {leftovers} processes that had lost their launcher." if leftovers else "Nothing was running."


def end_leftovers(root: Path, *, grace_seconds: float = GRACE_SECONDS) -> int:
    """End every process of this root's stack except the caller, with or without a record of it; say how many."""
    record = read_record(root)
    recorded = [(process.pid, process.fingerprint) for process in record.processes] if record else []
    found = members(root, recorded)
    if found:
        end_all(lambda: members(root, recorded), leaders=recorded, grace_seconds=grace_seconds)
    remove_record(root)
    return len(found)
