"""Everything that one rehearsal provider knows, and the threads that do what is due."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from jobs.rehearsal.audience import ContactLists, FieldDefinitions
from jobs.rehearsal.behaviour import Behaviour
from jobs.rehearsal.bodies import Bodies
from jobs.rehearsal.clock import Clock
from jobs.rehearsal.contacts import Contacts
from jobs.rehearsal.csv_files import CsvFiles
from jobs.rehearsal.csv_imports import CsvImports
from jobs.rehearsal.database import Database
from jobs.rehearsal.erasure import Erasures
from jobs.rehearsal.faults import Faults, FaultSettings
from jobs.rehearsal.history import History
from jobs.rehearsal.import_jobs import ImportJobs
from jobs.rehearsal.mail_events import MailEvents, SentMail
from jobs.rehearsal.mail_send import MailSend
from jobs.rehearsal.single_sends import SingleSends
from jobs.rehearsal.suppressions import Suppressions
from jobs.rehearsal.templates import Templates
from jobs.rehearsal.webhooks import Webhooks

IDLE_SECONDS: Final = 0.5  # how often a worker looks at the clock when nothing wakes it
_log = logging.getLogger(__name__)


class Rehearsal:
    """The parts of one provider, over one SQLite file and what lies beside it."""

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
        self._files = CsvFiles(path.with_name(path.name + "-uploads"))
        self.imports = ImportJobs(
            self.database,
            self.bodies,
            self.faults,
            job_lag_seconds=job_lag_seconds,
            behaviour=lambda: self.behaviour,
            files=self._files,
        )
        self.csv_imports = CsvImports(self.database, self.imports, self._files)
        self.suppressions = Suppressions(self.database)
        self.single_sends = SingleSends(self.database, self.faults)
        self.templates = Templates(self.database)
        self.mail_send = MailSend(self.database, self.templates)
        self.erasures = Erasures(self.database)
        self.webhooks = Webhooks(self.database, self.faults)
        self._wakes = (threading.Event(), threading.Event())
        self._stopping = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, args=arguments, name=name, daemon=True)
            for name, arguments in (
                ("rehearsal-worker", (self.work_once, self._next_due_at, self._wakes[0])),
                ("rehearsal-webhooks", (self.post_once, self.webhooks.next_due_at, self._wakes[1])),
            )
        ]

    def start(self) -> None:
        """Begin to apply jobs, to send what is due, and to post events."""
        for worker in self._workers:
            worker.start()

    def wake(self) -> None:
        """Tell the workers that something new may be due."""
        for wake in self._wakes:
            wake.set()

    def stop(self) -> None:
        """End the workers, breaking off what they are at (transactions are rolled back), and close the files."""
        self._stopping.set()
        self.wake()
        for worker in self._workers:
            while worker.is_alive():
                self.database.interrupt()
                worker.join(timeout=0.05)
        self._files.close()
        self.database.close()
        self.history.close()

    def work_once(self) -> bool:
        """Do one thing that is due; say whether there was one.

        Mails go first, as they do not wait for imports at the provider either: a single send that is triggered while a
        job is pending mails yesterday's contacts.
        """
        now = self.clock()
        for send_next, next_due_at in (
            (self.single_sends.trigger_next, self.single_sends.next_due_at),
            (self.mail_send.send_next, self.mail_send.next_due_at),
        ):
            if self._is_due(next_due_at(), now) and (sent := send_next(now)) is not None:
                self._tell(*sent, now)
                return True
        if self._is_due(self.imports.next_due_at(), now) and self.imports.apply_next(now):
            return True
        if self._is_due(self.erasures.next_due_at(), now) and self.erasures.apply_next(now):
            return True
        return self.lists.purge_step()

    def post_once(self) -> bool:
        """Post one batch of events that is due; say whether there was one."""
        now = self.clock()
        return self._is_due(self.webhooks.next_due_at(), now) and self.webhooks.post_next(now)

    def _tell(self, first: int, end: int, now: datetime) -> None:
        """Make the events of mails that were just sent, if anybody listens or readers do anything."""
        if not self.webhooks.is_wanted() and self.behaviour.readers == Behaviour().readers:
            return
        events = MailEvents(
            self.database,
            self.faults,
            self.suppressions,
            readers=lambda: self.behaviour.readers,
            mail=self._sent_mail(),
        )
        for some in events.of(first, end, now):
            self.webhooks.add(some, now)
        self.wake()

    def _sent_mail(self) -> Callable[[int], SentMail]:
        from jobs.rehearsal.mailbox_pages import Mailbox  # it is made of a provider, which is made here

        mailbox = Mailbox(self)
        return lambda number: mailbox.mail(number, "")

    def _work(
        self, do_once: Callable[[], bool], next_due_at: Callable[[], float | None], wake: threading.Event
    ) -> None:
        while not self._stopping.is_set():
            try:
                if do_once():
                    continue
                now = self.clock().timestamp()
                due_at = next_due_at()
            except sqlite3.Error as error:
                if self._stopping.is_set():
                    return
                _log.error("a rehearsal worker could not finish a step and tries again: %s", type(error).__name__)
                due_at = None
            pause = IDLE_SECONDS if due_at is None else min(IDLE_SECONDS, due_at - now)
            wake.wait(max(0.001, pause))
            wake.clear()

    def _next_due_at(self) -> float | None:
        parts = (self.single_sends, self.mail_send, self.imports, self.erasures)
        return min((at for part in parts if (at := part.next_due_at()) is not None), default=None)

    @staticmethod
    def _is_due(due_at: float | None, now: datetime) -> bool:
        return due_at is not None and due_at <= now.timestamp()
