"""The contacts of a rehearsal provider, as its API shows them."""

# ruff: noqa: S608 - what is put into these queries is names of columns, constants and question marks

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.rehearsal import limits
from jobs.rehearsal.bodies import Bodies
from jobs.rehearsal.database import Database
from jobs.rehearsal.faults import Faults


def contact_id(contact: int) -> str:
    """Give the id that the API shows for a contact."""
    return str(uuid.UUID(int=(0xC0 << 120) | (4 << 76) | (8 << 60) | contact))


def contact_number(shown: str) -> int | None:
    """Give the contact of an id, None if it can not be the id of one."""
    try:
        number = uuid.UUID(shown).int & 0xFFFF_FFFF_FFFF
    except ValueError:
        return None
    return number if contact_id(number) == shown.lower() else None


def iso(at: datetime | float) -> str:
    """Write an instant (or Unix time) as the API does: 2026-01-05T09:00:00Z."""
    instant = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


class Contacts:
    """The contacts of one rehearsal provider."""

    def __init__(self, database: Database, bodies: Bodies, faults: Faults) -> None:
        """Read contacts from `database`, and what they hold from `bodies`."""
        self._database = database
        self._bodies = bodies
        self._faults = faults

    def count(self) -> int:
        """Count the contacts."""
        return int(self._database.value("SELECT count(*) FROM contacts"))

    def by_email(self, addresses: Sequence[str], field_names: Mapping[str, str], now: datetime) -> dict[str, Any]:
        """Find contacts by address, as POST /v3/marketing/contacts/search/emails does.

        `field_names` is id -> name: answers show custom fields by name. Raises ApiError 404 if none is found.
        """
        wanted = list(dict.fromkeys(address.strip().lower() for address in addresses if address.strip()))
        marks = ",".join("?" * len(wanted))
        seen_until = now.timestamp() - self._faults.settings.search_lag_seconds
        rows = self._database.rows(
            f"SELECT * FROM contacts WHERE email IN ({marks}) AND created_at <= ?", (*wanted, seen_until)
        )
        contacts = {row["email"]: row for row in rows}
        if not contacts:
            raise limits.not_found("no contacts found")
        return {
            address: {"contact": self._details(contacts[address], field_names)}
            if address in contacts
            else {"error": "contact not found"}
            for address in wanted
        }

    def by_id(self, shown: str, field_names: Mapping[str, str]) -> dict[str, Any]:
        """Describe one contact, as GET /v3/marketing/contacts/{id} does; raises ApiError 404."""
        row = self._database.row("SELECT * FROM contacts WHERE contact = ?", (contact_number(shown),))
        if row is None:
            raise limits.not_found("contact not found")
        return self._details(row, field_names)

    def fields(self, row: sqlite3.Row | Mapping[str, Any]) -> dict[str, Any]:
        """Give the custom fields (id -> value) of a contact or a mail."""
        return self._bodies.fields_of(row)

    def _details(self, contact: sqlite3.Row, field_names: Mapping[str, str]) -> dict[str, Any]:
        list_ids = [
            row["id"]
            for row in self._database.rows(
                "SELECT id FROM lists AS l WHERE NOT is_deleted AND EXISTS "
                "(SELECT 1 FROM memberships AS m WHERE m.list = l.list AND m.contact = ?) ORDER BY list",
                (contact["contact"],),
            )
        ]
        profile = dict.fromkeys(limits.PROFILE_CHARACTERS, "") | json.loads(contact["profile"])
        fields = self.fields(contact)
        return {
            **profile,
            **{name: contact[name] or "" for name in limits.IDENTIFIERS},
            "id": contact_id(contact["contact"]),
            "alternate_emails": profile.get("alternate_emails", []),
            "list_ids": list_ids,
            "segment_ids": [],
            "custom_fields": {field_names[field]: value for field, value in fields.items() if field in field_names},
            "created_at": iso(contact["created_at"]),
            "updated_at": iso(contact["updated_at"]),
        }
