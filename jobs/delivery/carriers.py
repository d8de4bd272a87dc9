"""The two ways in which rows reach the provider: in the body of a request, or in a file that an import reads.

A carrier packs as many rows as one request or one file takes, and hands them over; either way an import job is what
comes back. The rest is the engine's, and the same for both: receipts, polling, refused rows, resuming.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from jobs.delivery.client import ImportJob, MailProvider
from jobs.delivery.csv_file import CsvFile, write_file
from jobs.delivery.csv_rows import csv_header
from jobs.delivery.payload import Body
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.request_book import RequestBook, Ticket
from jobs.delivery.sheet import Positions, Sheet
from schemas.errors import BadContentMailError, RejectedMailError, TooLargeMailError
from schemas.push_method import PushMethod


class Load(Protocol):
    """Rows that are packed: the first `stop` of those that were given, as `size` bytes."""

    @property
    def stop(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...

    def close(self) -> None:
        """Give back what it takes up."""


L = TypeVar("L", bound=Load)


class Carrier(Protocol[L]):
    """Packs rows of one lane and hands them over."""

    first_call: str
    """The operation under which the ledger writes down that a load leaves."""

    @property
    def ahead(self) -> Executor | None:
        """Where the next load is packed while another one is on its way; None: it is not."""

    def pack(self, sheet: Sheet, positions: Positions) -> L:
        """Pack as many rows as fit, from the first on."""

    def hand_over(self, load: L, sheet: Sheet, lane: int, ticket: Ticket) -> tuple[str, Ticket]:
        """Let the provider take a load in, again after what another try may cure; give its job and the last ticket.

        `ticket` is that of the first call, which is written down already. Raises BadContentMailError or
        TooLargeMailError where a part of the rows may still be taken.
        """

    def has_read_all(self, job: ImportJob, contacts: int) -> bool:
        """Say whether a job that is completed can be about all of a load's rows."""

    def close(self) -> None:
        """End what runs in the background."""


def carrier_of(method: PushMethod, provider: MailProvider, book: RequestBook, calls: ProviderCalls) -> Carrier[Any]:
    """Make the carrier of a method."""
    return FileImports(provider, book, calls) if method == "csv_import" else ContactRequests(provider, calls)


@dataclass
class ContactRequests:
    """JSON, in requests of up to 6 MB: `contacts`."""

    provider: MailProvider
    calls: ProviderCalls
    first_call: str = field(init=False, default="upsert")
    _bytes_a_row: float = field(init=False, default=1_500)
    ahead: ThreadPoolExecutor = field(init=False, default_factory=lambda: ThreadPoolExecutor(1, "render"))

    def pack(self, sheet: Sheet, positions: Positions) -> Body:
        """See Carrier."""
        body = sheet.first_body(positions, self._bytes_a_row)
        self._bytes_a_row = body.size / body.stop
        return body

    def hand_over(self, load: Body, sheet: Sheet, lane: int, ticket: Ticket) -> tuple[str, Ticket]:
        """See Carrier."""
        return self.calls.write("upsert", ticket.subject, lambda: self.provider.upsert(load.content), ticket)

    def has_read_all(self, job: ImportJob, contacts: int) -> bool:
        """See Carrier: the provider checked the request itself before it took it."""
        return True

    def close(self) -> None:
        """See Carrier."""
        self.ahead.shutdown()


@dataclass
class FileImports:
    """CSV, in files of up to a million rows: `csv_import`.

    Two calls a file: the import's request, whose answer says where the file goes, and the upload. If the upload fails,
    or nobody heard what came of it, both are made again: a place is good for one upload, and whether the first file
    arrived cannot be asked. The job that is left then either has the same rows or never gets a file.
    """

    provider: MailProvider
    book: RequestBook
    calls: ProviderCalls
    first_call: str = field(init=False, default="request_import")

    def pack(self, sheet: Sheet, positions: Positions) -> CsvFile:
        """See Carrier. It takes seconds: the ledger is told in between that this worker lives."""
        header = csv_header([name for _, name in sheet.columns_of(positions)])
        lines = lambda first, last: sheet.render(positions[first:last])  # noqa: E731
        return write_file(header, lines, len(positions), between=self.calls.stay_alive)

    @property
    def ahead(self) -> None:
        """See Carrier: a chunk has one file a lane, so that there is hardly ever a next one."""
        return None

    def hand_over(self, load: CsvFile, sheet: Sheet, lane: int, ticket: Ticket) -> tuple[str, Ticket]:
        """See Carrier. A refusal is never of single rows: which of these are wrong, the job says."""
        first = [ticket]
        field_ids = [field_id for field_id, _ in sheet.columns[lane]]

        def once() -> tuple[str, Ticket]:
            place, asked = self.calls.attempt(
                "request_import",
                ticket.subject,
                lambda: self.provider.request_import(field_ids, sheet.lanes[lane]),
                first.pop() if first else None,
            )
            self.book.end_call(asked, "ok", place.job_id)
            _, put = self.calls.attempt(
                "upload_import",
                ticket.subject,
                lambda: self.provider.upload_import(place, self._parts(load), load.size),
            )
            return place.job_id, put

        try:
            return self.calls.repeat(once)
        except (BadContentMailError, TooLargeMailError) as error:
            raise RejectedMailError(str(error)) from error

    def _parts(self, file: CsvFile) -> Iterator[bytes]:
        """Give the file in parts. A worker that was replaced ends in here, and of its upload nothing is stored."""
        for part in file.parts():
            self.calls.stay_alive()
            yield part

    def has_read_all(self, job: ImportJob, contacts: int) -> bool:
        """See Carrier: a file that was read in another way than it was written has other rows. 0 may mean: not said."""
        return not 0 < job.requested < contacts

    def close(self) -> None:
        """See Carrier."""
