"""The ways in which a campaign's content reaches the provider."""

from typing import Final, Literal

PushMethod = Literal["contacts", "csv_import", "mail_send"]
# Ways to write contacts: one may stand in for the other for a night.
CONTACT_METHODS: Final = ("contacts", "csv_import")
