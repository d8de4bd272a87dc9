"""Dynamic templates and their versions, as Mail Send uses them."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.handlebars import TemplateError, compile_template
from jobs.rehearsal.limits import ApiError, Problem

NAME_CHARACTERS: Final = 100
SUBJECT_CHARACTERS: Final = 255
CONTENT_CHARACTERS: Final = 1_048_576
GENERATIONS: Final = ("legacy", "dynamic")


class Templates:
    """The templates of one rehearsal provider."""

    def __init__(self, database: Database) -> None:
        """Keep templates in `database`."""
        self._database = database

    def create(self, payload: Any, now: datetime) -> dict[str, Any]:
        """Make a template without a version."""
        payload = payload if isinstance(payload, dict) else {}
        name, generation = payload.get("name"), payload.get("generation", "legacy")
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARACTERS:
            raise limits.bad_request(f"name must have 1 to {NAME_CHARACTERS} characters", "name")
        if generation not in GENERATIONS:
            raise limits.bad_request(f"generation must be one of {', '.join(GENERATIONS)}", "generation")
        with self._database.write() as connection:
            count = connection.execute("SELECT coalesce(max(template), 0) FROM templates").fetchone()[0]
            made = id_from("template", name, count + 1)
            # A dynamic template's id has no hyphens and begins with d-, which makes 34 characters.
            made = f"d-{made.replace('-', '')}" if generation == "dynamic" else made
            connection.execute(
                "INSERT INTO templates (id, name, generation, updated_at) VALUES (?, ?, ?, ?)",
                (made, name, generation, _instant(now)),
            )
        return self.get(made)

    def get(self, template_id: str) -> dict[str, Any]:
        """Describe a template with its versions."""
        row = self._row(template_id)
        versions = self._database.rows(
            "SELECT * FROM template_versions WHERE template = ? ORDER BY version", (row["template"],)
        )
        return {
            "id": row["id"],
            "name": row["name"],
            "generation": row["generation"],
            "updated_at": row["updated_at"],
            "versions": [
                {
                    "id": version["id"],
                    "template_id": row["id"],
                    "active": version["is_active"],
                    "name": version["name"],
                    "subject": version["subject"],
                    "updated_at": version["updated_at"],
                    "generate_plain_content": False,
                    "editor": "code",
                }
                for version in versions
            ],
        }

    def page(self, generations: Sequence[str], size: int, after: int) -> tuple[list[dict[str, Any]], int | None]:
        """List templates by number from the one after `after` on; and the number that the next page begins after."""
        marks = ",".join("?" * len(generations))
        rows = self._database.rows(
            f"SELECT * FROM templates WHERE template > ? AND generation IN ({marks}) ORDER BY template LIMIT ?",  # noqa: S608
            (after, *generations, size + 1),
        )
        found = [self.get(row["id"]) for row in rows[:size]]
        return found, rows[size - 1]["template"] if len(rows) > size else None

    def add_version(self, template_id: str, payload: Any, now: datetime) -> dict[str, Any]:
        """Add a version; the first one, and one that asks for it, becomes the active one."""
        template = self._row(template_id)
        payload = payload if isinstance(payload, dict) else {}
        problems = []
        for field, most in (("name", NAME_CHARACTERS), ("subject", SUBJECT_CHARACTERS)):
            if not isinstance(payload.get(field), str) or not 1 <= len(payload[field]) <= most:
                problems.append(Problem(f"{field} must have 1 to {most} characters", field))
        contents = {name: payload.get(name, "") for name in ("html_content", "plain_content")}
        for field, content in {"subject": payload.get("subject"), **contents}.items():
            if not isinstance(content, str) or len(content) > CONTENT_CHARACTERS:
                problems.append(Problem(f"{field} must be text of at most {CONTENT_CHARACTERS} characters", field))
                continue
            try:
                compile_template(content)
            except TemplateError as error:
                problems.append(Problem(f"{field}: {error}", field))
        if problems:
            raise ApiError(400, *problems)
        with self._database.write() as connection:
            count = "SELECT count(*) FROM template_versions WHERE template = ?"
            others = connection.execute(count, (template["template"],)).fetchone()[0]
            is_active = payload.get("active") == 1 or not others
            if is_active:
                sql = "UPDATE template_versions SET is_active = 0 WHERE template = ?"
                connection.execute(sql, (template["template"],))
            version_id = id_from("version", template_id, others + 1)
            connection.execute(
                "INSERT INTO template_versions (id, template, name, subject, html_content, plain_content, is_active, "
                "updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    version_id,
                    template["template"],
                    payload["name"],
                    payload["subject"],
                    contents["html_content"],
                    contents["plain_content"],
                    is_active,
                    _instant(now),
                ),
            )
        return {
            "id": version_id,
            "template_id": template_id,
            "active": int(is_active),
            "name": payload["name"],
            "subject": payload["subject"],
            **contents,
            "generate_plain_content": False,
            "editor": "code",
            "updated_at": _instant(now),
        }

    def delete(self, template_id: str) -> None:
        """Delete a template and its versions."""
        row = self._row(template_id)
        with self._database.write() as connection:
            for table in ("template_versions", "templates"):
                connection.execute(f"DELETE FROM {table} WHERE template = ?", (row["template"],))  # noqa: S608

    def active(self, template_id: str) -> sqlite3.Row | None:
        """Give the active version of a template, None if there is none."""
        return self._database.row(
            "SELECT v.* FROM template_versions AS v JOIN templates AS t ON t.template = v.template "
            "WHERE t.id = ? AND v.is_active",
            (template_id,),
        )

    def _row(self, template_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM templates WHERE id = ?", (template_id,))
        if row is None:
            raise limits.not_found("template not found")
        return row


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")
