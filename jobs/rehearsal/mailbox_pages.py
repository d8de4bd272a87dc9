"""The mailbox: the mails as each recipient would see them, for whoever sits at this machine.

Pages carry no script and load nothing from elsewhere. The mail itself is shown in a sandboxed frame under a content
policy of its own; pictures from other hosts are shown only when asked for, as mail programs do it.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2

from jobs.rehearsal.database import id_from
from jobs.rehearsal.handlebars import render
from jobs.rehearsal.limits import not_found
from jobs.rehearsal.mail_send import sent_content
from jobs.rehearsal.state import Rehearsal
from jobs.rehearsal.suppressions import GLOBAL_UNSUBSCRIBES, GROUP_UNSUBSCRIBES

MAILS_PER_PAGE: Final = 25
SENDS_SHOWN: Final = 30
PREVIEW_CHARACTERS: Final = 160
_PAGES: Final = Path(__file__).parent / "pages"
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# What SendGrid's sender tags hold; there they come from the verified sender of the single send.
SENDER: Final = {
    "Sender_Name": "Rehearsal shop",
    "Sender_Address": "1 Example Street",
    "Sender_City": "Exampleton",
    "Sender_State": "EX",
    "Sender_Zip": "00000",
    "Sender_Country": "Nowhere",
}


def mail_policy(*, is_remote_allowed: bool) -> str:
    """Give the content policy of a mail: styles of its own, pictures of this machine, and nothing that runs."""
    remote = " https: http:" if is_remote_allowed else " http://127.0.0.1:* http://localhost:*"
    return (
        f"default-src 'none'; img-src 'self'{remote}; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
    )


@dataclass(frozen=True)
class Mail:
    """One mail as its recipient sees it."""

    number: int
    address: str
    sent_at: str
    send_name: str
    send_id: str
    subject: str
    html: str
    text: str
    fields: Mapping[str, str]
    group: int  # that the unsubscribe link is for; 0: everything
    unsubscribe_url: str
    event_fields: Mapping[str, Any]

    @property
    def preview(self) -> str:
        """Give the beginning of the text, as lists of mails show it after the subject."""
        words = " ".join(self.text.split())
        return words.removeprefix(self.subject).strip()[:PREVIEW_CHARACTERS]


class Mailbox:
    """Reads the mails that single sends became, and renders them."""

    def __init__(self, provider: Rehearsal) -> None:
        """Show the mails of `provider`."""
        self._provider = provider
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_PAGES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
        self._pages.filters["instant"] = lambda at: f"{at[:10]} {at[11:16]} UTC"

    def stylesheet(self) -> str:
        """Give the style of all pages."""
        return (_PAGES / "mailbox.css").read_text("utf-8")

    def overview(self, *, send_id: str, address: str, before: int, page: int, host: str) -> str:
        """Render the list of sends and one page of mails.

        Mails are newest first, those numbered below `before` (0: all); with `address`, those whose address begins so,
        in the order of addresses, `page` counting from 0.
        """
        rows = self._found(address, page) if address else self._newest(send_id, before)
        shown = rows[:MAILS_PER_PAGE]
        return self._render(
            "overview.html",
            sends=self._sends(),
            totals={
                "contacts": self._provider.contacts.count(),
                "mails": int(self._value("SELECT count(*) FROM mails")),
                "sends": int(self._value("SELECT count(*) FROM single_sends WHERE status = 'triggered'")),
                "imports": self._provider.imports.pending(),
            },
            mails=[self._mail(row, host) for row in shown],
            has_more=len(rows) > MAILS_PER_PAGE,
            last=shown[-1]["mail"] if shown else 0,
            send_id=send_id,
            address=address,
            before=before,
            page=page,
        )

    def mail(self, number: int, host: str) -> Mail:
        """Render one mail; raises ApiError 404."""
        row = self._provider.database.row(f"{_MAILS} WHERE m.mail = ?", (number,))
        if row is None:
            raise not_found("mail not found")
        return self._mail(row, host)

    def mail_page(self, number: int, host: str, *, is_remote_allowed: bool) -> str:
        """Render the page around a mail."""
        mail = self.mail(number, host)
        neighbours = {
            "newer": self._value("SELECT min(mail) FROM mails WHERE mail > ?", number),
            "older": self._value("SELECT max(mail) FROM mails WHERE mail < ?", number),
        }
        return self._render("mail.html", mail=mail, sender=SENDER, is_remote_allowed=is_remote_allowed, **neighbours)

    def unsubscribe_page(self, number: int, host: str, *, is_done: bool) -> str:
        """Render the page behind the mail's unsubscribe link."""
        return self._render("unsubscribe.html", mail=self.mail(number, host), is_done=is_done)

    def unsubscribe(self, number: int) -> None:
        """Take the recipient of a mail off: out of the send's group, or of everything if it has none."""
        mail = self.mail(number, "")
        kind = GROUP_UNSUBSCRIBES if mail.group else GLOBAL_UNSUBSCRIBES
        at = int(self._provider.clock().timestamp())
        self._provider.suppressions.add(kind, [mail.address], at, group=mail.group)

    def error_page(self, status: int, message: str) -> str:
        """Render what went wrong."""
        return self._render("error.html", status=status, message=message)

    def _render(self, template: str, **values: Any) -> str:
        return self._pages.get_template(template).render(**values)

    def _value(self, query: str, *parameters: Any) -> Any:
        return self._provider.database.value(query, parameters)

    def _sends(self) -> list[dict[str, Any]]:
        rows = self._provider.database.rows(
            "SELECT * FROM single_sends WHERE status <> 'deleted' ORDER BY single_send DESC LIMIT ?", (SENDS_SHOWN,)
        )
        return [
            {
                "id": row["id"],
                "name": row["name"],
                "status": row["status"],
                "at": row["triggered_at"] or row["send_at"] or row["created_at"],
                "delivered": row["delivered"],
                "dropped": row["requests"] - row["delivered"],
            }
            for row in rows
        ]

    def _newest(self, send_id: str, before: int) -> list[sqlite3.Row]:
        first, end = 1, 2**62
        if send_id:
            send = self._provider.single_sends.row(send_id)
            first = send["first_mail"] or end
            end = first + send["delivered"]
        end = min(end, before) if before else end
        return self._provider.database.rows(
            f"{_MAILS} WHERE m.mail >= ? AND m.mail < ? ORDER BY m.mail DESC LIMIT ?", (first, end, MAILS_PER_PAGE + 1)
        )

    def _found(self, address: str, page: int) -> list[sqlite3.Row]:
        start = address.strip().lower()
        return self._provider.database.rows(
            f"{_MAILS} WHERE m.email >= ? AND m.email < ? ORDER BY m.email, m.single_send DESC LIMIT ? OFFSET ?",
            (start, start + "\U0010ffff", MAILS_PER_PAGE + 1, page * MAILS_PER_PAGE),
        )

    def _mail(self, row: sqlite3.Row, host: str) -> Mail:
        if row["message"] is not None:
            return self._sent_message(row, host)
        config = json.loads(row["email_config"])
        names = self._provider.fields.names()
        fields = {names[field]: value for field, value in self._provider.contacts.fields(row).items()}
        data = {**json.loads(row["profile"]), "email": row["email"], **fields}
        link = config["custom_unsubscribe_url"] or f"{host}/unsubscribe/{row['mail']}"
        values = {**SENDER, **data, "unsubscribe": link, "unsubscribe_preferences": link}
        return Mail(
            number=row["mail"],
            address=row["email"],
            sent_at=row["sent_at"],
            send_name=row["name"],
            send_id=row["send_id"],
            subject=render(config["subject"], values),
            html=render(config["html_content"], values),
            text=render(config["plain_content"], values),
            fields={name: str(value) for name, value in sorted(data.items())},
            group=config["suppression_group_id"] or 0,
            unsubscribe_url=link,
            event_fields={
                "category": json.loads(row["categories"]),
                "mc_stats": "singlesend",
                "phase_id": "send",
                "sg_message_id": f"{id_from('message of', row['send_id'], row['mail'])}.recvd-0",
                "sg_template_id": row["send_id"],
                "sg_template_name": row["name"],
                "singlesend_id": row["send_id"],
                "singlesend_name": row["name"],
                "template_id": row["send_id"],
                **({"asm_group_id": config["suppression_group_id"]} if config["suppression_group_id"] else {}),
            },
        )

    def _sent_message(self, row: sqlite3.Row, host: str) -> Mail:
        """Show a mail of Mail Send."""
        message_id, payload = self._provider.mail_send.message(row["message"])
        entry = payload["personalizations"][row["personalization"]]
        content = sent_content(payload, row["personalization"], self._provider.templates)
        link = f"{host}/unsubscribe/{row['mail']}"
        values = {**SENDER, **content["data"], "unsubscribe": link, "unsubscribe_preferences": link}
        group = (payload.get("asm") or {}).get("group_id") or 0
        return Mail(
            number=row["mail"],
            address=row["email"],
            sent_at=row["sent_at"],
            send_name=f"message {message_id}",
            send_id="",
            subject=render(content["subject"], values),
            html=render(content["html_content"], values),
            text=render(content["plain_content"], values),
            fields={name: str(value) for name, value in sorted(content["data"].items())},
            group=group,
            unsubscribe_url=link,
            event_fields={
                **(payload.get("custom_args") or {}),
                **(entry.get("custom_args") or {}),
                "sg_message_id": f"{message_id}.recvd-0-{row['mail']}",
                **({"category": payload["categories"]} if payload.get("categories") else {}),
                **({"asm_group_id": group} if group else {}),
            },
        )


_MAILS: Final = (
    "SELECT m.mail, m.email, m.profile, m.fields, m.body, m.position, m.over_body, m.over_position, m.sent_at, "
    "m.message, m.personalization, s.name, s.id AS send_id, s.email_config, s.categories "
    "FROM mails AS m LEFT JOIN single_sends AS s ON s.single_send = m.single_send"
)
