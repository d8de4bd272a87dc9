"""Single sends: drafts, their schedules, and the instant at which one is sent.

Sending means to note, for each recipient, the contact as it is at that instant. The mail is rendered from the note when
somebody looks at it. A draft never sends; only PUT .../schedule does.
"""

# ruff: noqa: S608 - what is put into these queries is names of columns, constants and question marks

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.contacts import iso
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults
from jobs.rehearsal.handlebars import TemplateError, compile_template
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.suppressions import DROPPING_KINDS, GLOBAL_UNSUBSCRIBES, GROUP_UNSUBSCRIBES

STATUSES: Final = ("draft", "scheduled", "triggered")
_CONFIG: Final[dict[str, tuple[type, ...]]] = {
    "subject": (str,),
    "html_content": (str,),
    "plain_content": (str,),
    "generate_plain_content": (bool,),
    "editor": (str,),
    "suppression_group_id": (int, type(None)),
    "custom_unsubscribe_url": (str, type(None)),
    "sender_id": (int, type(None)),
    "ip_pool": (str, type(None)),
}
_NO_CONFIG: Final[dict[str, Any]] = {
    "subject": "",
    "html_content": "",
    "plain_content": "",
    "generate_plain_content": True,
    "editor": "code",
    "suppression_group_id": None,
    "custom_unsubscribe_url": None,
    "sender_id": None,
    "ip_pool": None,
}
_TEMPLATES: Final = ("subject", "html_content", "plain_content")
_METRICS: Final = (
    "bounce_drops", "bounces", "clicks", "delivered", "invalid_emails", "opens", "requests", "spam_report_drops",
    "spam_reports", "unique_clicks", "unique_opens", "unsubscribes",
)  # fmt: skip


class SingleSends:
    """The single sends of one rehearsal provider, and the mails that they became."""

    def __init__(self, database: Database, faults: Faults) -> None:
        """Keep single sends in `database`."""
        self._database = database
        self._faults = faults

    # The API's side

    def create(self, payload: Any, now: datetime) -> dict[str, Any]:
        """Make a draft; `send_at` in it only pre-fills the form, as at SendGrid."""
        values = self._checked(payload, is_name_required=True)
        at = iso(now)
        with self._database.write() as connection:
            greatest = connection.execute("SELECT coalesce(max(single_send), 0) FROM single_sends").fetchone()[0]
            send_id = id_from("single send", values["name"], greatest + 1)
            connection.execute(
                "INSERT INTO single_sends (id, name, status, categories, send_to, email_config, send_at, created_at, "
                "updated_at, created_unix) VALUES (?, ?, 'draft', ?, ?, ?, ?, ?, ?, ?)",
                (
                    send_id,
                    values["name"],
                    json.dumps(values.get("categories", [])),
                    json.dumps(values.get("send_to", {"list_ids": [], "segment_ids": [], "all": False})),
                    json.dumps(_NO_CONFIG | values.get("email_config", {})),
                    values.get("send_at"),
                    at,
                    at,
                    now.timestamp(),
                ),
            )
        return self.get(send_id)

    def change(self, send_id: str, payload: Any, now: datetime) -> dict[str, Any]:
        """Change a draft; properties that are not given stay."""
        row = self.row(send_id)
        if row["status"] != "draft":
            raise limits.bad_request(f"a single send that is {row['status']} cannot be changed", "status")
        values = self._checked(payload, is_name_required=False)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE single_sends SET name = ?, categories = ?, send_to = ?, email_config = ?, send_at = ?, "
                "updated_at = ? WHERE single_send = ? AND status = 'draft'",
                (
                    values.get("name", row["name"]),
                    json.dumps(values["categories"]) if "categories" in values else row["categories"],
                    json.dumps(values["send_to"]) if "send_to" in values else row["send_to"],
                    json.dumps(json.loads(row["email_config"]) | values.get("email_config", {})),
                    values.get("send_at", row["send_at"]),
                    iso(now),
                    row["single_send"],
                ),
            )
        return self.get(send_id)

    def delete(self, send_id: str) -> None:
        """Delete a single send for good; the mails that it became stay in the mailbox."""
        number = self.row(send_id)["single_send"]
        with self._database.write() as connection:
            connection.execute("UPDATE single_sends SET status = 'deleted' WHERE single_send = ?", (number,))

    def get(self, send_id: str) -> dict[str, Any]:
        """Describe a single send in full."""
        row = self.row(send_id)
        return {
            "id": row["id"],
            "name": row["name"],
            "status": row["status"],
            "categories": json.loads(row["categories"]),
            "send_at": row["send_at"],
            "send_to": json.loads(row["send_to"]),
            "email_config": json.loads(row["email_config"]),
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }

    def page(
        self,
        *,
        name: str | None,
        statuses: tuple[str, ...],
        categories: tuple[str, ...],
        offset: int,
        size: int,
        now: datetime,
    ) -> tuple[list[dict[str, Any]], int]:
        """Give one page of the single sends that match, newest first, and the number of all that match.

        `name` matches anywhere and in any case: "leading and trailing wildcard search".
        """
        marks = ",".join("?" * len(statuses))
        rows = self._database.rows(
            f"SELECT * FROM single_sends WHERE status IN ({marks}) AND instr(lower(name), lower(?)) "
            "AND created_unix <= ? ORDER BY single_send DESC",
            (*statuses, name or "", now.timestamp() - self._faults.settings.search_lag_seconds),
        )
        if categories:
            rows = [row for row in rows if not set(categories).isdisjoint(json.loads(row["categories"]))]
        return [_short(row) for row in rows[offset : offset + size]], len(rows)

    def schedule(self, send_id: str, payload: Any, now: datetime) -> dict[str, Any]:
        """Schedule a draft, or move one that is scheduled; "now" is due at once."""
        row = self.row(send_id)
        if row["status"] == "triggered":
            raise limits.bad_request("the single send has been triggered already", "status")
        send_at = payload.get("send_at") if isinstance(payload, dict) else None
        due_at = now if send_at == "now" else _instant(send_at)
        if due_at < now:
            raise limits.bad_request("send_at must be in the future", "send_at")
        if problems := self._missing(row):
            raise ApiError(400, *problems)
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE single_sends SET status = 'scheduled', send_at = ?, due_at = ?, updated_at = ? "
                "WHERE single_send = ? AND status IN ('draft', 'scheduled')",
                (iso(due_at), due_at.timestamp(), iso(now), row["single_send"]),
            ).rowcount
        if not changed:
            raise limits.bad_request("the single send has been triggered already", "status")
        return {"send_at": iso(due_at), "status": "scheduled"}

    def unschedule(self, send_id: str, now: datetime) -> dict[str, Any]:
        """Take a schedule back, as long as it is not triggered."""
        row = self.row(send_id)
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE single_sends SET status = 'draft', due_at = NULL, updated_at = ? "
                "WHERE single_send = ? AND status = 'scheduled'",
                (iso(now), row["single_send"]),
            ).rowcount
        if not changed:
            raise limits.bad_request("the single send is not scheduled", "status")
        return {"send_at": row["send_at"], "status": "draft"}

    def stats(self, send_id: str) -> list[dict[str, Any]]:
        """Count a single send in total; empty before it is triggered."""
        row = self.row(send_id)
        if row["status"] != "triggered":
            return []
        drops = json.loads(row["drops"])
        counts = dict.fromkeys(_METRICS, 0) | {
            "requests": row["requests"],
            "delivered": row["delivered"],
            "bounce_drops": drops.get("bounces", 0),
            "invalid_emails": drops.get("invalid_emails", 0),
            "spam_report_drops": drops.get("spam_reports", 0),
            "unsubscribes": self._unsubscribed_since(row),
        }
        return [{"id": send_id, "ab_variation": "all", "ab_phase": "all", "aggregation": "total", "stats": counts}]

    def row(self, send_id: str) -> sqlite3.Row:
        """Find a single send; raises ApiError 404."""
        row = self._database.row("SELECT * FROM single_sends WHERE id = ? AND status <> 'deleted'", (send_id,))
        if row is None:
            raise limits.not_found("single send not found")
        return row

    # The worker's side

    def next_due_at(self) -> float | None:
        """Say when the next single send is to be triggered (Unix time), None if none is scheduled."""
        due_at = self._database.value("SELECT min(due_at) FROM single_sends WHERE status = 'scheduled'")
        return None if due_at is None else float(due_at)

    def trigger_next(self, now: datetime) -> tuple[int, int] | None:
        """Send the single send that is due the longest; give the numbers of its first mail and of the one after all.

        One transaction: the status and the mails are there together or not at all.
        """
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT * FROM single_sends WHERE status = 'scheduled' AND due_at <= ? "
                "ORDER BY due_at, single_send LIMIT 1",
                (now.timestamp(),),
            ).fetchone()
            if row is None:
                return None
            audience, numbers = _audience(connection, json.loads(row["send_to"]))
            group = json.loads(row["email_config"])["suppression_group_id"] or 0
            kinds = ",".join(f"'{kind}'" for kind in DROPPING_KINDS)
            suppressed = f"(s.kind IN ({kinds}) OR (s.kind = '{GROUP_UNSUBSCRIBES}' AND s.asm_group = ?))"
            first = connection.execute("SELECT coalesce(max(mail), 0) + 1 FROM mails").fetchone()[0]
            delivered = connection.execute(
                "INSERT OR IGNORE INTO mails "
                "(single_send, contact, email, profile, fields, body, position, over_body, over_position, sent_at) "
                "SELECT ?, c.contact, c.email, c.profile, c.fields, c.body, c.position, c.over_body, c.over_position, "
                "? FROM contacts AS c "
                f"WHERE c.email IS NOT NULL AND {audience} "
                f"AND NOT EXISTS (SELECT 1 FROM suppressions AS s WHERE s.email = c.email AND {suppressed}) "
                "ORDER BY c.contact",
                (row["single_send"], iso(now), *numbers, group),
            ).rowcount
            dropped = connection.execute(
                "SELECT kind, count(*) AS people FROM (SELECT s.email, min(s.kind) AS kind FROM suppressions AS s "
                f"JOIN contacts AS c ON c.email = s.email WHERE {suppressed} AND {audience} GROUP BY s.email) "
                "GROUP BY kind",
                (group, *numbers),
            ).fetchall()
            drops = {drop["kind"]: drop["people"] for drop in dropped}
            connection.execute(
                "UPDATE single_sends SET status = 'triggered', triggered_at = ?, updated_at = ?, first_mail = ?, "
                "requests = ?, delivered = ?, drops = ? WHERE single_send = ?",
                (
                    iso(now),
                    iso(now),
                    first,
                    delivered + sum(drops.values()),
                    delivered,
                    json.dumps(drops),
                    row["single_send"],
                ),
            )
        return first, first + delivered

    def _unsubscribed_since(self, row: sqlite3.Row) -> int:
        group = json.loads(row["email_config"])["suppression_group_id"] or 0
        since = int(_instant(row["triggered_at"]).timestamp())
        return int(
            self._database.value(
                "SELECT count(*) FROM suppressions AS s JOIN mails AS m ON m.email = s.email AND m.single_send = ? "
                "WHERE s.kind IN (?, ?) AND s.asm_group IN (0, ?) AND s.created_at >= ?",
                (row["single_send"], GLOBAL_UNSUBSCRIBES, GROUP_UNSUBSCRIBES, group, since),
            )
        )

    def _checked(self, payload: Any, *, is_name_required: bool) -> dict[str, Any]:
        """Check the properties of a create or a change; raises ApiError 400 with all problems."""
        if not isinstance(payload, dict):
            raise limits.bad_request("the request body must be a JSON object")
        problems: list[Problem] = []
        most = limits.SINGLE_SEND_NAME_CHARACTERS
        if is_name_required or "name" in payload:
            name = payload.get("name")
            if not isinstance(name, str) or not 1 <= len(name) <= most:
                problems.append(Problem(f"name must have 1 to {most} characters", "name"))
        categories = payload.get("categories", [])
        if not _is_strings(categories) or len(categories) > limits.CATEGORIES:
            problems.append(Problem(f"at most {limits.CATEGORIES} categories are allowed", "categories"))
        send_to = payload.get("send_to", {})
        if not isinstance(send_to, dict) or not _is_strings(send_to.get("list_ids", [])):
            problems.append(Problem("send_to must be an object with list_ids", "send_to"))
        elif len(send_to.get("list_ids", [])) > limits.LISTS_PER_SINGLE_SEND:
            problems.append(Problem(f"at most {limits.LISTS_PER_SINGLE_SEND} lists are allowed", "send_to.list_ids"))
        elif send_to.get("segment_ids"):
            problems.append(Problem("segments are not part of the rehearsal provider", "send_to.segment_ids"))
        problems += _config_problems(payload.get("email_config", {}))
        if problems:
            raise ApiError(400, *problems)
        known = {name: payload[name] for name in ("name", "categories", "send_at", "email_config") if name in payload}
        if "send_to" in payload:
            known["send_to"] = {
                "list_ids": list(send_to.get("list_ids", [])),
                "segment_ids": [],
                "all": bool(send_to.get("all", False)),
            }
        return known

    def _missing(self, row: sqlite3.Row) -> list[Problem]:
        """List what a draft lacks to be sent."""
        config, send_to = json.loads(row["email_config"]), json.loads(row["send_to"])
        problems = []
        if not send_to["all"] and not send_to["list_ids"]:
            problems.append(Problem("at least one list is required", "send_to"))
        marks = ",".join("?" * len(send_to["list_ids"]))
        found = self._database.rows(
            f"SELECT id FROM lists WHERE NOT is_deleted AND id IN ({marks})",
            send_to["list_ids"],
        )
        if len(found) < len(set(send_to["list_ids"])):
            problems.append(Problem("a list does not exist", "send_to.list_ids"))
        problems += [
            Problem(f"{name} is required", f"email_config.{name}")
            for name in ("subject", "html_content", "sender_id")
            if not config[name]
        ]
        if not config["suppression_group_id"] and not config["custom_unsubscribe_url"]:
            problems.append(Problem("suppression_group_id or custom_unsubscribe_url is required", "email_config"))
        group = config["suppression_group_id"]
        if group and self._database.value("SELECT 1 FROM asm_groups WHERE asm_group = ?", (group,)) is None:
            problems.append(Problem("the suppression group does not exist", "email_config.suppression_group_id"))
        return problems


def _audience(connection: sqlite3.Connection, send_to: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Give an SQL condition on contacts `c`, and its parameters. A deleted list has nobody on it."""
    if send_to["all"]:
        return "1", ()
    marks = ",".join("?" * len(send_to["list_ids"]))
    rows = connection.execute(
        f"SELECT list FROM lists WHERE NOT is_deleted AND id IN ({marks})",
        send_to["list_ids"],
    ).fetchall()
    numbers = tuple(row["list"] for row in rows)
    marks = ",".join("?" * len(numbers))
    return f"c.contact IN (SELECT contact FROM memberships WHERE list IN ({marks}))", numbers


def _config_problems(config: Any) -> list[Problem]:
    if not isinstance(config, dict):
        return [Problem("email_config must be an object", "email_config")]
    problems = []
    for name, value in config.items():
        where = f"email_config.{name}"
        if name not in _CONFIG:
            problems.append(Problem(f"{name} is not part of the rehearsal provider", where))
        elif not isinstance(value, _CONFIG[name]) or (isinstance(value, bool) and bool not in _CONFIG[name]):
            problems.append(Problem(f"{name} is of the wrong type", where))
        elif name in _TEMPLATES:
            try:
                compile_template(value)
            except TemplateError as error:
                problems.append(Problem(f"{name}: {error}", where))
    return problems


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _instant(value: Any) -> datetime:
    """Read an ISO 8601 instant with an offset or Z."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise limits.bad_request('send_at must be "now" or an ISO 8601 date-time', "send_at") from error
    if at.tzinfo is None:
        raise limits.bad_request("send_at must have an offset, such as Z", "send_at")
    return at.astimezone(UTC)


def _short(row: sqlite3.Row) -> dict[str, Any]:
    shown = {
        "id": row["id"],
        "name": row["name"],
        "abtest": None,
        "status": row["status"],
        "categories": json.loads(row["categories"]),
        "is_abtest": False,
        "updated_at": row["updated_at"],
        "created_at": row["created_at"],
    }
    return shown if row["send_at"] is None else {**shown, "send_at": row["send_at"]}
