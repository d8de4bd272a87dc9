"""Mail Send: messages with a template, at once or at an instant, alone or in a batch that can be paused or cancelled.

There is no key by which a repeated request is known: who asks twice mails twice, here as at SendGrid.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from jobs.rehearsal import limits
from jobs.rehearsal.bodies import pack, unpack
from jobs.rehearsal.contacts import iso
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.suppressions import DROPPING_KINDS, GROUP_UNSUBSCRIBES
from jobs.rehearsal.templates import Templates

PERSONALIZATIONS: Final = 1_000
RECIPIENTS: Final = 1_000  # over all to, cc and bcc of a request
MESSAGE_BYTES: Final = 30_000_000
CUSTOM_ARGS_BYTES: Final = 10_000
CATEGORY_CHARACTERS: Final = 255
HOURS_AHEAD: Final = 72  # of send_at
HELD_BATCHES: Final = 10  # paused or cancelled at one time (sendgrid/docs#1485)
BATCH_STATUSES: Final = ("pause", "cancel")
HOLD_AHEAD_SECONDS: Final = 600  # a pause or a cancellation made later than this before send_at does not hold
PAUSED_HOURS: Final = 72  # after send_at: what is paused for longer is discarded as expired


class MailSend:
    """The messages of one rehearsal provider."""

    def __init__(self, database: Database, templates: Templates) -> None:
        """Keep messages in `database`."""
        self._database = database
        self._templates = templates

    # Messages

    def send(self, payload: Any, size: int, now: datetime, digest: str) -> tuple[int, str]:
        """Accept a message; give the status of the answer (202, or 200 in the sandbox) and the message's id."""
        if size > MESSAGE_BYTES:
            raise ApiError(413, Problem(f"the message is larger than {MESSAGE_BYTES} bytes"))
        if problems := list(self._problems(payload, now)):
            raise ApiError(400, *problems)
        sandbox = (payload.get("mail_settings") or {}).get("sandbox_mode") or {}
        with self._database.write() as connection:
            count = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
            # 22 characters, as X-Message-Id has.
            message_id = id_from("message", digest, count).replace("-", "")[:22]
            if sandbox.get("enable") is True:
                return 200, message_id
            content = msgspec.json.encode(payload)
            connection.execute(
                "INSERT INTO messages (id, batch_id, status, due_at, size, content) VALUES (?, ?, 'waiting', ?, ?, ?)",
                (
                    message_id,
                    payload.get("batch_id"),
                    max(now.timestamp(), payload.get("send_at") or 0),
                    len(content),
                    pack(content),
                ),
            )
        return 202, message_id

    def _problems(self, payload: Any, now: datetime) -> Iterator[Problem]:
        if not isinstance(payload, dict):
            yield Problem("the request body must be a JSON object")
            return
        entries = payload.get("personalizations")
        if not isinstance(entries, list) or not 1 <= len(entries) <= PERSONALIZATIONS:
            yield Problem(f"expected 1 to {PERSONALIZATIONS} personalizations", "personalizations")
            return
        people = 0
        for number, entry in enumerate(entries):
            where = f"personalizations.{number}"
            if not isinstance(entry, dict) or not isinstance(entry.get("to"), list) or not entry["to"]:
                yield Problem("the to array is required for all personalization objects", f"{where}.to")
                continue
            recipients = [one for kind in ("to", "cc", "bcc") for one in entry.get(kind) or []]
            people += len(recipients)
            if not all(isinstance(one, dict) and "@" in str(one.get("email", "")) for one in recipients):
                yield Problem("does not contain a valid address", f"{where}.to")
            arguments = (payload.get("custom_args") or {}) | (entry.get("custom_args") or {})
            if len(json.dumps(arguments)) >= CUSTOM_ARGS_BYTES:
                yield Problem(f"custom_args must have less than {CUSTOM_ARGS_BYTES} bytes", f"{where}.custom_args")
            yield from _send_at_problems(entry.get("send_at"), f"{where}.send_at", now)
        if people > RECIPIENTS:
            yield Problem(f"at most {RECIPIENTS} recipients are allowed", "personalizations")
        sender = payload.get("from")
        if not isinstance(sender, dict) or "@" not in str(sender.get("email", "")):
            yield Problem("the from object must have an email address", "from.email")
        elif not str(sender["email"]).isascii():
            yield Problem("unicode is not supported in from", "from.email")
        categories = payload.get("categories") or []
        if len(categories) > limits.CATEGORIES or any(len(str(one)) > CATEGORY_CHARACTERS for one in categories):
            yield Problem(f"at most {limits.CATEGORIES} categories of {CATEGORY_CHARACTERS} characters", "categories")
        template = payload.get("template_id")
        if template is not None and self._templates.active(str(template)) is None:
            yield Problem("the template does not exist or has no active version", "template_id")
        if template is None and not (payload.get("subject") and payload.get("content")):
            yield Problem("subject and content are required without a template", "content")
        batch = payload.get("batch_id")
        if batch is not None and not self.has_batch(str(batch)):
            yield Problem("the batch id does not exist", "batch_id")
        yield from _send_at_problems(payload.get("send_at"), "send_at", now)

    # Batches

    def create_batch(self) -> str:
        """Make the id of a batch."""
        with self._database.write() as connection:
            count = connection.execute("SELECT count(*) FROM batches").fetchone()[0]
            batch_id = id_from("batch", count).replace("-", "")
            connection.execute("INSERT INTO batches (id) VALUES (?)", (batch_id,))
        return batch_id

    def has_batch(self, batch_id: str) -> bool:
        """Say whether a batch was made."""
        return self._database.value("SELECT 1 FROM batches WHERE id = ?", (batch_id,)) is not None

    def held_batches(self, batch_id: str | None = None) -> list[dict[str, str]]:
        """List the batches that are paused or cancelled."""
        rows = self._database.rows("SELECT * FROM batches WHERE status IS NOT NULL ORDER BY id")
        held = [{"batch_id": row["id"], "status": row["status"]} for row in rows]
        return [entry for entry in held if batch_id in (None, entry["batch_id"])]

    def hold_batch(self, batch_id: Any, status: Any, now: datetime, *, is_new: bool) -> dict[str, str]:
        """Pause or cancel a batch (new), or change the one into the other.

        It holds the messages that are due ten minutes from now or later, whenever they come; a change is no later
        hold. One without send_at is never held: at SendGrid that is not promised either.
        """
        if status not in BATCH_STATUSES:
            raise limits.bad_request(f"status must be one of {', '.join(BATCH_STATUSES)}", "status")
        if not isinstance(batch_id, str) or not self.has_batch(batch_id):
            raise limits.bad_request("the batch id does not exist", "batch_id") if is_new else limits.not_found()
        is_held = bool(self.held_batches(batch_id))
        if is_new and is_held:
            raise limits.bad_request("a status update for this batch id exists already", "batch_id")
        if not is_new and not is_held:
            raise limits.not_found("batch id not found")
        if is_new and len(self.held_batches()) >= HELD_BATCHES:
            raise limits.bad_request(f"at most {HELD_BATCHES} batches can be paused or cancelled", "batch_id")
        with self._database.write() as connection:
            connection.execute("UPDATE batches SET status = ? WHERE id = ?", (status, batch_id))
            if is_new:
                connection.execute("INSERT OR REPLACE INTO holds VALUES (?, ?)", (batch_id, now.timestamp()))
        return {"batch_id": batch_id, "status": status}

    def release_batch(self, batch_id: str, now: datetime) -> None:
        """Lift a pause or a cancellation; what was discarded under it by then stays so."""
        if not self.held_batches(batch_id):
            raise limits.not_found("batch id not found")
        with self._database.write() as connection:
            _discard(connection, now.timestamp())
            connection.execute("UPDATE batches SET status = NULL WHERE id = ?", (batch_id,))
            connection.execute("DELETE FROM holds WHERE batch_id = ?", (batch_id,))

    # The worker's side

    def next_due_at(self) -> float | None:
        """Say when the next message is to be sent (Unix time); one of a batch that is held is not."""
        due_at = self._database.value(f"SELECT min(due_at) {_SENDABLE}")
        return None if due_at is None else float(due_at)

    def send_next(self, now: datetime) -> tuple[int, int] | None:
        """Send the message that is due the longest: give the numbers of its first mail and of the one after its last.

        A cancelled batch's messages are dropped when they are due, a paused one's when they are that for three days.
        """
        at = now.timestamp()
        with self._database.write() as connection:
            _discard(connection, at)
            row = connection.execute(
                f"SELECT * {_SENDABLE} AND due_at <= ? ORDER BY due_at, message LIMIT 1",
                (at,),
            ).fetchone()
            if row is None:
                return None
            payload = msgspec.json.decode(unpack(row["content"], row["size"]))
            first = connection.execute("SELECT coalesce(max(mail), 0) + 1 FROM mails").fetchone()[0]
            group = (payload.get("asm") or {}).get("group_id") or 0
            mails = [
                (address, iso(now), row["message"], number)
                for number, entry in enumerate(payload["personalizations"])
                for address in _recipients(entry)
            ]
            kinds = ",".join(f"'{kind}'" for kind in DROPPING_KINDS)
            connection.executemany(
                "INSERT INTO mails (email, profile, sent_at, message, personalization) "  # noqa: S608 - constants
                "SELECT ?1, '{}', ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM suppressions AS s WHERE s.email = ?1 "
                f"AND (s.kind IN ({kinds}) OR (s.kind = '{GROUP_UNSUBSCRIBES}' AND s.asm_group = ?5)))",
                [(*mail, group) for mail in mails],
            )
            end = connection.execute("SELECT coalesce(max(mail), 0) + 1 FROM mails").fetchone()[0]
            connection.execute("UPDATE messages SET status = 'sent' WHERE message = ?", (row["message"],))
        return first, end

    def message(self, number: int) -> tuple[str, dict[str, Any]]:
        """Give the id and the payload of a message."""
        row = self._database.row("SELECT id, size, content FROM messages WHERE message = ?", (number,))
        if row is None:
            raise limits.not_found("message not found")
        payload: dict[str, Any] = msgspec.json.decode(unpack(row["content"], row["size"]))
        return row["id"], payload


def _held(status: str) -> str:
    """The condition for messages whose batch has that status, since ten minutes before they are due."""
    return (
        "EXISTS (SELECT 1 FROM batches AS b JOIN holds AS h ON h.batch_id = b.id "  # noqa: S608 - constants
        f"WHERE b.id = messages.batch_id AND b.status = '{status}' "
        f"AND h.since + {HOLD_AHEAD_SECONDS} <= messages.due_at)"
    )


def _discard(connection: sqlite3.Connection, at: float) -> None:
    """Drop a cancelled batch's messages that are due, and a paused one's that were due three days ago."""
    for status, after, became in (("cancel", 0, "cancelled"), ("pause", PAUSED_HOURS * 3600, "expired")):
        connection.execute(
            f"UPDATE messages SET status = '{became}' "  # noqa: S608 - constants
            f"WHERE status = 'waiting' AND due_at <= ? AND {_held(status)}",
            (at - after,),
        )


_SENDABLE: Final = f"FROM messages WHERE status = 'waiting' AND NOT {_held('pause')}"


def _recipients(entry: Mapping[str, Any]) -> list[str]:
    addresses = [one["email"].strip().lower() for kind in ("to", "cc", "bcc") for one in entry.get(kind) or []]
    return list(dict.fromkeys(addresses))


def _send_at_problems(send_at: Any, where: str, now: datetime) -> Iterator[Problem]:
    if send_at is None:
        return
    if not isinstance(send_at, int) or isinstance(send_at, bool):
        yield Problem("send_at must be a Unix time in seconds", where)
    elif send_at > now.timestamp() + HOURS_AHEAD * 3600:
        yield Problem(f"send_at must be within {HOURS_AHEAD} hours", where)


def sent_content(payload: Mapping[str, Any], personalization: int, templates: Templates) -> dict[str, Any]:
    """Give what one recipient's mail is made of: subject, html_content and plain_content, and the data for these."""
    entry = payload["personalizations"][personalization]
    version = templates.active(payload["template_id"]) if payload.get("template_id") else None
    if version is not None:
        parts = {name: version[name] for name in ("subject", "html_content", "plain_content")}
        return {**parts, "data": entry.get("dynamic_template_data") or {}}
    contents = {part["type"]: part["value"] for part in payload.get("content") or []}
    return {
        "subject": entry.get("subject") or payload.get("subject") or "",
        "html_content": contents.get("text/html", ""),
        "plain_content": contents.get("text/plain", ""),
        "data": {},
    }
