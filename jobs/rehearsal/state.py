"""Everything that one rehearsal provider knows, and the thread that does what is due."""

import logging
import sqlite3
import threading
from datetime import datetime
from pathlib import Path
from typing import Final

from jobs.rehearsal.audience import ContactLists, FieldDefinitions
from jobs.rehearsal.behaviour import Behaviour
from jobs.rehearsal.bodies import Bodies
from jobs.rehearsal.clock import Clock
from jobs.rehearsal.contacts import Contacts
from jobs.rehearsal.database import Database
from jobs.rehearsal.faults import Faults, FaultSettings
from jobs.rehearsal.history import History
from jobs.rehearsal.import_jobs import ImportJobs
from jobs.rehearsal.single_sends import SingleSends
from jobs.rehearsal.suppressions import Suppressions

IDLE_SECONDS: Final = 0.5  # how often the worker looks at the clock when nothing wakes it
_log = logging.getLogger(__name__)


class Rehearsal:
    """The parts of one provider, over one SQLite file and the history beside it."""

    def __init__(
        self, path: Path, *, job_lag_seconds: float, clock: Clock | None = None, faults: FaultSettings | None = None
    ) -> None:
        """Open or make the state at `path`."""
        self.clock = clock or Clock()
        self.database = Database(path)
        self.history = History(path.with_name(path.name + "-history"))
        self.faults = Faults(faults)
        self.behaviour = Behaviour()
        self.fields = FieldDefinitions(self.database)
        self.lists = ContactLists(self.database, self.faults)
        self.bodies = Bodies(self.database)
        self.contacts = Contacts(self.database, self.bodies, self.faults)
        self.imports = ImportJobs(
            self.database,
            self.bodies,
            self.faults,
            job_lag_seconds=job_lag_seconds,
            behaviour=lambda: self.behaviour,
        )
        self.suppressions = Suppressions(self.database)
        self.single_sends = SingleSends(self.database, self.faults)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._work, name="rehearsal-worker", daemon=True)

    def start(self) -> None:
        """Begin to apply jobs and to trigger single sends when they are due."""
        self._worker.start()

    def wake(self) -> None:
        """Tell the worker that something new may be due."""
        self._wake.set()

    def stop(self) -> None:
        """End the worker, breaking off what it is at (its transaction is rolled back), and close the files."""
        self._stopping.set()
        self.wake()
        while self._worker.is_alive():
            self.database.interrupt()
            self._worker.join(timeout=0.05)
        self.database.close()
        self.history.close()

    def work_once(self) -> bool:
        """Do one thing that is due; say whether there was one.

        Single sends go first, as they do not wait for imports at the provider either: one that is triggered while a job
        is pending mails yesterday's contacts.
        """
        now = self.clock()
        if self._is_due(self.single_sends.next_due_at(), now) and self.single_sends.trigger_next(now):
            return True
        if self._is_due(self.imports.next_due_at(), now) and self.imports.apply_next(now):
            return True
        return self.lists.purge_step()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.work_once():
                    continue
            except sqlite3.Error as error:
                if not self._stopping.is_set():
                    _log.error("the rehearsal worker could not finish a step and tries again: %s", type(error).__name__)
            self._wake.wait(self._pause_seconds())
            self._wake.clear()

    def _pause_seconds(self) -> float:
        now = self.clock().timestamp()
        due_at = [at for at in (self.single_sends.next_due_at(), self.imports.next_due_at()) if at is not None]
        return max(0.001, min([IDLE_SECONDS, *(at - now for at in due_at)]))

    @staticmethod
    def _is_due(due_at: float | None, now: datetime) -> bool:
        return due_at is not None and due_at <= now.timestamp()
