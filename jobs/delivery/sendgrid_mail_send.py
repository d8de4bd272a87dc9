"""SendGrid's Mail Send, dynamic templates and scheduled batches behind the MailSender protocol.

Beside `sendgrid_client`, which inherits this and has the wire.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from jobs.delivery.mail_sender import Hold
from schemas.errors import BadContentMailError, NotFoundMailError, RejectedMailError, RetryableMailError

TEMPLATES_PER_PAGE: Final = 200
# POST /v3/asm/groups/{id}/suppressions: the most a request may have is not documented.
ADDRESSES_PER_SUPPRESSION: Final = 1_000
_PAGES: Final = 1_000  # an account has 300 dynamic templates; a paging that never ends is a fault


class _Wire(Protocol):
    def _call(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any: ...

    def _exchange(
        self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None
    ) -> Any: ...

    def find_template(self, name: str) -> str | None: ...

    def batch_hold(self, batch_id: str) -> Hold | None: ...


class SendGridMailSend:
    """The part of MailProvider that mails without contacts."""

    # Templates

    def find_template(self: _Wire, name: str) -> str | None:
        """See MailSender."""
        query: dict[str, Any] = {"generations": "dynamic", "page_size": TEMPLATES_PER_PAGE}
        found: list[str] = []
        for _ in range(_PAGES):
            answer = self._call("GET", "templates", query=query) or {}
            found += [str(entry["id"]) for entry in answer.get("result") or [] if entry["name"] == name]
            following = (answer.get("_metadata") or {}).get("next")
            token = parse_qs(urlsplit(following).query).get("page_token") if following else None
            if not token:
                return min(found, default=None)
            query = {**query, "page_token": token[0]}
        raise RetryableMailError(f"GET /v3/templates: over {_PAGES} pages; the provider's paging does not end")

    def ensure_template(self: _Wire, name: str, *, version: str, subject: str, html: str, text: str) -> str:
        """See MailSender."""
        template_id = self.find_template(name)
        if template_id is None:
            made = self._call("POST", "templates", body=_json({"name": name, "generation": "dynamic"}))
            template_id = _text(made, "id")
        versions = (self._call("GET", "templates", template_id) or {}).get("versions") or []
        if any(entry.get("name") == version and entry.get("active") == 1 for entry in versions):
            return template_id
        content = {"subject": subject, "html_content": html, "plain_content": text, "generate_plain_content": False}
        body = _json({"name": version, "active": 1, "editor": "code", **content})
        self._call("POST", "templates", template_id, "versions", body=body)
        return template_id

    def delete_template(self: _Wire, template_id: str) -> None:
        """See MailSender."""
        try:
            self._call("DELETE", "templates", template_id)
        except NotFoundMailError:
            return  # gone already

    # Mails

    def send_mails(self: _Wire, body: bytes) -> str:
        """See MailSender. 202 has no body; anything else of 2xx (200: the sandbox) says nothing about the mails."""
        answer = self._exchange("POST", "mail", "send", body=body)
        if answer.status_code != 202:
            raise RetryableMailError(
                f"POST /v3/mail/send: the provider answered {answer.status_code}, expected 202; whether it took the "
                "mails is unknown"
            )
        return str(answer.headers.get("X-Message-Id") or "")

    # Batches

    def create_batch(self: _Wire) -> str:
        """See MailSender."""
        return _text(self._call("POST", "mail", "batch"), "batch_id")

    def batch_hold(self: _Wire, batch_id: str) -> Hold | None:
        """See MailSender."""
        try:
            held = self._call("GET", "user", "scheduled_sends", batch_id) or []
        except NotFoundMailError:  # an empty array by the examples, 404 by the list of answers
            return None
        for entry in held:
            status = entry.get("status")
            if entry.get("batch_id") == batch_id and status == "pause":
                return "pause"
            if entry.get("batch_id") == batch_id and status == "cancel":
                return "cancel"
        return None

    def hold_batch(self: _Wire, batch_id: str, hold: Hold) -> None:
        """See MailSender. The status is made by POST and changed by PATCH; both refuse what the other one is for."""
        held = self.batch_hold(batch_id)
        if held == hold:
            return
        if held == "cancel":
            raise RejectedMailError(
                f"batch {batch_id} is cancelled; expected that it may be paused. Nothing was changed"
            )
        try:
            if held is None:
                self._call("POST", "user", "scheduled_sends", body=_json({"batch_id": batch_id, "status": hold}))
            else:
                self._call("PATCH", "user", "scheduled_sends", batch_id, body=_json({"status": hold}))
        except BadContentMailError:
            if self.batch_hold(batch_id) != hold:  # somebody else held it since we looked, as it should be
                raise

    def release_batch(self: _Wire, batch_id: str) -> None:
        """See MailSender."""
        try:
            self._call("DELETE", "user", "scheduled_sends", batch_id)
        except NotFoundMailError:
            return  # nothing holds it

    def suppress(self: _Wire, group_id: int, addresses: Sequence[str]) -> None:
        """See MailSender."""
        for start in range(0, len(addresses), ADDRESSES_PER_SUPPRESSION):
            body = _json({"recipient_emails": list(addresses[start : start + ADDRESSES_PER_SUPPRESSION])})
            self._call("POST", "asm", "groups", str(group_id), "suppressions", body=body)


def _text(answer: Any, name: str) -> str:
    """Read what a successful answer has to hold."""
    if not isinstance(answer, dict) or not answer.get(name):
        raise RetryableMailError(f"the provider answered without {name}; whether it acted on the request is unknown")
    return str(answer[name])


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
