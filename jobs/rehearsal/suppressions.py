"""Suppressed addresses and the groups that people unsubscribe from."""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.database import Database

GLOBAL_UNSUBSCRIBES: Final = "unsubscribes"
GROUP_UNSUBSCRIBES: Final = "group_unsubscribes"
LISTED_KINDS: Final = ("bounces", "blocks", "invalid_emails", "spam_reports", GLOBAL_UNSUBSCRIBES)
# SendGrid drops mail to these; a block is a refusal that may pass, and is tried again.
DROPPING_KINDS: Final = ("bounces", "invalid_emails", "spam_reports", GLOBAL_UNSUBSCRIBES)


class Suppressions:
    """The suppressions of one rehearsal provider."""

    def __init__(self, database: Database) -> None:
        """Keep suppressions in `database`."""
        self._database = database

    def add(
        self, kind: str, addresses: Iterable[str], created_at: int, *, group: int = 0, reason: str = ""
    ) -> list[str]:
        """Suppress addresses; return them as they are stored. Who is suppressed already keeps the earlier time."""
        stored = [address.strip().lower() for address in addresses]
        with self._database.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO suppressions (email, kind, asm_group, created_at, reason) "
                "VALUES (?, ?, ?, ?, ?)",
                ((address, kind, group, created_at, reason) for address in stored),
            )
        return stored

    def remove(self, kind: str, address: str, *, group: int = 0) -> None:
        """Lift a suppression; raises ApiError 404 if there is none."""
        with self._database.write() as connection:
            removed = connection.execute(
                "DELETE FROM suppressions WHERE email = ? AND kind = ? AND asm_group = ?",
                (address.strip().lower(), kind, group),
            ).rowcount
        if not removed:
            raise limits.not_found()

    def page(self, kind: str, *, start_time: int, end_time: int, limit: int, offset: int) -> list[dict[str, Any]]:
        """Give one page of a kind between two Unix times (inclusive), oldest first."""
        rows = self._database.rows(
            "SELECT * FROM suppressions WHERE kind = ? AND asm_group = 0 AND created_at BETWEEN ? AND ? "
            "ORDER BY created_at, email LIMIT ? OFFSET ?",
            (kind, start_time, end_time, limit, offset),
        )
        return [_shown(kind, row) for row in rows]

    def create_group(self, payload: Any) -> dict[str, Any]:
        """Make an unsubscribe group."""
        payload = payload if isinstance(payload, dict) else {}
        name, description = payload.get("name"), payload.get("description")
        if not isinstance(name, str) or not 1 <= len(name) <= limits.GROUP_NAME_CHARACTERS:
            raise limits.bad_request(f"name must have 1 to {limits.GROUP_NAME_CHARACTERS} characters", "name")
        if not isinstance(description, str) or not 1 <= len(description) <= limits.GROUP_DESCRIPTION_CHARACTERS:
            most = limits.GROUP_DESCRIPTION_CHARACTERS
            raise limits.bad_request(f"description must have 1 to {most} characters", "description")
        is_default = bool(payload.get("is_default", False))
        try:
            with self._database.write() as connection:
                group = connection.execute(
                    "INSERT INTO asm_groups (name, description, is_default) VALUES (?, ?, ?)",
                    (name, description, is_default),
                ).lastrowid
        except sqlite3.IntegrityError as error:
            raise limits.bad_request("a group of that name exists already", "name") from error
        return {"id": group, "name": name, "description": description, "is_default": is_default}

    def groups(self) -> list[dict[str, Any]]:
        """List the groups with their numbers of unsubscribed people."""
        rows = self._database.rows(
            "SELECT g.*, (SELECT count(*) FROM suppressions s WHERE s.kind = ? AND s.asm_group = g.asm_group) "
            "AS people FROM asm_groups g ORDER BY g.asm_group",
            (GROUP_UNSUBSCRIBES,),
        )
        return [
            {
                "id": row["asm_group"],
                "name": row["name"],
                "description": row["description"],
                "is_default": bool(row["is_default"]),
                "unsubscribes": row["people"],
            }
            for row in rows
        ]

    def has_group(self, group: int) -> bool:
        """Say whether the group exists."""
        return self._database.value("SELECT 1 FROM asm_groups WHERE asm_group = ?", (group,)) is not None

    def group_members(self, group: int) -> list[str]:
        """List everyone who unsubscribed from the group."""
        rows = self._database.rows(
            "SELECT email FROM suppressions WHERE kind = ? AND asm_group = ? ORDER BY created_at, email",
            (GROUP_UNSUBSCRIBES, group),
        )
        return [row["email"] for row in rows]

    def all_group_members(self) -> list[dict[str, Any]]:
        """List everyone who unsubscribed from any group, as GET /v3/asm/suppressions does."""
        rows = self._database.rows(
            "SELECT s.*, g.name FROM suppressions s JOIN asm_groups g USING (asm_group) WHERE s.kind = ? "
            "ORDER BY s.asm_group, s.created_at, s.email",
            (GROUP_UNSUBSCRIBES,),
        )
        return [
            {
                "email": row["email"],
                "group_id": row["asm_group"],
                "group_name": row["name"],
                "created_at": row["created_at"],
            }
            for row in rows
        ]


def _shown(kind: str, row: sqlite3.Row) -> dict[str, Any]:
    entry: dict[str, Any] = {"created": row["created_at"], "email": row["email"]}
    if kind in ("bounces", "blocks"):
        entry |= {"reason": row["reason"], "status": ""}
    elif kind == "invalid_emails":
        entry |= {"reason": row["reason"]}
    elif kind == "spam_reports":
        entry |= {"ip": "127.0.0.1"}
    return entry
