"""What the SendGrid client asks of imports of contacts by file. `sendgrid_client` inherits this and has the wire."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from jobs.delivery.client import ImportPlace
from jobs.delivery.file_upload import upload_file
from jobs.delivery.wire import Clock
from schemas.errors import RejectedMailError, RetryableMailError

_PATH = ("marketing", "contacts", "imports")


class _Wire(Protocol):
    _host: str
    _timeout_seconds: float
    _clock: Clock

    def _call(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any: ...


class SendGridImports:
    """The part of MailProvider that is about imports by file."""

    def email_field(self: _Wire) -> str:
        """See MailProvider. Ids of reserved fields are opaque, and no document lists them."""
        answer = self._call("GET", "marketing", "field_definitions")
        for entry in answer.get("reserved_fields") or []:
            if entry.get("name") == "email":
                return str(entry["id"])
        raise RejectedMailError(
            "GET /v3/marketing/field_definitions: no reserved field is called email; expected one, to import addresses "
            'into. Push with method = "contacts"'
        )

    def request_import(self: _Wire, field_ids: Sequence[str], list_ids: Sequence[str]) -> ImportPlace:
        """See MailProvider."""
        asked = {"file_type": "csv", "field_mappings": list(field_ids), "list_ids": list(list_ids)}
        answer = self._call("PUT", *_PATH, body=json.dumps(asked, separators=(",", ":")).encode())
        try:
            headers = {str(entry["header"]): str(entry["value"]) for entry in answer.get("upload_headers") or []}
            return ImportPlace(str(answer["job_id"]), str(answer["upload_uri"]), headers)
        except (AttributeError, KeyError, TypeError) as error:
            raise RetryableMailError(
                "PUT /v3/marketing/contacts/imports: the answer lacks job_id or upload_uri; nothing was uploaded. Ask "
                "again later"
            ) from error

    def upload_import(self: _Wire, place: ImportPlace, parts: Iterable[bytes], size: int) -> None:
        """See MailProvider, and file_upload for what is checked before the upload."""
        upload_file(place, parts, size, api_host=self._host, timeout_seconds=self._timeout_seconds, clock=self._clock)
