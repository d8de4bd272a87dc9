"""Custom field definitions and contact lists."""

import sqlite3
from datetime import datetime
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults

MEMBERSHIPS_PER_STEP: Final = 50_000  # removed per transaction after a list was deleted: well under a second each


class FieldDefinitions:
    """The custom fields of one rehearsal provider."""

    def __init__(self, database: Database) -> None:
        """Keep definitions in `database`."""
        self._database = database

    def types(self) -> dict[str, str]:
        """Map every custom field's id to its type."""
        return {row["id"]: row["field_type"] for row in self._rows()}

    def names(self) -> dict[str, str]:
        """Map every custom field's id to its name."""
        return {row["id"]: row["name"] for row in self._rows()}

    def listing(self) -> dict[str, Any]:
        """Give custom and reserved fields, as GET /v3/marketing/field_definitions does."""
        custom = [{"id": row["id"], "name": row["name"], "field_type": row["field_type"]} for row in self._rows()]
        return {"custom_fields": custom, "reserved_fields": list(limits.RESERVED_FIELDS)}

    def create(self, payload: Any) -> dict[str, str]:
        """Define a field; raises ApiError 400 for a name or type that may not be."""
        name, kind = (payload.get("name"), payload.get("field_type")) if isinstance(payload, dict) else (None, None)
        if kind not in limits.FIELD_TYPES:
            raise limits.bad_request(f"field_type must be one of {', '.join(limits.FIELD_TYPES)}", "field_type")
        if not isinstance(name, str) or not 1 <= len(name) <= limits.FIELD_NAME_CHARACTERS:
            raise limits.bad_request(f"name must have 1 to {limits.FIELD_NAME_CHARACTERS} characters", "name")
        if not limits.FIELD_NAME.match(name):
            raise limits.bad_request("name may have letters, digits and underscores, no digit first", "name")
        if name.lower() in limits.RESERVED_NAMES:
            raise limits.bad_request("name is the name of a reserved field", "name")
        with self._database.write() as connection:
            count, greatest = connection.execute(
                "SELECT count(*), coalesce(max(field), 0) FROM field_definitions"
            ).fetchone()
            if count >= limits.CUSTOM_FIELDS:
                raise limits.bad_request(f"there are {limits.CUSTOM_FIELDS} custom fields already, which is the limit")
            field_id = f"e{greatest + 1}_{kind[0]}"
            try:
                connection.execute(
                    "INSERT INTO field_definitions (field, id, name, field_type) VALUES (?, ?, ?, ?)",
                    (greatest + 1, field_id, name, kind),
                )
            except sqlite3.IntegrityError as error:
                raise limits.bad_request("a custom field of that name exists already", "name") from error
        return {"id": field_id, "name": name, "field_type": kind}

    def _rows(self) -> list[sqlite3.Row]:
        return self._database.rows("SELECT id, name, field_type FROM field_definitions ORDER BY field")


class ContactLists:
    """The contact lists of one rehearsal provider."""

    def __init__(self, database: Database, faults: Faults) -> None:
        """Keep lists in `database`."""
        self._database = database
        self._faults = faults

    def create(self, payload: Any) -> dict[str, Any]:
        """Make an empty list; raises ApiError 400 if the name is taken."""
        name = _list_name(payload)
        try:
            with self._database.write() as connection:
                list_id = id_from("list", name, _greatest(connection) + 1)
                connection.execute("INSERT INTO lists (id, name) VALUES (?, ?)", (list_id, name))
        except sqlite3.IntegrityError as error:
            raise limits.bad_request("a list of that name exists already", "name") from error
        return {"id": list_id, "name": name, "contact_count": 0}

    def page(self, after: int, size: int, now: datetime) -> tuple[list[dict[str, Any]], int | None, int]:
        """Give one page of lists in the order of their creation, the key to go on after, and the number of all."""
        rows = self._database.rows(
            "SELECT * FROM lists WHERE NOT is_deleted AND list > ? ORDER BY list LIMIT ?", (after, size + 1)
        )
        count = int(self._database.value("SELECT count(*) FROM lists WHERE NOT is_deleted"))
        shown = [self._shown(row, now) for row in rows[:size]]
        return shown, rows[size - 1]["list"] if len(rows) > size else None, count

    def get(self, list_id: str, now: datetime) -> dict[str, Any]:
        """Describe a list; raises ApiError 404."""
        return self._shown(self._row(list_id), now)

    def rename(self, list_id: str, payload: Any, now: datetime) -> dict[str, Any]:
        """Give a list another name."""
        number, name = self._row(list_id)["list"], _list_name(payload)
        try:
            with self._database.write() as connection:
                connection.execute("UPDATE lists SET name = ? WHERE list = ?", (name, number))
        except sqlite3.IntegrityError as error:
            raise limits.bad_request("a list of that name exists already", "name") from error
        return self.get(list_id, now)

    def delete(self, list_id: str) -> None:
        """Delete a list, not its contacts; its memberships go in the background."""
        number = self._row(list_id)["list"]
        with self._database.write() as connection:
            connection.execute("UPDATE lists SET is_deleted = 1, contact_count = 0 WHERE list = ?", (number,))

    def purge_step(self) -> bool:
        """Remove some memberships of a deleted list; say whether there was one."""
        number = self._database.value("SELECT list FROM lists WHERE is_deleted LIMIT 1")
        if number is None:
            return False
        with self._database.write() as connection:
            removed = connection.execute(
                "DELETE FROM memberships WHERE list = ? AND contact IN "
                "(SELECT contact FROM memberships WHERE list = ? LIMIT ?)",
                (number, number, MEMBERSHIPS_PER_STEP),
            ).rowcount
            if removed < MEMBERSHIPS_PER_STEP:
                connection.execute("DELETE FROM lists WHERE list = ?", (number,))
        return True

    def _shown(self, row: sqlite3.Row, now: datetime) -> dict[str, Any]:
        count = row["contact_count"]
        if lag := self._faults.settings.count_lag_seconds:
            count = self._database.value(
                "SELECT contact_count FROM list_sizes WHERE list = ? AND at <= ? ORDER BY at DESC, rowid DESC LIMIT 1",
                (row["list"], now.timestamp() - lag),
            )
        return {"id": row["id"], "name": row["name"], "contact_count": count or 0}

    def _row(self, list_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM lists WHERE id = ? AND NOT is_deleted", (list_id,))
        if row is None:
            raise limits.not_found("list not found")
        return row


def _greatest(connection: sqlite3.Connection) -> int:
    """Give the number of the newest list that ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'lists'").fetchone()
    return int(row["seq"]) if row else 0


def _list_name(payload: Any) -> str:
    name = payload.get("name") if isinstance(payload, dict) else None
    if not isinstance(name, str) or not 1 <= len(name) <= limits.LIST_NAME_CHARACTERS:
        raise limits.bad_request(f"name must have 1 to {limits.LIST_NAME_CHARACTERS} characters", "name")
    return name
