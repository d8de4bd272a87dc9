"""What runs, written down: so that a second `make run` sees the first, and `make stop` finds what a lost one left.

Reads and writes: .airflow/stack.json (launcher, components, URL) and .airflow/stack.lock, which the launcher holds
for as long as it lives, however it ends.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ryml_airflow.stack.processes import fingerprint


@dataclass(frozen=True)
class RecordedProcess:
    """A process and what tells it from a later one with the same pid."""

    name: str
    pid: int
    fingerprint: str

    @property
    def is_running(self) -> bool:
        """The very process that was written down still runs."""
        return fingerprint(self.pid) == self.fingerprint


@dataclass(frozen=True)
class StackRecord:
    """The launcher first, then the components in the order of their start."""

    url: str
    processes: tuple[RecordedProcess, ...]

    @property
    def launcher(self) -> RecordedProcess | None:
        """The process that supervises, if it was written down."""
        return next((process for process in self.processes if process.name == "launcher"), None)


def record_path(root: Path) -> Path:
    """Name the file that says what runs."""
    return root / ".airflow" / "stack.json"


def read_record(root: Path) -> StackRecord | None:
    """Read what was written down; None if nothing was, or if the file is torn."""
    try:
        content = json.loads(record_path(root).read_text())
        return StackRecord(content["url"], tuple(RecordedProcess(**process) for process in content["processes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(root: Path, record: StackRecord) -> None:
    """Replace what is written down, whole or not at all."""
    draft = record_path(root).with_suffix(".draft")
    draft.write_text(json.dumps(asdict(record), indent=1))
    draft.replace(record_path(root))


def remove_record(root: Path) -> None:
    """Forget it: nothing runs any more."""
    record_path(root).unlink(missing_ok=True)


@contextmanager
def stack_lock(root: Path) -> Iterator[bool]:
    """Hold the stack's lock; yields False if another launcher holds it.

    The lock belongs to the open file, which children do not inherit: it is free the moment that the launcher is gone.
    """
    (root / ".airflow").mkdir(exist_ok=True)
    descriptor = os.open(root / ".airflow" / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
