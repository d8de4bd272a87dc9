"""The file in which an import job lists the contacts that it did not store."""

import csv
import io
import urllib.request
from typing import Final

from jobs.delivery.wire import Clock, checked_host, make_opener, wire_errors
from schemas.errors import RejectedMailError

FILE_BYTES: Final = 64_000_000  # more than 600,000 contacts with their reasons: something else is wrong


def download_errors(errors_url: str, *, api_host: str, timeout_seconds: float, clock: Clock) -> dict[str, str]:
    """Map the address (or other identifier) of each contact that was not stored to the provider's reason.

    The request carries no key, and goes to the API's own host, or by https to a host that has a name: an answer must
    not be able to make ryml ask a machine of the inner network.

    Raises: RejectedMailError for any other address, or a file over 64 MB; RetryableMailError if there is no answer.
    """
    host = checked_host(errors_url, api_host, "error file of an import")
    with wire_errors("download of an import's error file", clock):
        request = urllib.request.Request(errors_url)  # noqa: S310 - the scheme was just checked
        with make_opener(host).open(request, timeout=timeout_seconds) as answer:
            content = answer.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise RejectedMailError(f"error file of an import: over {FILE_BYTES} bytes; look at the job at the provider")
    return read_errors(content.decode("utf-8-sig", "replace"))


def read_errors(content: str) -> dict[str, str]:
    """Read an error file (CSV) by its header; SendGrid documents neither the names nor the order of its columns."""
    rows = list(csv.reader(io.StringIO(content)))
    if not rows:
        return {}
    header = [name.strip().lower() for name in rows[0]]
    address = next((n for n, name in enumerate(header) if name in ("email", "identifier", "contact")), 0)
    reason = next((n for n, name in enumerate(header) if "error" in name or "reason" in name), len(header) - 1)
    return {row[address].strip().lower(): row[reason].strip() for row in rows[1:] if len(row) > max(address, reason)}
