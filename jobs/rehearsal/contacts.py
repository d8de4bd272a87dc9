"""Contacts and the import jobs that change them.

A PUT is only queued; a job applies it later, in one transaction. Until then the contacts are as they were.
"""

# ruff: noqa: S608 - what is put into these queries is names of columns, constants and question marks

import csv
import io
import json
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults
from jobs.rehearsal.intake import Intake, RowError

_IDENTIFIERS: Final = ", ".join(limits.IDENTIFIERS)
# Omitted properties stay as they were; json_patch replaces the keys that are given and keeps the others.
_MERGE: Final = """
    phone_number_id = coalesce(excluded.phone_number_id, phone_number_id),
    external_id = coalesce(excluded.external_id, external_id),
    anonymous_id = coalesce(excluded.anonymous_id, anonymous_id),
    profile = json_patch(profile, excluded.profile), fields = json_patch(fields, excluded.fields),
    updated_at = excluded.updated_at
"""
_NOT_ALL_IDENTIFIERS: Final = "all existing identifiers of the contact must be present to update it"
_FAULT: Final = "the contact could not be processed at this time"
_TWO_CONTACTS: Final = "the identifiers belong to different contacts"


def contact_id(contact: int) -> str:
    """Give the id that the API shows for a contact."""
    return str(uuid.UUID(int=(0xC0 << 120) | (4 << 76) | (8 << 60) | contact))


def iso(at: datetime) -> str:
    """Write an instant as the API does: 2026-01-05T09:00:00Z."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Contacts:
    """The contacts of one rehearsal provider."""

    def __init__(self, database: Database, faults: Faults, *, job_lag_seconds: float) -> None:
        """Keep contacts in `database`; a job is applied `job_lag_seconds` after its request, never before."""
        self._database = database
        self._faults = faults
        self._job_lag_seconds = job_lag_seconds

    # The API's side

    def queue(self, intake: Intake, now: datetime, digest: str = "") -> str:
        """Store an accepted request; return the id of its job, which follows from the request's digest."""
        known = self._database.rows("SELECT id, list FROM lists WHERE NOT is_deleted")
        found = {row["id"]: row["list"] for row in known}
        if strange := [list_id for list_id in intake.list_ids if list_id not in found]:
            raise limits.bad_request(f"invalid list ids supplied - {', '.join(strange)}", "list_ids")
        lists = json.dumps([found[list_id] for list_id in intake.list_ids])
        try:
            with self._database.write() as connection:
                nth = connection.execute("SELECT count(*) FROM jobs WHERE digest = ?", (digest,)).fetchone()[0]
                job_id = id_from("job", digest, nth)
                fate = self._faults.of_job(job_id, self._job_lag_seconds)
                job = connection.execute(
                    "INSERT INTO jobs (id, status, lists, requested, accepted_at, due_at, digest, fault) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        job_id,
                        "stuck" if fate.fault == "stuck" else "pending",
                        lists,
                        intake.requested,
                        iso(now),
                        now.timestamp() + fate.lag_seconds,
                        digest,
                        fate.fault,
                    ),
                ).lastrowid
                connection.executemany(
                    f"INSERT INTO incoming (job, position, {_IDENTIFIERS}, profile, fields) VALUES (?,?,?,?,?,?,?,?)",
                    ((job, *row) for row in intake.rows),
                )
                _store_errors(connection, int(job or 0), intake.errors)
        except UnicodeEncodeError as error:
            raise limits.bad_request("a string holds half of a surrogate pair, which is not Unicode text") from error
        return job_id

    def job_status(self, job_id: str, errors_url: Callable[[str], str]) -> dict[str, Any]:
        """Describe a job as GET /v3/marketing/contacts/imports/{id} does."""
        job = self._database.row("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if job is None or job["status"] == "lost":
            raise limits.not_found("job not found")
        results = {
            "requested_count": job["requested"],
            "created_count": job["created"],
            "updated_count": job["updated"],
            "deleted_count": 0,
            "errored_count": job["errored"],
        }
        if self._database.value("SELECT 1 FROM job_errors WHERE job = ? LIMIT 1", (job["job"],)) and job["errored"]:
            results["errors_url"] = errors_url(job_id)
        answer = {
            "id": job_id,
            "status": "pending" if job["status"] == "stuck" else job["status"],
            "job_type": "upsert",
            "results": results,
            "started_at": job["accepted_at"],
        }
        return answer if job["finished_at"] is None else {**answer, "finished_at": job["finished_at"]}

    def job_errors_csv(self, job_id: str) -> str:
        """List the errored contacts of a job: identifier and reason. SendGrid does not document its format."""
        job = self._database.value("SELECT job FROM jobs WHERE id = ?", (job_id,))
        if job is None:
            raise limits.not_found("job not found")
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("email", "error"))
        writer.writerows(
            tuple(row)
            for row in self._database.rows(
                "SELECT identifier, reason FROM job_errors WHERE job = ? ORDER BY position", (job,)
            )
        )
        return out.getvalue()

    def count(self) -> int:
        """Count the contacts: none is ever deleted, so the greatest number counts them without reading them all."""
        return int(self._database.value("SELECT coalesce(max(contact), 0) FROM contacts"))

    def pending_jobs(self) -> int:
        """Count the jobs that are not applied yet."""
        return int(self._database.value("SELECT count(*) FROM jobs WHERE status = 'pending'"))

    def by_email(self, addresses: Sequence[str], field_names: dict[str, str], now: datetime) -> dict[str, Any]:
        """Find contacts by address, as POST /v3/marketing/contacts/search/emails does.

        `field_names` is id -> name: answers show custom fields by name. Raises ApiError 404 if none is found.
        """
        wanted = list(dict.fromkeys(address.strip().lower() for address in addresses if address.strip()))
        marks = ",".join("?" * len(wanted))
        seen_until = iso(now - timedelta(seconds=self._faults.settings.search_lag_seconds))
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

    def _details(self, contact: sqlite3.Row, field_names: dict[str, str]) -> dict[str, Any]:
        list_ids = [
            row["id"]
            for row in self._database.rows(
                "SELECT id FROM lists AS l WHERE NOT is_deleted AND EXISTS "
                "(SELECT 1 FROM memberships AS m WHERE m.list = l.list AND m.contact = ?) ORDER BY list",
                (contact["contact"],),
            )
        ]
        profile = dict.fromkeys(limits.PROFILE_CHARACTERS, "") | json.loads(contact["profile"])
        return {
            **profile,
            **{name: contact[name] or "" for name in limits.IDENTIFIERS},
            "id": contact_id(contact["contact"]),
            "alternate_emails": profile.get("alternate_emails", []),
            "list_ids": list_ids,
            "segment_ids": [],
            "custom_fields": {field_names[field]: value for field, value in json.loads(contact["fields"]).items()},
            "created_at": contact["created_at"],
            "updated_at": contact["updated_at"],
        }

    # The worker's side

    def next_due_at(self) -> float | None:
        """Say when the next job may be applied (Unix time), None if none is pending."""
        due_at = self._database.value("SELECT min(due_at) FROM jobs WHERE status = 'pending'")
        return None if due_at is None else float(due_at)

    def apply_next(self, now: datetime) -> bool:
        """Apply the job that is due the longest, if one is; say whether there was one."""
        with self._database.write() as connection:
            job = connection.execute(
                "SELECT * FROM jobs WHERE status = 'pending' AND due_at <= ? ORDER BY due_at, job LIMIT 1",
                (now.timestamp(),),
            ).fetchone()
            if job is None:
                return False
            created = updated = errored = 0
            if job["fault"] == "lost":
                status = "lost"
            elif job["fault"] == "failed":
                status, errored = "failed", job["requested"]
            else:
                if job["fault"] == "errored":
                    self._take_out(connection, job)
                kept = connection.execute("SELECT list FROM lists WHERE NOT is_deleted").fetchall()
                lists = sorted({row["list"] for row in kept}.intersection(json.loads(job["lists"])))
                created, updated, touched = _apply(connection, job["job"], lists, now)
                errors = "SELECT count(*) FROM job_errors WHERE job = ?"
                errored = connection.execute(errors, (job["job"],)).fetchone()[0]
                status = "completed" if not errored else "errored" if touched else "failed"
            connection.execute("DELETE FROM incoming WHERE job = ?", (job["job"],))
            connection.execute(
                "UPDATE jobs SET status = ?, created = ?, updated = ?, errored = ?, finished_at = ? WHERE job = ?",
                (status, created, updated, errored, iso(now), job["job"]),
            )
        return True

    def _take_out(self, connection: sqlite3.Connection, job: sqlite3.Row) -> None:
        """Move the contacts that an errored job does not store from its rows to its errors, at least one."""
        rows = connection.execute(
            f"SELECT position, coalesce({_IDENTIFIERS}) AS named FROM incoming WHERE job = ?", (job["job"],)
        ).fetchall()
        shares = [(self._faults.share("row", job["id"], row["position"]), row) for row in rows]
        most = max(self._faults.settings.errored_share, min((share for share, _ in shares), default=0))
        errors = [RowError(row["position"], row["named"], _FAULT) for share, row in shares if share <= most]
        _store_errors(connection, job["job"], errors)
        connection.executemany(
            "DELETE FROM incoming WHERE job = ? AND position = ?", [(job["job"], error.position) for error in errors]
        )


def _store_errors(connection: sqlite3.Connection, job: int, errors: Sequence[RowError]) -> None:
    connection.executemany(
        "INSERT INTO job_errors (job, position, identifier, reason) VALUES (?, ?, ?, ?)",
        ((job, error.position, error.identifier, error.reason) for error in errors),
    )


def _apply(connection: sqlite3.Connection, job: int, lists: Sequence[int], now: datetime) -> tuple[int, int, int]:
    """Merge a job's rows into the contacts and add these to the lists; count created, updated and both."""
    counts = _merge(connection, job, lists, iso(now))
    connection.executemany(
        "INSERT INTO list_sizes (list, at, contact_count) SELECT list, ?, contact_count FROM lists WHERE list = ?",
        [(now.timestamp(), number) for number in lists],
    )
    return counts


def _merge(connection: sqlite3.Connection, job: int, lists: Sequence[int], at: str) -> tuple[int, int, int]:
    other = "(phone_number_id IS NOT NULL OR external_id IS NOT NULL OR anonymous_id IS NOT NULL OR email IS NULL)"
    if connection.execute(f"SELECT 1 FROM incoming WHERE job = ? AND {other} LIMIT 1", (job,)).fetchone():
        return _apply_one_by_one(connection, job, lists, at)
    for name in limits.IDENTIFIERS[1:]:
        # Three look-ups in partial indexes that are empty while e-mail is the only identifier in use.
        refused = connection.execute(
            f"SELECT i.position, i.email FROM contacts c JOIN incoming i ON i.email = c.email AND i.job = ? "
            f"WHERE c.{name} IS NOT NULL",
            (job,),
        ).fetchall()
        _store_errors(connection, job, [RowError(row[0], row[1], _NOT_ALL_IDENTIFIERS) for row in refused])
        connection.executemany(
            "DELETE FROM incoming WHERE job = ? AND position = ?", [(job, row[0]) for row in refused]
        )

    # Contacts are numbered in the order of their creation, so the greatest number counts what was created.
    greatest = "SELECT coalesce(max(contact), 0) FROM contacts"
    before = connection.execute(greatest).fetchone()[0]
    merged = connection.execute(
        "INSERT INTO contacts (email, profile, fields, created_at, updated_at) "
        "SELECT email, profile, fields, ?, ? FROM incoming WHERE job = ? ORDER BY incoming "
        f"ON CONFLICT (email) DO UPDATE SET {_MERGE}",
        (at, at, job),
    ).rowcount
    created = connection.execute(greatest).fetchone()[0] - before
    for number in lists:
        added = connection.execute(
            "INSERT OR IGNORE INTO memberships (list, contact) SELECT ?, c.contact "
            "FROM incoming i JOIN contacts c ON c.email = i.email WHERE i.job = ? ORDER BY c.contact",
            (number, job),
        ).rowcount
        _grow_list(connection, number, added)
    return created, merged - created, merged


def _apply_one_by_one(connection: sqlite3.Connection, job: int, lists: Sequence[int], at: str) -> tuple[int, int, int]:
    """Merge rows that have identifiers besides the e-mail address, one after the other.

    To update a contact, every identifier that it has must be in the row; a row whose identifiers belong to two
    contacts updates neither.
    """
    created = updated = 0
    for row in connection.execute("SELECT * FROM incoming WHERE job = ? ORDER BY incoming", (job,)).fetchall():
        given = {name: row[name] for name in limits.IDENTIFIERS if row[name] is not None}
        where = " OR ".join(f"{name} = ?" for name in given)
        found = connection.execute(f"SELECT * FROM contacts WHERE {where}", tuple(given.values())).fetchall()
        reason = None
        if len(found) > 1:
            reason = _TWO_CONTACTS
        elif found and any(found[0][name] not in (None, given.get(name)) for name in limits.IDENTIFIERS):
            reason = _NOT_ALL_IDENTIFIERS
        if reason is not None:
            _store_errors(connection, job, [RowError(row["position"], next(iter(given.values())), reason)])
            continue
        values = tuple(row[name] for name in limits.IDENTIFIERS)
        if found:
            contact = found[0]["contact"]
            connection.execute(
                "UPDATE contacts SET email = coalesce(?, email), phone_number_id = coalesce(?, phone_number_id), "
                "external_id = coalesce(?, external_id), anonymous_id = coalesce(?, anonymous_id), "
                "profile = json_patch(profile, ?), fields = json_patch(fields, ?), updated_at = ? WHERE contact = ?",
                (*values, row["profile"], row["fields"], at, contact),
            )
            updated += 1
        else:
            contact = connection.execute(
                f"INSERT INTO contacts ({_IDENTIFIERS}, profile, fields, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row["profile"], row["fields"], at, at),
            ).lastrowid
            created += 1
        for number in lists:
            added = connection.execute("INSERT OR IGNORE INTO memberships VALUES (?, ?)", (number, contact)).rowcount
            _grow_list(connection, number, added)
    return created, updated, created + updated


def _grow_list(connection: sqlite3.Connection, number: int, added: int) -> None:
    connection.execute("UPDATE lists SET contact_count = contact_count + ? WHERE list = ?", (added, number))
