"""What the delivery stages ask of an e-mail provider, and what it answers.

Every method makes its requests once: retries are the engine's, which knows what may be repeated. What happens on the
wire is raised as RetryableMailError (the outcome may be unknown), RejectedMailError or MailAuthError, and nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

from jobs.delivery.mail_sender import MailSender

ADDRESSES_PER_SEARCH: Final = 100  # of contacts_by_email (SendGrid, POST /v3/marketing/contacts/search/emails)
REQUEST_BYTES: Final = 6_000_000  # of upsert, whichever is reached first (SendGrid, PUT /v3/marketing/contacts: "6MB")
REQUEST_CONTACTS: Final = 30_000
FILE_BYTES: Final = 5_000_000_000  # of upload_import (SendGrid, PUT /v3/marketing/contacts/imports: "5GB")
FILE_CONTACTS: Final = 1_000_000

JobStatus = Literal["pending", "completed", "errored", "failed"]
SendStatus = Literal["draft", "scheduled", "triggered"]


@dataclass(frozen=True)
class ImportJob:
    """How far the provider is with an upsert.

    `completed`: every contact is stored. `errored`: some are not. `failed`: none is. Only `requested` and `errored` are
    safe to count with: SendGrid's jobs also have an undocumented count of contacts that did not change.
    """

    job_id: str
    status: JobStatus
    requested: int
    created: int
    updated: int
    errored: int
    errors_url: str | None


@dataclass(frozen=True)
class RateLimit:
    """What an answer said of the provider's limit: so many requests a window, of which some remain until its reset.

    Units: reset_at in Unix time.
    """

    limit: int
    remaining: int
    reset_at: float


@dataclass(frozen=True)
class ImportPlace:
    """Where the file of an import job is to be put. Whoever has the address can write there: it goes into no log."""

    job_id: str
    upload_uri: str = field(repr=False)
    upload_headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class ContactList:
    """A contact list; `contact_count` may lag behind the imports."""

    id: str
    name: str
    contact_count: int


@dataclass(frozen=True)
class Contact:
    """A contact as the provider holds it; custom fields by name."""

    id: str
    email: str
    list_ids: tuple[str, ...]
    custom_fields: Mapping[str, str]


@dataclass(frozen=True)
class SingleSend:
    """One mailing to a list. Only `draft` can still be left unsent without asking the provider."""

    id: str
    name: str
    status: SendStatus
    send_at: datetime | None


@dataclass(frozen=True)
class SingleSendStats:
    """Totals of a triggered single send; all 0 before."""

    requests: int
    delivered: int
    bounces: int
    bounce_drops: int
    spam_report_drops: int
    invalid_emails: int
    unsubscribes: int
    unique_opens: int
    unique_clicks: int


class MailProvider(MailSender, Protocol):
    """An e-mail provider that holds contacts with custom fields and mails lists of them, or mails without contacts."""

    def rate_limit(self) -> RateLimit | None:
        """Give what the last answer to this thread said of the limit of what it had asked; None if it said nothing."""

    def ensure_fields(self, names: Sequence[str]) -> dict[str, str]:
        """Map field names to the provider's ids, creating text fields that are missing.

        Raises ConfigError if a field of that name is not of the type Text, or differs in upper and lower case.
        """

    def ensure_list(self, name: str) -> str:
        """Give the id of the list of that exact name, creating it if there is none."""

    def find_list(self, name: str) -> str | None:
        """Give the id of the list of that exact name, None if there is none."""

    def list_size(self, list_id: str) -> int:
        """Count the contacts on a list, as the provider knows it now."""

    def delete_list(self, list_id: str) -> None:
        """Delete a list, not its contacts; a list that is gone already is fine."""

    def upsert(self, body: bytes) -> str:
        """Queue contacts; return the id of the import job.

        `body` is a JSON document {"list_ids": [...], "contacts": [...]} and is sent as it is, so that the
        bytes counted are the bytes sent. Accepted is not stored: only import_job tells.
        """

    def email_field(self) -> str:
        """Give the id of the provider's own field for the address, which a file's column is mapped to."""

    def request_import(self, field_ids: Sequence[str], list_ids: Sequence[str]) -> ImportPlace:
        """Ask for an import of a CSV file, with a field for each of its columns; say where the file has to go.

        The job is there before its file, and waits for it as `pending`, for ever if none comes.
        """

    def upload_import(self, place: ImportPlace, parts: Iterable[bytes], size: int) -> None:
        """Put the file of an import, gzip or not, to its place, which is good for one upload.

        `parts` are its `size` bytes in order. The place is no part of the API: it gets the headers that came with it,
        and not the key. Raises RetryableMailError also if the place is refused; ask for another one.
        """

    def import_job(self, job_id: str) -> ImportJob:
        """Say how far an import job is."""

    def import_errors(self, errors_url: str) -> dict[str, str]:
        """Download which contacts an import job did not store: address -> the provider's reason."""

    def find_single_send(self, name: str) -> SingleSend | None:
        """Find the single send of that exact name.

        If an unknown answer to create left several, gives the one that is furthest: triggered, scheduled, draft; the
        oldest of equals.
        """

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
        """Create a single send that does not send. Not idempotent: search first."""

    def schedule(self, single_send_id: str, send_at: datetime | None = None) -> None:
        """Schedule a draft for an instant, or (None) for now. Read it back with single_send."""

    def unschedule(self, single_send_id: str) -> None:
        """Take a schedule back: the single send is a draft again. Refused once it is triggered."""

    def single_send(self, single_send_id: str) -> SingleSend:
        """Read a single send's status."""

    def single_send_stats(self, single_send_id: str) -> SingleSendStats:
        """Count what became of a single send."""

    def contacts_by_email(self, addresses: Sequence[str]) -> dict[str, Contact]:
        """Find up to 100 contacts by lower-case address; addresses without a contact are left out."""

    def suppressed_addresses(
        self, since: datetime | None = None, *, group_id: int | None = None
    ) -> Iterator[tuple[str, str]]:
        """Go through (kind, address) of everyone who may not be mailed.

        Kinds: bounces, invalid_emails, spam_reports, unsubscribes (of everything), all since `since`; and, with
        `group_id`, group_unsubscribes, always the whole group. An address may come more than once.
        """

    def ensure_suppression_group(self, name: str) -> int:
        """Give the id of the unsubscribe group of that exact name, creating it if there is none."""

    def account_id(self) -> int:
        """Give the id of the account that the key belongs to."""

    def remove_from_list(self, list_id: str, contact_ids: Sequence[str]) -> None:
        """Queue the end of up to 100 contacts' membership of a list; who is no member is fine. The contacts stay."""

    def delete_contacts(self, contact_ids: Sequence[str]) -> None:
        """Queue the deletion of up to 100 contacts; one that is gone already is fine."""

    def erase_recipients(self, addresses: Sequence[str]) -> None:
        """Queue the erasure of what mails to up to 5,000 addresses left with the provider; contacts stay."""
