"""What becomes of mails after they are sent: the events that a webhook hears, and what readers do.

Readers do nothing unless the behaviour says so; who does what is decided by hash, as faults are.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from jobs.rehearsal.behaviour import Readers
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults
from jobs.rehearsal.suppressions import GLOBAL_UNSUBSCRIBES, GROUP_UNSUBSCRIBES, Suppressions

MAILS_PER_STEP: Final = 2_000
_LINK: Final = re.compile(r'<a\s[^>]*?href="(https?://[^"]+)"')
_USER_AGENT: Final = "Mozilla/5.0 (rehearsal)"


class SentMail(Protocol):
    """What this module needs to know of a mail."""

    @property
    def number(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def html(self) -> str: ...
    @property
    def group(self) -> int: ...
    @property
    def unsubscribe_url(self) -> str: ...
    @property
    def event_fields(self) -> Mapping[str, Any]: ...


class MailEvents:
    """Makes the events of mails, and does what readers do."""

    def __init__(
        self,
        database: Database,
        faults: Faults,
        suppressions: Suppressions,
        *,
        readers: Callable[[], Readers],
        mail: Callable[[int], SentMail],
    ) -> None:
        """Read mails with `mail`, by number."""
        self._database = database
        self._faults = faults
        self._suppressions = suppressions
        self._readers = readers
        self._mail = mail

    def of(self, first: int, end: int, now: datetime) -> Iterator[list[dict[str, Any]]]:
        """Give the events of the mails from `first` to before `end`, in lists of some thousand."""
        for start in range(first, end, MAILS_PER_STEP):
            events: list[dict[str, Any]] = []
            for row in self._database.rows(
                "SELECT mail FROM mails WHERE mail >= ? AND mail < ?", (start, min(end, start + MAILS_PER_STEP))
            ):
                events += self._of_mail(self._mail(row["mail"]), now)
            yield events

    def _of_mail(self, mail: SentMail, now: datetime) -> list[dict[str, Any]]:
        at = int(now.timestamp())
        readers = self._readers()

        def does(what: str, rate: float) -> bool:
            return self._faults.share("reader", what, mail.number) < rate

        def event(name: str, seconds: int, **more: Any) -> dict[str, Any]:
            key = id_from(mail.number, mail.address, name, *more.values())
            fields = {"email": mail.address, "timestamp": at + seconds, "event": name, "key": key}
            return {**mail.event_fields, **fields, **more}

        found = [event("processed", 0)]
        if does("bounce", readers.bounce):
            self._suppressions.add("bounces", [mail.address], at, reason="550 no such user")
            return [*found, event("bounce", 1, type="bounce", reason="550 no such user", status="5.1.1")]
        found.append(event("delivered", 1, response="250 OK"))
        agent = {"useragent": _USER_AGENT, "ip": "127.0.0.1"}
        if does("open", readers.open):
            found.append(event("open", 60, sg_machine_open=False, **agent))
        links = [link for link in _LINK.findall(mail.html) if link != mail.unsubscribe_url]
        if links and does("click", readers.click):
            index = int(self._faults.share("link", mail.number) * len(links))
            url = links[index].replace("&#x3D;", "=").replace("&amp;", "&")
            found.append(event("click", 90, url=url, url_offset={"index": index, "type": "html"}, **agent))
        if does("unsubscribe", readers.unsubscribe):
            kind = GROUP_UNSUBSCRIBES if mail.group else GLOBAL_UNSUBSCRIBES
            self._suppressions.add(kind, [mail.address], at, group=mail.group)
            found.append(event("group_unsubscribe" if mail.group else "unsubscribe", 120, **agent))
        if does("spam", readers.spam_report):
            self._suppressions.add("spam_reports", [mail.address], at)
            found.append(event("spamreport", 150))
        return found
