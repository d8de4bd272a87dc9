"""What the SendGrid client asks of single sends. `sendgrid_client` inherits this and has the wire."""

from datetime import UTC, datetime
from typing import Any, Final, cast

from jobs.delivery.client import SendStatus, SingleSend, SingleSendStats
from jobs.delivery.sendgrid_wire import Wire, as_json, given
from schemas.errors import RetryableMailError

SINGLE_SENDS_PER_PAGE: Final = 100
_SEND_ORDER: Final = {"triggered": 0, "scheduled": 1, "draft": 2}


class SendGridSingleSends:
    """The part of MailProvider that is about single sends."""

    def find_single_send(self: Wire, name: str) -> SingleSend | None:
        """See MailProvider. The search matches anywhere in a name, so that names are compared again here."""
        entries = self._pages("POST", {"name": name}, SINGLE_SENDS_PER_PAGE, "marketing", "singlesends", "search")
        found = [(entry["created_at"], _single_send(entry)) for entry in entries if entry["name"] == name]
        found.sort(key=lambda pair: (_SEND_ORDER[pair[1].status], pair[0], pair[1].id))
        return found[0][1] if found else None

    def create_draft(
        self: Wire,
        *,
        name: str,
        list_id: str,
        subject: str,
        html: str,
        text: str,
        suppression_group_id: int,
        sender_id: int,
    ) -> SingleSend:
        """See MailProvider."""
        draft = {
            "name": name,
            "send_to": {"list_ids": [list_id]},
            "email_config": {
                "subject": subject,
                "html_content": html,
                "plain_content": text,
                "generate_plain_content": False,
                "editor": "code",
                "suppression_group_id": suppression_group_id,
                "sender_id": sender_id,
            },
        }
        return _single_send(self._post(draft, "marketing", "singlesends"))

    def schedule(self: Wire, single_send_id: str, send_at: datetime | None = None) -> None:
        """See MailProvider."""
        if send_at is None:
            at = "now"
        elif send_at.tzinfo is None:
            raise ValueError("send_at has no time zone; expected an instant in UTC")
        else:
            at = send_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = as_json({"send_at": at})
        self._call("PUT", "marketing", "singlesends", single_send_id, "schedule", body=body)

    def unschedule(self: Wire, single_send_id: str) -> None:
        """See MailProvider."""
        self._call("DELETE", "marketing", "singlesends", single_send_id, "schedule")

    def single_send(self: Wire, single_send_id: str) -> SingleSend:
        """See MailProvider."""
        return _single_send(self._get("marketing", "singlesends", single_send_id))

    def single_send_stats(self: Wire, single_send_id: str) -> SingleSendStats:
        """See MailProvider."""
        results = self._get("marketing", "stats", "singlesends", single_send_id).get("results") or []
        counts = results[0].get("stats") or {} if results else {}
        return SingleSendStats(
            requests=int(counts.get("requests", 0)),
            delivered=int(counts.get("delivered", 0)),
            bounces=int(counts.get("bounces", 0)),
            bounce_drops=int(counts.get("bounce_drops", 0)),
            spam_report_drops=int(counts.get("spam_report_drops", 0)),
            invalid_emails=int(counts.get("invalid_emails", 0)),
            unsubscribes=int(counts.get("unsubscribes", 0)),
            unique_opens=int(counts.get("unique_opens", 0)),
            unique_clicks=int(counts.get("unique_clicks", 0)),
        )


def _single_send(entry: Any) -> SingleSend:
    single_send_id, status = str(given(entry, "id")), given(entry, "status")
    send_at = entry.get("send_at")
    if status not in _SEND_ORDER:
        raise RetryableMailError(f"single send {single_send_id}: status {status!r} is not documented; ask again later")
    return SingleSend(
        id=single_send_id,
        name=str(given(entry, "name")),
        status=cast("SendStatus", status),
        send_at=datetime.fromisoformat(send_at).astimezone(UTC) if send_at else None,
    )
