"""What a push by Mail Send asks of an e-mail provider: mails that carry their own content, in a batch that waits.

As of MailProvider: each method makes its requests once, and raises MailErrors and nothing else.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

# SendGrid, POST /v3/mail/send: personalizations and recipients of a request, and the size of its message.
MAILS_PER_REQUEST: Final = 1_000
MESSAGE_BYTES: Final = 30_000_000

Hold = Literal["pause", "cancel"]


class MailSender(Protocol):
    """The part of a MailProvider that mails without contacts."""

    def find_template(self, name: str) -> str | None:
        """Give the id of the dynamic template of that exact name (the first, if there are several), None without."""

    def ensure_template(self, name: str, *, version: str, subject: str, html: str, text: str) -> str:
        """Give the id of the dynamic template of that exact name, with the version of that name as the active one.

        A version's name stands for its content (a digest): one that is there is not written again.
        """

    def delete_template(self, template_id: str) -> None:
        """Delete a template; one that is gone already is fine."""

    def create_batch(self) -> str:
        """Make the id of a batch. Not idempotent, and harmless: an id without mails is nothing."""

    def send_mails(self, body: bytes) -> str:
        """Hand over a request's mails; give the provider's id of it.

        NEVER TO BE REPEATED unless the error says that the provider cannot have acted: it knows no key by which it
        would tell a repetition, and mails everybody twice.
        """

    def batch_hold(self, batch_id: str) -> Hold | None:
        """Say whether a batch is paused or cancelled; None: its mails leave at their time."""

    def hold_batch(self, batch_id: str, hold: Hold) -> None:
        """Pause a batch that nothing holds, or cancel it. One that is so already is fine; may be repeated.

        Raises: RejectedMailError if a cancelled batch is to be paused, or too many batches are held.
        """

    def release_batch(self, batch_id: str) -> None:
        """Lift a pause or a cancellation; a batch that nothing holds is fine. What is past its time leaves at once."""

    def suppress(self, group_id: int, addresses: Sequence[str]) -> None:
        """Have the provider drop mails of an unsubscribe group to these addresses; who is on it already is fine."""
