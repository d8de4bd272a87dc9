"""What the SendGrid client asks of suppressions and groups. `sendgrid_client` inherits this and has the wire."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from jobs.delivery.sendgrid_wire import PAGES, Wire, given
from schemas.errors import RejectedMailError

SUPPRESSIONS_PER_PAGE: Final = 500
SUPPRESSION_KINDS: Final = ("bounces", "invalid_emails", "spam_reports", "unsubscribes")


class SendGridSuppressions:
    """The part of MailProvider that is about who may not be mailed."""

    def suppressed_addresses(
        self: Wire, since: datetime | None = None, *, group_id: int | None = None
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

    def ensure_suppression_group(self: Wire, name: str) -> int:
        """See MailProvider."""
        found = _find_group(self, name)
        if found is not None:
            return found
        try:
            description = f"Unsubscribes of {name}"[:100]
            return int(given(self._post({"name": name, "description": description}, "asm", "groups"), "id"))
        except RejectedMailError:
            found = _find_group(self, name)
            if found is None:
                raise
            return found


def _find_group(wire: Wire, name: str) -> int | None:
    groups = wire._call("GET", "asm", "groups")
    return next((int(group["id"]) for group in groups if group["name"] == name), None)
