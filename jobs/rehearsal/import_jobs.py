"""Import jobs: what an accepted request waits as until it is applied, and what came of it.

A PUT is only queued; a job applies it later, in one transaction (a file's, in several). Until then the contacts are as
they were.
"""

# ruff: noqa: S608 - what is put into these queries is names of columns, constants and question marks

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.behaviour import Behaviour
from jobs.rehearsal.bodies import Bodies, PlainIntake, PlainReader, pack, unpack
from jobs.rehearsal.contacts import contact_number, iso
from jobs.rehearsal.csv_files import CsvFiles
from jobs.rehearsal.database import Database, id_from
from jobs.rehearsal.faults import Faults
from jobs.rehearsal.intake import Intake, RowError, parse_json, read_upsert
from jobs.rehearsal.limits import ApiError
from jobs.rehearsal.merge_contacts import IDENTIFIERS, Merged, merge_plain, merge_rows, store_errors

_FAULT: Final = "the contact could not be processed at this time"
_OVER_LIMIT: Final = "you have hit your contact limit"
# What the API shows for the states that it does not know.
_SHOWN: Final = {"stuck": "pending", "awaiting_file": "pending"}


class ImportJobs:
    """The import jobs of one rehearsal provider."""

    def __init__(
        self,
        database: Database,
        bodies: Bodies,
        faults: Faults,
        *,
        job_lag_seconds: float,
        behaviour: Callable[[], Behaviour],
        files: CsvFiles,
    ) -> None:
        """Keep jobs in `database`; one is applied `job_lag_seconds` after its request, never before."""
        self._files = files
        self._database = database
        self._bodies = bodies
        self._faults = faults
        self._job_lag_seconds = job_lag_seconds
        self._behaviour = behaviour
        self._plain = PlainReader()

    # The API's side

    def read(self, body: bytes, field_types: dict[str, str]) -> PlainIntake | Intake:
        """Check a request's body; raises ApiError with all problems at once."""
        clearing = self._behaviour().clearing
        plain = self._plain.read(body, field_types, clearing)
        return plain or read_upsert(parse_json(body), field_types, clearing)

    def queue(self, intake: PlainIntake | Intake, now: datetime, digest: str = "") -> str:
        """Store an accepted request; return the id of its job, which follows from the request's digest."""
        lists = self.list_numbers(intake.list_ids)
        packed = pack(intake.body) if isinstance(intake, PlainIntake) else b""
        try:
            with self._database.write() as connection:
                job, job_id = self.add(connection, "upsert", now, digest, lists=lists, requested=intake.requested)
                if isinstance(intake, PlainIntake):
                    body = _store_body(connection, intake, packed)
                    emails = json.dumps(intake.emails)
                    connection.execute("UPDATE jobs SET body = ?, targets = ? WHERE job = ?", (body, emails, job))
                else:
                    _store_rows(connection, job, intake)
        except UnicodeEncodeError as error:
            raise limits.bad_request("a string holds half of a surrogate pair, which is not Unicode text") from error
        return job_id

    def queue_deletion(
        self, ids: Sequence[str] | None, now: datetime, digest: str, *, list_ids: Sequence[str] = ()
    ) -> str:
        """Queue the deletion of contacts by their ids, or (None) of all; with `list_ids`, only of their memberships."""
        lists = self.list_numbers(list_ids)
        numbers = None if ids is None else [number for shown in ids if (number := contact_number(shown)) is not None]
        with self._database.write() as connection:
            requested = self._count(connection) if numbers is None else len(ids or ())
            job, job_id = self.add(connection, "delete", now, digest, lists=lists, requested=requested)
            connection.execute("UPDATE jobs SET targets = ? WHERE job = ?", (json.dumps(numbers), job))
        return job_id

    def list_numbers(self, list_ids: Sequence[str]) -> list[int]:
        """Give the numbers of lists; raises ApiError 400 for ids of no list."""
        known = self._database.rows("SELECT id, list FROM lists WHERE NOT is_deleted")
        found = {row["id"]: row["list"] for row in known}
        if strange := [list_id for list_id in list_ids if list_id not in found]:
            raise limits.bad_request(f"invalid list ids supplied - {', '.join(strange)}", "list_ids")
        return [found[list_id] for list_id in list_ids]

    def add(
        self,
        connection: sqlite3.Connection,
        job_type: str,
        now: datetime,
        digest: str,
        *,
        lists: Sequence[int] = (),
        requested: int = 0,
        is_file_awaited: bool = False,
    ) -> tuple[int, str]:
        """Add a job with what the faults have in store for it; give its number and its id."""
        nth = connection.execute("SELECT count(*) FROM jobs WHERE digest = ?", (digest,)).fetchone()[0]
        job_id = id_from("job", digest, nth)
        fate = self._faults.of_job(job_id, self._job_lag_seconds)
        status = "awaiting_file" if is_file_awaited else "stuck" if fate.fault == "stuck" else "pending"
        job = connection.execute(
            "INSERT INTO jobs (id, job_type, status, lists, requested, accepted_at, due_at, digest, fault) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                job_type,
                status,
                json.dumps(list(lists)),
                requested,
                now.timestamp(),
                now.timestamp() + fate.lag_seconds,
                digest,
                fate.fault,
            ),
        ).lastrowid
        return int(job or 0), job_id

    def status(self, job_id: str, errors_url: Callable[[str], str]) -> dict[str, Any]:
        """Describe a job as GET /v3/marketing/contacts/imports/{id} does."""
        job = self._database.row("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if job is None or job["status"] == "lost":
            raise limits.not_found("job not found")
        results = {
            "requested_count": job["requested"],
            "created_count": job["created"],
            "updated_count": job["updated"],
            "deleted_count": job["deleted"],
            "errored_count": job["errored"],
        }
        if job["errored"] and self._database.value("SELECT 1 FROM job_errors WHERE job = ? LIMIT 1", (job["job"],)):
            results["errors_url"] = errors_url(job_id)
        answer = {
            "id": job_id,
            "status": _SHOWN.get(job["status"], job["status"]),
            "job_type": job["job_type"],
            "results": results,
            "started_at": iso(job["accepted_at"]),
        }
        return answer if job["finished_at"] is None else {**answer, "finished_at": job["finished_at"]}

    def errors_csv(self, job_id: str) -> str:
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

    def pending(self) -> int:
        """Count the jobs that are not applied yet, and will be."""
        return int(self._database.value("SELECT count(*) FROM jobs WHERE status = 'pending'"))

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
            if job["fault"] in ("lost", "failed"):
                errored = job["requested"] if job["fault"] == "failed" else 0
                self._finish(connection, job, job["fault"], Merged(0, 0), now, errored=errored)
                self._files.remove(job)
            elif job["mappings"] is not None:
                self._read_file(connection, job, now)
            elif job["job_type"] == "delete":
                self._delete(connection, job, now)
            else:
                self._upsert(connection, job, now)
        return True

    def _upsert(self, connection: sqlite3.Connection, job: sqlite3.Row, now: datetime) -> None:
        lists = self._kept_lists(connection, job)
        connection.execute("SAVEPOINT before_merge")
        if job["body"] is not None:
            merged = self._merge_body(connection, job, job["body"], json.loads(job["targets"]), lists, now)
        else:
            merged = self._merge_rows(connection, job, lists, now)
        limit = self._behaviour().contact_limit
        if limit is not None and merged.created and self._count(connection) > limit:
            connection.execute("ROLLBACK TO before_merge")
            store_errors(connection, job["job"], [RowError(-1, "", _OVER_LIMIT)])
            self._finish(connection, job, "failed", Merged(0, 0), now, errored=job["requested"])
            return
        connection.execute("RELEASE before_merge")
        self._note_sizes(connection, lists, now)
        self._finish_by_errors(connection, job, merged, now)

    def _read_file(self, connection: sqlite3.Connection, job: sqlite3.Row, now: datetime) -> None:
        """Merge the next rows of a file; the job ends with the file."""
        lists = self._kept_lists(connection, job)
        types = {row["id"]: row["field_type"] for row in connection.execute("SELECT * FROM field_definitions")}
        try:
            step = self._files.read_step(job, types)
        except ApiError as error:
            store_errors(connection, job["job"], [RowError(-1, "", error.problems[0].message)])
            self._finish(connection, job, "failed", Merged(0, 0), now, errored=job["requested"])
            self._files.remove(job)
            return
        first = job["done"]
        errors, merged = list(step.errors), Merged(0, 0)
        for body, positions in step.bodies:
            try:
                intake = self.read(body, types)
            except ApiError as error:  # a contact that an upsert would have been refused for
                errors.append(RowError(first + positions[0], "", error.problems[0].message))
                continue
            if isinstance(intake, PlainIntake):
                number = _store_body(connection, intake, pack(intake.body))
                part = self._merge_body(connection, job, number, intake.emails, lists, now, first=first)
            else:
                _store_rows(connection, job["job"], intake.moved(first, positions))
                part = self._merge_rows(connection, job, lists, now)
            merged = Merged(merged.created + part.created, merged.updated + part.updated)
        store_errors(connection, job["job"], errors)
        self._note_sizes(connection, lists, now)
        connection.execute(
            "UPDATE jobs SET done = done + ?, requested = requested + ?, created = created + ?, updated = updated + ? "
            "WHERE job = ?",
            (step.rows, step.rows, merged.created, merged.updated, job["job"]),
        )
        if step.is_last:
            self._finish_by_errors(connection, job, Merged(0, 0), now)
            self._files.remove(job)

    def _finish_by_errors(
        self, connection: sqlite3.Connection, job: sqlite3.Row, merged: Merged, now: datetime
    ) -> None:
        errors = "SELECT count(*) FROM job_errors WHERE job = ?"
        errored = connection.execute(errors, (job["job"],)).fetchone()[0]
        before = connection.execute("SELECT created + updated FROM jobs WHERE job = ?", (job["job"],)).fetchone()[0]
        touched = before + merged.created + merged.updated
        status = "completed" if not errored else "errored" if touched else "failed"
        self._finish(connection, job, status, merged, now, errored=errored)

    def _merge_rows(
        self, connection: sqlite3.Connection, job: sqlite3.Row, lists: Sequence[int], now: datetime
    ) -> Merged:
        """Merge what the job has in `incoming`, which is empty then."""
        if job["fault"] == "errored":
            rows = connection.execute(
                f"SELECT position, coalesce({IDENTIFIERS}) AS named FROM incoming WHERE job = ?", (job["job"],)
            ).fetchall()
            out = self._left_out(job["id"], [row["position"] for row in rows])
            self._note_left_out(connection, job["job"], [(row[0], row[1]) for row in rows if row[0] in out])
        merged = merge_rows(connection, job["job"], lists, now.timestamp(), self._bodies.fields_of)
        connection.execute("DELETE FROM incoming WHERE job = ?", (job["job"],))
        return merged

    def _merge_body(
        self,
        connection: sqlite3.Connection,
        job: sqlite3.Row,
        body: int,
        addresses: Sequence[str],
        lists: Sequence[int],
        now: datetime,
        *,
        first: int = 0,
    ) -> Merged:
        """Merge a stored body, whose contacts are the job's from the position `first` on."""
        emails: list[str | None] = list(addresses)
        if job["fault"] == "errored":
            out = self._left_out(job["id"], range(first, first + len(emails)))
            self._note_left_out(connection, job["job"], [(at, addresses[at - first]) for at in sorted(out)])
            for position in out:
                emails[position - first] = None
        merged = merge_plain(connection, body, emails, lists, now.timestamp())
        if merged is not None:
            return merged
        stored = connection.execute("SELECT size, content FROM bodies WHERE body = ?", (body,)).fetchone()
        types = {row["id"]: row["field_type"] for row in connection.execute("SELECT * FROM field_definitions")}
        content = parse_json(unpack(stored["content"], stored["size"]))
        intake = read_upsert(content, types, self._behaviour().clearing)
        kept = tuple(row for row in intake.rows if emails[row.position] is not None)
        _store_rows(connection, job["job"], Intake((), kept, ()).moved(first, range(len(emails))))
        merged = merge_rows(connection, job["job"], lists, now.timestamp(), self._bodies.fields_of)
        connection.execute("DELETE FROM incoming WHERE job = ?", (job["job"],))
        return merged

    def _left_out(self, job_id: str, positions: Sequence[int]) -> set[int]:
        """Choose the contacts that an errored job does not store, at least one."""
        shares = {position: self._faults.share("row", job_id, position) for position in positions}
        most = max(self._faults.settings.errored_share, min(shares.values(), default=0))
        return {position for position, share in shares.items() if share <= most}

    @staticmethod
    def _note_left_out(connection: sqlite3.Connection, job: int, left_out: Sequence[tuple[int, str]]) -> None:
        store_errors(connection, job, [RowError(position, named, _FAULT) for position, named in left_out])
        connection.executemany(
            "DELETE FROM incoming WHERE job = ? AND position = ?", [(job, position) for position, _ in left_out]
        )

    def _delete(self, connection: sqlite3.Connection, job: sqlite3.Row, now: datetime) -> None:
        targets = json.loads(job["targets"])
        wanted = "1" if targets is None else "contact IN (SELECT value FROM json_each(?))"
        parameters = () if targets is None else (job["targets"],)
        lists = self._kept_lists(connection, job)
        is_membership_only = bool(json.loads(job["lists"]))
        if not is_membership_only:
            kept = connection.execute("SELECT list FROM lists WHERE NOT is_deleted").fetchall()
            lists = [row["list"] for row in kept]
        for number in lists:
            left = connection.execute(
                f"DELETE FROM memberships WHERE list = ? AND {wanted}", (number, *parameters)
            ).rowcount
            connection.execute("UPDATE lists SET contact_count = contact_count - ? WHERE list = ?", (left, number))
        deleted = 0
        if not is_membership_only:
            deleted = connection.execute(f"DELETE FROM contacts WHERE {wanted}", parameters).rowcount
        connection.execute("UPDATE jobs SET deleted = ? WHERE job = ?", (deleted, job["job"]))
        self._note_sizes(connection, lists, now)
        self._finish(connection, job, "completed", Merged(0, 0), now)

    @staticmethod
    def _kept_lists(connection: sqlite3.Connection, job: sqlite3.Row) -> list[int]:
        kept = connection.execute("SELECT list FROM lists WHERE NOT is_deleted").fetchall()
        return sorted({row["list"] for row in kept}.intersection(json.loads(job["lists"])))

    @staticmethod
    def _note_sizes(connection: sqlite3.Connection, lists: Sequence[int], now: datetime) -> None:
        connection.executemany(
            "INSERT INTO list_sizes (list, at, contact_count) SELECT list, ?, contact_count FROM lists WHERE list = ?",
            [(now.timestamp(), number) for number in lists],
        )

    @staticmethod
    def _count(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM contacts").fetchone()[0])

    @staticmethod
    def _finish(
        connection: sqlite3.Connection,
        job: sqlite3.Row,
        status: str,
        merged: Merged,
        now: datetime,
        *,
        errored: int = 0,
    ) -> None:
        connection.execute("DELETE FROM incoming WHERE job = ?", (job["job"],))
        connection.execute(
            "UPDATE jobs SET status = ?, created = created + ?, updated = updated + ?, errored = ?, finished_at = ?, "
            "targets = NULL WHERE job = ?",
            (status, merged.created, merged.updated, errored, iso(now), job["job"]),
        )


def _store_body(connection: sqlite3.Connection, intake: PlainIntake, packed: bytes) -> int:
    """Store a plain body and give its number."""
    keys = json.dumps(intake.keys)
    connection.execute("INSERT OR IGNORE INTO key_sets (keys) VALUES (?)", (keys,))
    key_set = connection.execute("SELECT key_set FROM key_sets WHERE keys = ?", (keys,)).fetchone()["key_set"]
    body = connection.execute(
        "INSERT INTO bodies (key_set, size, content) VALUES (?, ?, ?)", (key_set, len(intake.body), packed)
    ).lastrowid
    return int(body or 0)


def _store_rows(connection: sqlite3.Connection, job: int, intake: Intake) -> None:
    connection.executemany(
        f"INSERT INTO incoming (job, position, {IDENTIFIERS}, profile, fields) VALUES (?,?,?,?,?,?,?,?)",
        ((job, *row) for row in intake.rows),
    )
    store_errors(connection, job, intake.errors)
