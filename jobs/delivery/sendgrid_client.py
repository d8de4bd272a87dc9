"""SendGrid's v3 API behind the MailProvider protocol: the only module that imports its SDK.

What the SDK does not do is done here and in `wire` (sendgrid 6.12.5, python_http_client 3.3.7, measured against a local
server): it has no time-out, follows redirects with the key, merges the headers of a call into one dict that all calls
share, logs bodies and the key at DEBUG, and asks the environment's proxy even for 127.0.0.1. One SDK client per thread,
reset before each call.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import parse_qs, quote, urlsplit

import sendgrid
from python_http_client.exceptions import HTTPError

from jobs.delivery.client import (
    ADDRESSES_PER_SEARCH,
    Contact,
    ImportJob,
    JobStatus,
    RateLimit,
    SendStatus,
    SingleSend,
    SingleSendStats,
)
from jobs.delivery.error_file import download_errors
from jobs.delivery.sdk_transport import RequestBytes, Transport
from jobs.delivery.sendgrid_account import SendGridAccount
from jobs.delivery.sendgrid_imports import SendGridImports
from jobs.delivery.sendgrid_mail_send import SendGridMailSend
from jobs.delivery.wire import Clock, answer_error, is_loopback, make_opener, rate_limit, wire_errors
from schemas.errors import ConfigError, NotFoundMailError, RejectedMailError, RetryableMailError

DEFAULT_HOST: Final = "https://api.sendgrid.com"
# A ready string goes out as it is only under a content type that is not exactly "application/json".
CONTENT_TYPE: Final = "application/json; charset=utf-8"
LISTS_PER_PAGE: Final = 1000
SINGLE_SENDS_PER_PAGE: Final = 100
SUPPRESSIONS_PER_PAGE: Final = 500
PAGES: Final = 100_000  # a paging that never ends is a fault: 50 million suppressions are 100,000 pages
SUPPRESSION_KINDS: Final = ("bounces", "invalid_emails", "spam_reports", "unsubscribes")
_SEND_ORDER: Final = {"triggered": 0, "scheduled": 1, "draft": 2}

# The SDK logs request bodies (addresses) and headers (the key) at DEBUG. A filter holds where a level would be reset.
logging.getLogger("python_http_client.client").addFilter(lambda record: False)


class SendGridProvider(SendGridAccount, SendGridImports, SendGridMailSend):
    """Implements MailProvider over SendGrid's v3 API, or over anything that speaks it at `host`."""

    def __init__(
        self,
        api_key: str,
        host: str = DEFAULT_HOST,
        timeout_seconds: float = 30.0,
        *,
        clock: Clock = time.time,
    ) -> None:
        """Talk to `host`; `timeout_seconds` bounds every wait for the network, `clock` gives Unix time.

        Raises: ConfigError if the host is not https (loopback may be http), or the key is empty.
        """
        parts = urlsplit(host)
        name = parts.hostname or ""
        if not name or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(name))):
            raise ConfigError(f"mail host {host!r}: expected https://HOST (http only for this machine); set the host")
        if parts.username or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigError("mail host: expected scheme, host and port only; remove what comes after or before them")
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigError("mail API key: expected printable ASCII without spaces; set the connection's password")
        self._api_key = api_key
        self._host = host.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._local = threading.local()
        self._opener = make_opener(name)

    def __repr__(self) -> str:
        """Show the host, never the key."""
        return f"SendGridProvider(host={self._host!r})"

    def rate_limit(self) -> RateLimit | None:
        """See MailProvider."""
        found: RateLimit | None = getattr(self._local, "rate_limit", None)
        return found

    # Fields and lists

    def ensure_fields(self, names: Sequence[str]) -> dict[str, str]:
        """See MailProvider."""
        found = self._fields()
        for name in names:
            if name.lower() not in found:
                found |= self._create_field(name)
        wrong = [
            f"{name} is there as {found[name.lower()][1]} of the type {found[name.lower()][2]}"
            for name in names
            if found[name.lower()][1:] != (name, "Text")
        ]
        if wrong:
            raise ConfigError(
                f"custom fields at the provider: {'; '.join(wrong)}; expected these names with the type Text. "
                "Delete or rename these fields at the provider"
            )
        return {name: found[name.lower()][0] for name in names}

    def _fields(self) -> dict[str, tuple[str, str, str]]:
        """Map lower-case names to (id, name, type)."""
        answer = self._get("marketing", "field_definitions")
        return dict(_field(entry) for entry in answer.get("custom_fields") or [])

    def _create_field(self, name: str) -> dict[str, tuple[str, str, str]]:
        try:
            created = self._post({"name": name, "field_type": "Text"}, "marketing", "field_definitions")
        except RejectedMailError:
            found = self._fields()
            if name.lower() not in found:
                raise
            return found  # somebody else created it since we looked
        return dict([_field(created)])

    def ensure_list(self, name: str) -> str:
        """See MailProvider."""
        found = self.find_list(name)
        if found is not None:
            return found
        try:
            return str(_given(self._post({"name": name}, "marketing", "lists"), "id"))
        except RejectedMailError:
            found = self.find_list(name)
            if found is None:
                raise
            return found

    def find_list(self, name: str) -> str | None:
        """See MailProvider."""
        for entry in self._pages("GET", None, LISTS_PER_PAGE, "marketing", "lists"):
            if entry["name"] == name:
                return str(entry["id"])
        return None

    def list_size(self, list_id: str) -> int:
        """See MailProvider."""
        return int(_given(self._get("marketing", "lists", list_id), "contact_count"))

    def delete_list(self, list_id: str) -> None:
        """See MailProvider."""
        with suppress(NotFoundMailError):
            self._call("DELETE", "marketing", "lists", list_id)

    # Contacts

    def upsert(self, body: bytes) -> str:
        """See MailProvider."""
        return str(_given(self._call("PUT", "marketing", "contacts", body=body), "job_id"))

    def import_job(self, job_id: str) -> ImportJob:
        """See MailProvider."""
        answer = self._get("marketing", "contacts", "imports", job_id)
        status = answer.get("status")
        if status not in ("pending", "completed", "errored", "failed"):
            raise RetryableMailError(
                f"import job {job_id}: status {status!r}, which is not documented; ask again later"
            )
        results = answer.get("results") or {}
        return ImportJob(
            job_id=job_id,
            status=cast("JobStatus", status),
            requested=int(results.get("requested_count") or 0),
            created=int(results.get("created_count") or 0),
            updated=int(results.get("updated_count") or 0),
            errored=int(results.get("errored_count") or 0),
            errors_url=results.get("errors_url") or None,
        )

    def import_errors(self, errors_url: str) -> dict[str, str]:
        """See MailProvider, and error_file for what is checked before the download."""
        return download_errors(
            errors_url, api_host=self._host, timeout_seconds=self._timeout_seconds, clock=self._clock
        )

    def contacts_by_email(self, addresses: Sequence[str]) -> dict[str, Contact]:
        """See MailProvider."""
        if len(addresses) > ADDRESSES_PER_SEARCH:
            raise ValueError(f"{len(addresses)} addresses: expected at most {ADDRESSES_PER_SEARCH}; search in parts")
        if not addresses:
            return {}
        try:
            answer = self._post({"emails": list(addresses)}, "marketing", "contacts", "search", "emails")
        except NotFoundMailError:  # none of the addresses has a contact
            return {}
        return {
            address.lower(): Contact(
                id=entry["contact"]["id"],
                email=entry["contact"]["email"],
                list_ids=tuple(entry["contact"].get("list_ids") or ()),
                custom_fields=dict(entry["contact"].get("custom_fields") or {}),
            )
            for address, entry in answer["result"].items()
            if "contact" in entry
        }

    # Single sends

    def find_single_send(self, name: str) -> SingleSend | None:
        """See MailProvider. The search matches anywhere in a name, so that names are compared again here."""
        entries = self._pages("POST", {"name": name}, SINGLE_SENDS_PER_PAGE, "marketing", "singlesends", "search")
        found = [(entry["created_at"], _single_send(entry)) for entry in entries if entry["name"] == name]
        found.sort(key=lambda pair: (_SEND_ORDER[pair[1].status], pair[0], pair[1].id))
        return found[0][1] if found else None

    def create_draft(
        self,
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

    def schedule(self, single_send_id: str, send_at: datetime | None = None) -> None:
        """See MailProvider."""
        if send_at is None:
            at = "now"
        elif send_at.tzinfo is None:
            raise ValueError("send_at has no time zone; expected an instant in UTC")
        else:
            at = send_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = _json({"send_at": at})
        self._call("PUT", "marketing", "singlesends", single_send_id, "schedule", body=body)

    def unschedule(self, single_send_id: str) -> None:
        """See MailProvider."""
        self._call("DELETE", "marketing", "singlesends", single_send_id, "schedule")

    def single_send(self, single_send_id: str) -> SingleSend:
        """See MailProvider."""
        return _single_send(self._get("marketing", "singlesends", single_send_id))

    def single_send_stats(self, single_send_id: str) -> SingleSendStats:
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

    # Suppressions

    def suppressed_addresses(
        self, since: datetime | None = None, *, group_id: int | None = None
    ) -> Iterator[tuple[str, str]]:
        """See MailProvider. Blocks are left out: SendGrid goes on mailing these."""
        for kind in SUPPRESSION_KINDS:
            for page in range(PAGES):
                query = {"limit": SUPPRESSIONS_PER_PAGE, "offset": page * SUPPRESSIONS_PER_PAGE}
                if since is not None:
                    query["start_time"] = int(since.timestamp())
                entries = self._call("GET", "suppression", kind, query=query)
                yield from ((kind, entry["email"].lower()) for entry in entries)
                if len(entries) < SUPPRESSIONS_PER_PAGE:
                    break
        if group_id is not None:  # one answer: this endpoint has neither pages nor times
            members = self._call("GET", "asm", "groups", str(group_id), "suppressions")
            yield from (("group_unsubscribes", address.lower()) for address in members)

    def ensure_suppression_group(self, name: str) -> int:
        """See MailProvider."""
        found = self._find_group(name)
        if found is not None:
            return found
        try:
            description = f"Unsubscribes of {name}"[:100]
            return int(_given(self._post({"name": name, "description": description}, "asm", "groups"), "id"))
        except RejectedMailError:
            found = self._find_group(name)
            if found is None:
                raise
            return found

    def _find_group(self, name: str) -> int | None:
        groups = self._call("GET", "asm", "groups")
        return next((int(group["id"]) for group in groups if group["name"] == name), None)

    # The wire

    def _get(self, *path: str) -> Any:
        return self._call("GET", *path)

    def _post(self, content: Any, *path: str) -> Any:
        return self._call("POST", *path, body=_json(content))

    def _pages(self, method: str, content: Any, size: int, *path: str) -> Iterator[dict[str, Any]]:
        """Go through the entries of all pages; the next page's token is in the address that an answer gives for it."""
        query: dict[str, Any] = {"page_size": size}
        body = None if content is None else _json(content)
        for _ in range(PAGES):
            answer = self._call(method, *path, query=query, body=body)
            yield from answer.get("result") or []
            following = (answer.get("_metadata") or {}).get("next")
            token = parse_qs(urlsplit(following).query).get("page_token") if following else None
            if not token:
                return
            query = {"page_size": size, "page_token": token[0]}
        raise RetryableMailError(
            f"{method} /v3/{'/'.join(path)}: over {PAGES} pages; the provider's paging does not end"
        )

    def _call(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any:
        """Make one request; give its JSON answer, None if it has no body."""
        answer = self._exchange(method, *path, query=query, body=body)
        if not answer.body:
            return None
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise RetryableMailError(
                f"{method} /v3/{'/'.join(path)}: the answer {answer.status_code} is not JSON, so it came from "
                "something in between; whether the provider acted on the request is unknown"
            ) from error

    def _exchange(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any:
        """Make one request; give the SDK's answer (status_code, headers, body)."""
        sdk = self._sdk()
        sdk.reset_request_headers()
        client = sdk.client
        for segment in path:
            client = client._(quote(segment, safe=""))
        operation = f"{method} /v3/{'/'.join(path)}"
        self._local.rate_limit = None  # of the call before
        with wire_errors(operation, self._clock):
            try:
                answer = getattr(client, method.lower())(
                    request_body=None if body is None else RequestBytes(body),
                    query_params=query,
                    request_headers=None if body is None else {"Content-Type": CONTENT_TYPE},
                    timeout=self._timeout_seconds,
                )
            except HTTPError as error:
                self._local.rate_limit = rate_limit(error.headers)
                found = answer_error(operation, error.status_code, error.body, error.headers, self._clock)
                raise found from error
        self._local.rate_limit = rate_limit(answer.headers)
        return answer

    def _sdk(self) -> Any:
        """Give this thread's SDK client: one client's headers are shared by all calls that are made on it."""
        sdk = getattr(self._local, "sdk", None)
        if sdk is None:
            sdk = sendgrid.SendGridAPIClient(api_key=self._api_key, host=self._host)
            transport = Transport(host=self._host, version=3, timeout=self._timeout_seconds)
            transport.opener = self._opener
            sdk.client = transport
            self._local.sdk = sdk
        return sdk


def _given(answer: Any, name: str) -> Any:
    """Read what a successful answer has to hold."""
    if not isinstance(answer, dict) or name not in answer:
        raise RetryableMailError(
            f"the provider answered without {name}; whether it acted on the request is unknown. Look at its status"
        )
    return answer[name]


def _field(entry: Any) -> tuple[str, tuple[str, str, str]]:
    name = str(_given(entry, "name"))
    return name.lower(), (str(_given(entry, "id")), name, str(_given(entry, "field_type")))


def _single_send(entry: Any) -> SingleSend:
    single_send_id, status = str(_given(entry, "id")), _given(entry, "status")
    send_at = entry.get("send_at")
    if status not in _SEND_ORDER:
        raise RetryableMailError(f"single send {single_send_id}: status {status!r} is not documented; ask again later")
    return SingleSend(
        id=single_send_id,
        name=str(_given(entry, "name")),
        status=cast("SendStatus", status),
        send_at=datetime.fromisoformat(send_at).astimezone(UTC) if send_at else None,
    )


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
