"""Starts the parts of the stack, notices when one dies, and ends them all."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ryml_airflow.stack.interruption import Interruption
from ryml_airflow.stack.processes import MARKER, MARKER_STAYS_READABLE, end_all, fingerprint, members
from ryml_airflow.stack.stack_file import RecordedProcess, StackRecord, remove_record, write_record
from schemas.errors import RymlError

# One stop in three, triggerer or DAG processor miss that their own child has ended and wait for 10 s; the scheduler
# waits for its workers without limit. What is worth waiting for is done within 3 s, and every job survives being killed.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 20


class PartDiedError(RymlError):
    """A part of the stack ended although it should not have, or failed."""


@dataclass
class _Part:
    """One started process. A service has to live as long as the stack, a step has to end with status 0."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    is_service: bool


class Supervisor:
    """The stack's processes, each in a session of its own, with its output in a file of its own.

    Waiting is done by `pause`, which looks after the parts all the while.
    """

    def __init__(
        self, *, root: Path, url: str, logs: Path, environment: Mapping[str, str], interruption: Interruption
    ) -> None:
        """Take over an empty stack; nothing is started yet."""
        self._root = root
        self._logs = logs
        self._environment = {**environment, MARKER: str(root), **MARKER_STAYS_READABLE}
        self._interruption = interruption
        self._parts: dict[str, _Part] = {}
        self._record = StackRecord(url, ())

    def __enter__(self) -> Self:
        """Write down the launcher, so that it can be found and stopped from now on."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._write_down("launcher", os.getpid())
        return self

    def __exit__(self, *_exception: object) -> None:
        """Forget the stack, which `stop` has ended."""
        remove_record(self._root)

    def start(self, name: str, command: Sequence[str], *, is_service: bool) -> None:
        """Start one part; its output replaces the log of its last start."""
        log = self._logs / f"{name}.log"
        with self._interruption.shield(), log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the launcher alone
            )
            self._parts[name] = _Part(name, process, log, is_service)
            self._write_down(name, process.pid)

    def is_done(self, name: str) -> bool:
        """Tell whether a step has ended well; `pause` raises if it did not."""
        return self._parts[name].process.poll() == 0

    def pause(self, seconds: float) -> None:
        """Wait while every service lives and no step fails.

        Raises: PartDiedError with the name, the status and the last lines of the log.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._interruption.raise_if_signalled()
            self.check()
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                return
            time.sleep(min(left_seconds, _POLL_SECONDS))

    def check(self) -> None:
        """Look after the parts once, without waiting."""
        for part in self._parts.values():
            status = part.process.poll()
            if status is not None and (part.is_service or status != 0):
                raise PartDiedError(_obituary(part, status))

    def stop(self) -> None:
        """End every process of the stack, whatever became of it."""
        recorded = [(process.pid, process.fingerprint) for process in self._record.processes]
        end_all(
            lambda: members(self._root, recorded),
            leaders=recorded,
            grace_seconds=GRACE_SECONDS,
            reap=self._reap,
            hurry=lambda: self._interruption.is_impatient,
        )
        self._reap()

    def _reap(self) -> None:
        for part in self._parts.values():
            part.process.poll()

    def _write_down(self, name: str, pid: int) -> None:
        process = RecordedProcess(name, pid, fingerprint(pid) or "gone")
        self._record = StackRecord(self._record.url, (*self._record.processes, process))
        write_record(self._root, self._record)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Give the last lines of a log, indented."""
    with log.open(errors="replace") as file:
        return "".join(f"    {line.rstrip()}\n" for line in deque(file, maxlen=lines)).rstrip("\n")


def _obituary(part: _Part, status: int) -> str:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    expected = "it should run as long as the stack" if part.is_service else "expected status 0"
    return (
        f"{part.name} ended with {how}; {expected}. Its last lines, from {part.log}:\n"
        f"{tail(part.log) or '    (nothing)'}"
    )
