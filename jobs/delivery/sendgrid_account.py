"""What the SendGrid client asks of the account itself, and what it takes out of it: members of lists, contacts, people.

Beside `sendgrid_client`, which inherits this and has the wire.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol

from jobs.delivery.client import ADDRESSES_PER_SEARCH
from schemas.errors import NotFoundMailError, RetryableMailError

# POST /v3/recipients/erasejob (SendGrid's OpenAPI document of recipients' data erasure): "5,000 email_addresses or a
# total payload size of 256Kb", 100 requests a minute. Kb is read as 1,000 bytes, the smaller reading.
ADDRESSES_PER_ERASURE: Final = 5_000
ERASURE_BYTES: Final = 256_000


class _Wire(Protocol):
    def _call(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any: ...


class SendGridAccount:
    """The part of MailProvider that is about the account and about people who leave it."""

    def account_id(self: _Wire) -> int:
        """See MailProvider. `GET /v3/user/username` needs the scope user.username.read."""
        answer = self._call("GET", "user", "username")
        found = answer.get("user_id") if isinstance(answer, dict) else None
        if not isinstance(found, int) or isinstance(found, bool):
            raise RetryableMailError("GET /v3/user/username: the answer names no user_id; ask again later")
        return found

    def remove_from_list(self: _Wire, list_id: str, contact_ids: Sequence[str]) -> None:
        """See MailProvider. As many ids as a search gives: 100 of 36 characters are a line of 3.7 kB."""
        _check_count(contact_ids)
        query = {"contact_ids": ",".join(contact_ids)}
        self._call("DELETE", "marketing", "lists", list_id, "contacts", query=query)

    def delete_contacts(self: _Wire, contact_ids: Sequence[str]) -> None:
        """See MailProvider. Never empty: without ids the endpoint deletes everybody if it is asked wrongly."""
        _check_count(contact_ids)
        try:
            self._call("DELETE", "marketing", "contacts", query={"ids": ",".join(contact_ids)})
        except NotFoundMailError:
            return  # gone already

    def erase_recipients(self: _Wire, addresses: Sequence[str]) -> None:
        """See MailProvider."""
        body = json.dumps({"email_addresses": list(addresses)}, ensure_ascii=False, separators=(",", ":")).encode()
        if not 1 <= len(addresses) <= ADDRESSES_PER_ERASURE or len(body) > ERASURE_BYTES:
            raise ValueError(f"{len(addresses)} addresses; expected 1 to {ADDRESSES_PER_ERASURE}; erase in parts")
        self._call("POST", "recipients", "erasejob", body=body)


def _check_count(contact_ids: Sequence[str]) -> None:
    if not 1 <= len(contact_ids) <= ADDRESSES_PER_SEARCH:
        raise ValueError(f"{len(contact_ids)} contact ids; expected 1 to {ADDRESSES_PER_SEARCH}; ask in parts")
