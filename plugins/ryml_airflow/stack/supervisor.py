"""Starts the parts of the stack, notices when one dies, and ends them all."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ryml_airflow.stack.interruption import InterruptedBySignalError, Interruption
from ryml_airflow.stack.processes import MARKER, MARKER_STAYS_READABLE, end_all, fingerprint, members
from ryml_airflow.stack.stack_file import RecordedProcess, StackRecord, remove_record, write_record
from schemas.errors import RymlError

# One stop in three, triggerer or DAG processor miss that their own child has ended and wait for 10 s; the scheduler
# waits for its workers without limit. What is worth waiting for is done in 3 s, and every job survives being killed.
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
        self,
        *,
        root: Path,
        url: str,
        logs: Path,
        environment: Mapping[str, str],
        interruption: Interruption,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Prepare; nothing is started yet. `url` is for those who find the stack running."""
        self._root = root
        self._grace_seconds = grace_seconds
        self._logs = logs
        self._environment = {**environment, MARKER: str(root), **MARKER_STAYS_READABLE}
        self._interruption = interruption
        self._parts: dict[str, _Part] = {}
        self._record = StackRecord(url, ())

    def run(self, body: Callable[[], int]) -> int:
        """Call the body, which starts the parts; when it is over, however it ends, no process is left. Give its result.

        The launcher is written down first, so that it can be found and stopped all the while.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        self._write_down("launcher", os.getpid())
        try:
            try:
                return body()
            finally:
                self._stop()
        except InterruptedBySignalError:
            self._stop()  # the signal may have come in the middle of the line above; it comes only once
            raise
        finally:
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

    def _stop(self) -> None:
        recorded = [(process.pid, process.fingerprint) for process in self._record.processes]
        end_all(
            lambda: members(self._root, recorded),
            leaders=recorded,
            grace_seconds=self._grace_seconds,
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
