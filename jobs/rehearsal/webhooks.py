"""Event webhooks: what became of each mail, posted in signed batches to an address of this machine.

As at SendGrid: a JSON array that ends with CR LF, ECDSA P-256 and SHA-256 over timestamp and body, posted again with
growing pauses until the answer is 2xx, for a day. Duplicates, another sg_event_id for the same event, and disorder come
with the faults.
"""

import base64
import http.client
import ipaddress
import json
import logging
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobs.rehearsal import limits
from jobs.rehearsal.contacts import iso
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults

SIGNATURE_HEADER: Final = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER: Final = "X-Twilio-Email-Event-Webhook-Timestamp"
BATCH_SECONDS: Final = 0.5  # SendGrid gathers for 30 s, or until 768 kB
BATCH_BYTES: Final = 768_000
EVENTS_PER_BATCH: Final = 2_000
POST_SECONDS: Final = 10
RETRY_SECONDS: Final = 86_400  # "24 hours rolling per event"
_FIRST_PAUSE_SECONDS: Final = 1.0
# Which setting of a webhook an event needs to be posted.
SETTING_OF_EVENT: Final = {
    "processed": "processed", "dropped": "dropped", "delivered": "delivered", "deferred": "deferred",
    "bounce": "bounce", "open": "open", "click": "click", "spamreport": "spam_report", "unsubscribe": "unsubscribe",
    "group_unsubscribe": "group_unsubscribe", "group_resubscribe": "group_resubscribe",
}  # fmt: skip
_SWITCHES: Final = tuple(dict.fromkeys((*SETTING_OF_EVENT.values(), "account_status_change")))
_log = logging.getLogger(__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nothing, as SendGrid does not either."""


_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


class Webhooks:
    """The event webhooks of one rehearsal provider, and the events that wait for them."""

    def __init__(self, database: Database, faults: Faults) -> None:
        """Keep settings and events in `database`."""
        self._database = database
        self._faults = faults

    # Settings

    def create(self, payload: Any, now: datetime) -> dict[str, Any]:
        """Add a webhook; its address has to be of this machine, as nothing leaves it."""
        settings = _checked(payload, dict.fromkeys(_SWITCHES, False) | {"enabled": False, "friendly_name": ""})
        with self._database.write() as connection:
            count = connection.execute("SELECT coalesce(max(webhook), 0) FROM webhooks").fetchone()[0]
            webhook_id = id_from("webhook", count + 1)
            connection.execute(
                "INSERT INTO webhooks (id, settings, created_at, updated_at) VALUES (?, ?, ?, ?)",
                (webhook_id, json.dumps(settings), iso(now), iso(now)),
            )
        return self.get(webhook_id)

    def change(self, webhook_id: str, payload: Any, now: datetime) -> dict[str, Any]:
        """Change what is given."""
        row = self._row(webhook_id)
        settings = _checked(payload, json.loads(row["settings"]))
        with self._database.write() as connection:
            connection.execute(
                "UPDATE webhooks SET settings = ?, updated_at = ? WHERE id = ?",
                (json.dumps(settings), iso(now), webhook_id),
            )
        return self.get(webhook_id)

    def delete(self, webhook_id: str) -> None:
        """Remove a webhook and what waits for it."""
        row = self._row(webhook_id)
        with self._database.write() as connection:
            connection.execute("DELETE FROM events WHERE webhook = ?", (row["webhook"],))
            connection.execute("DELETE FROM webhooks WHERE webhook = ?", (row["webhook"],))

    def get(self, webhook_id: str) -> dict[str, Any]:
        """Describe a webhook."""
        return _shown(self._row(webhook_id))

    def all(self) -> list[dict[str, Any]]:
        """Describe all webhooks."""
        return [_shown(row) for row in self._database.rows("SELECT * FROM webhooks ORDER BY webhook")]

    def sign(self, webhook_id: str, *, is_signed: bool) -> dict[str, str]:
        """Turn the signature on (with a new key, if it was off) or off."""
        row = self._row(webhook_id)
        key = row["private_key"] if is_signed else None
        if is_signed and key is None:
            key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        with self._database.write() as connection:
            connection.execute("UPDATE webhooks SET private_key = ? WHERE id = ?", (key, webhook_id))
        return self.public_key(webhook_id)

    def public_key(self, webhook_id: str) -> dict[str, str]:
        """Give the key that signatures are verified with; empty if they are off."""
        row = self._row(webhook_id)
        return {"id": webhook_id, "public_key": _public_key(row["private_key"]) if row["private_key"] else ""}

    def _row(self, webhook_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM webhooks WHERE id = ?", (webhook_id,))
        if row is None:
            raise limits.not_found("webhook not found")
        return row

    # Events

    def is_wanted(self) -> bool:
        """Say whether anybody listens."""
        return any(entry["enabled"] for entry in self.all())

    def add(self, events: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Queue events (each with event, email, timestamp, and what makes it unique under `key`) for who wants them."""
        rows = []
        listening = [
            (row["webhook"], json.loads(row["settings"])) for row in self._database.rows("SELECT * FROM webhooks")
        ]
        for event in events:
            for webhook, settings in listening:
                if settings["enabled"] and settings[SETTING_OF_EVENT[event["event"]]]:
                    rows += self._posts(webhook, event, now.timestamp())
        with self._database.write() as connection:
            connection.executemany("INSERT INTO events (webhook, email, content, due_at) VALUES (?, ?, ?, ?)", rows)

    def _posts(self, webhook: int, event: Mapping[str, Any], at: float) -> list[tuple[int, str, str, float]]:
        """Give the posts of one event: one, none (lost), or two; the later ones in a batch after the next."""
        key, settings, share = event["key"], self._faults.settings, self._faults.share
        content = {name: value for name, value in event.items() if name != "key"}
        if share("lost", key) < settings.lost_event:
            return []
        due_at = at + BATCH_SECONDS
        if share("disorder", key) < settings.disordered_event:
            due_at += 2 * BATCH_SECONDS
        posts = [(webhook, event["email"], _content(content, key, ""), due_at)]
        if share("duplicate", key) < settings.duplicate_event:
            changed = "again" if share("changed", key) < settings.changed_event_id else ""
            posts.append((webhook, event["email"], _content(content, key, changed), due_at + 2 * BATCH_SECONDS))
        return posts

    def next_due_at(self) -> float | None:
        """Say when the next event is to be posted (Unix time)."""
        due_at = self._database.value("SELECT min(due_at) FROM events")
        return None if due_at is None else float(due_at)

    def post_next(self, now: datetime) -> bool:
        """Post one batch that is due; say whether there was one."""
        at = now.timestamp()
        first = self._database.row("SELECT webhook FROM events WHERE due_at <= ? ORDER BY due_at, event LIMIT 1", (at,))
        if first is None:
            return False
        webhook = self._database.row("SELECT * FROM webhooks WHERE webhook = ?", (first["webhook"],))
        rows = self._database.rows(
            "SELECT * FROM events WHERE webhook = ? AND due_at <= ? ORDER BY due_at, event LIMIT ?",
            (first["webhook"], at, EVENTS_PER_BATCH),
        )
        size = 0
        batch: list[sqlite3.Row] = []
        for row in rows:
            size += len(row["content"]) + 1
            if batch and size > BATCH_BYTES:
                break
            batch.append(row)
        # Every line of the array but the first begins with a comma, as in SendGrid's posts.
        body = f"[{(',' + chr(10)).join(row['content'] for row in batch)}]\r\n".encode()
        is_done = webhook is None or _post(json.loads(webhook["settings"])["url"], body, webhook["private_key"], now)
        with self._database.write() as connection:
            for row in batch:
                pause = _FIRST_PAUSE_SECONDS * 2 ** row["tries"]
                if is_done or pause > RETRY_SECONDS:
                    connection.execute("DELETE FROM events WHERE event = ?", (row["event"],))
                else:
                    connection.execute(
                        "UPDATE events SET tries = tries + 1, due_at = ? WHERE event = ?", (at + pause, row["event"])
                    )
        return True


def signed_headers(body: bytes, private_key: bytes, timestamp: str) -> dict[str, str]:
    """Give the headers that prove a body's origin."""
    key = serialization.load_der_private_key(private_key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the webhook's key is of another kind than ECDSA's")
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {SIGNATURE_HEADER: base64.b64encode(signature).decode(), TIMESTAMP_HEADER: timestamp}


def _post(url: str, body: bytes, private_key: bytes | None, now: datetime) -> bool:
    headers = {"Content-Type": "application/json", "User-Agent": "SendGrid Event API"}
    if private_key is not None:
        headers |= signed_headers(body, private_key, str(int(now.timestamp())))
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - checked when it was set
    try:
        with _OPENER.open(request, timeout=POST_SECONDS) as answer:
            return 200 <= int(answer.status) < 300
    except (OSError, http.client.HTTPException, urllib.error.HTTPError) as error:
        _log.info("a webhook's post was not taken and comes again: %s", type(error).__name__)
        return False


def _content(event: Mapping[str, Any], key: str, changed: str) -> str:
    event_id = base64.urlsafe_b64encode(id_from("event", key, changed).encode()).decode().rstrip("=")
    return json.dumps({**event, "sg_event_id": event_id}, ensure_ascii=False, separators=(",", ":"))


def _public_key(private_key: bytes) -> str:
    key = serialization.load_der_private_key(private_key, password=None)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode()


def _checked(payload: Any, before: dict[str, Any]) -> dict[str, Any]:
    payload = payload if isinstance(payload, dict) else {}
    settings = before | {name: payload[name] for name in ("url", "friendly_name") if name in payload}
    for name in (*_SWITCHES, "enabled"):
        if name in payload:
            if not isinstance(payload[name], bool):
                raise limits.bad_request(f"{name} must be true or false", name)
            settings[name] = payload[name]
    url = settings.get("url")
    if not isinstance(url, str) or not _is_of_this_machine(url):
        raise limits.bad_request("url must be an address of this machine: the rehearsal posts nowhere else", "url")
    return settings


def _is_of_this_machine(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme in ("http", "https") and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    settings = json.loads(row["settings"])
    shown = {
        "id": row["id"],
        **settings,
        "created_date": row["created_at"],
        "updated_date": row["updated_at"],
        "oauth_client_id": "",
        "oauth_token_url": "",
    }
    return shown | ({"public_key": _public_key(row["private_key"])} if row["private_key"] else {})
