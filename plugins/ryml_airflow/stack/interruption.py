"""Ctrl-C, `kill` and a closed terminal, as one exception that is raised at most once."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_OUTPUT = 1  # file descriptor
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedBySignalError(BaseException):
    """A stop signal arrived. Not an `Exception`, so that no `except Exception` on the way swallows it."""

    def __init__(self, signal_number: int) -> None:
        """Keep the signal: the exit status of an interrupted command is 128 + its number."""
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """What a shell reports for a command that this signal ended."""
        return 128 + self.signal_number


class Interruption:
    """Turns the first stop signal into `InterruptedBySignalError`, wherever the program is just then.

    Raised only once: clean-up after it can not be interrupted half-way by a second signal. The second one is counted
    (`is_impatient`), for whoever cleans up to hurry.
    """

    def __init__(self) -> None:
        """Start with no signal seen; `installed` begins to listen."""
        self._first: int | None = None
        self._count = 0
        self._raised = False
        self._shields = 0
        self._terminal: select.poll | None = None

    @property
    def is_impatient(self) -> bool:
        """A second signal arrived: stop waiting for anything to end by itself."""
        return self._count > 1

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to the stop signals, except those that the caller had set to be ignored (`nohup`, `&` in scripts)."""
        previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        heard = [number for number in STOP_SIGNALS if previous[number] is not signal.SIG_IGN]
        for number in heard:
            signal.signal(number, self._handle)
        if signal.SIGHUP in heard and os.isatty(_OUTPUT):
            self._terminal = select.poll()
            self._terminal.register(_OUTPUT, 0)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, previous[number])

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold a signal back until the block is done, for steps that must not be cut in two."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        self.raise_if_signalled()

    def raise_if_signalled(self) -> None:
        """Raise a signal that came while it could not be raised (shielded, or inside a destructor).

        A terminal that is gone counts as one: of a session that is `make` alone (ssh -t host make run) nobody is told.
        """
        if self._first is None and self._terminal is not None and self._terminal.poll(0):
            self._first = signal.SIGHUP
        if self._first is not None and not self._raised and not self._shields:
            self._raised = True
            raise InterruptedBySignalError(self._first)

    def _handle(self, signal_number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._first is None:
            self._first = signal_number
        self.raise_if_signalled()
