"""Merges the rows of an import job into the contacts and puts these on the job's lists."""

# ruff: noqa: S608 - what is put into these queries is names of columns, constants and question marks

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.intake import RowError

IDENTIFIERS: Final = ", ".join(limits.IDENTIFIERS)
_OTHER_IDENTIFIER: Final = "(c.phone_number_id IS NOT NULL OR c.external_id IS NOT NULL OR c.anonymous_id IS NOT NULL)"
# Omitted properties stay as they were; json_patch replaces the keys that are given, removes those that are null, and
# keeps the others. (A new contact's nulls are left in its fields, and are nothing to whoever reads them.)
_MERGE: Final = """
    phone_number_id = coalesce(excluded.phone_number_id, phone_number_id),
    external_id = coalesce(excluded.external_id, external_id),
    anonymous_id = coalesce(excluded.anonymous_id, anonymous_id),
    profile = json_patch(profile, excluded.profile), fields = json_patch(fields, excluded.fields),
    updated_at = excluded.updated_at
"""
_NOT_ALL_IDENTIFIERS: Final = "all existing identifiers of the contact must be present to update it"
_TWO_CONTACTS: Final = "the identifiers belong to different contacts"

FieldsOf = Callable[[sqlite3.Row], dict[str, Any]]
"""Gives the custom fields of a contact's row."""


@dataclass(frozen=True)
class Merged:
    """How many contacts a job created and updated."""

    created: int
    updated: int


def store_errors(connection: sqlite3.Connection, job: int, errors: Sequence[RowError]) -> None:
    """Note contacts that the job does not store."""
    connection.executemany(
        "INSERT INTO job_errors (job, position, identifier, reason) VALUES (?, ?, ?, ?)",
        ((job, error.position, error.identifier, error.reason) for error in errors),
    )


def merge_plain(
    connection: sqlite3.Connection, body: int, emails: Sequence[str | None], lists: Sequence[int], at: float
) -> Merged | None:
    """Merge a stored body, as pointers to its contacts; `emails` is None where a contact is left out.

    None if a contact has another identifier, or its fields lie in two bodies already and this would be a third: nothing
    is merged then, and merge_rows has to.
    """
    addresses = json.dumps(emails)
    keys = connection.execute("SELECT key_set FROM bodies WHERE body = ?", (body,)).fetchone()["key_set"]
    covered = ",".join(map(str, _covered(connection, keys)))
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'contacts'").fetchone()
    # A body that writes all that was there takes its place; another lies over it.
    is_whole = f"(key_set IN ({covered}) OR key_set IS NULL AND fields IS NULL)"
    connection.execute("SAVEPOINT before_body")
    # What may not be merged like this is left out, and missing in the count. Rows are counted and not returned: to hand
    # 30,000 of them over took longer than to merge them.
    merged = connection.execute(
        "INSERT INTO contacts AS c (email, profile, body, position, key_set, created_at, updated_at) "
        "SELECT j.value, '{}', ?, j.key, ?, ?, ? FROM json_each(?) AS j WHERE j.value IS NOT NULL "
        "ON CONFLICT (email) DO UPDATE SET "
        f"body = iif({is_whole}, excluded.body, body), over_body = iif({is_whole}, NULL, excluded.body), "
        f"position = iif({is_whole}, excluded.position, position), "
        f"over_position = iif({is_whole}, NULL, excluded.position), "
        f"key_set = iif({is_whole}, excluded.key_set, key_set), "
        f"over_key_set = iif({is_whole}, NULL, excluded.key_set), updated_at = excluded.updated_at "
        f"WHERE NOT {_OTHER_IDENTIFIER} AND (over_key_set IS NULL OR over_key_set IN ({covered}))",
        (body, keys, at, at, addresses),
    ).rowcount
    if merged < sum(email is not None for email in emails):
        connection.execute("ROLLBACK TO before_body")
        return None
    connection.execute("RELEASE before_body")
    # Contacts are numbered in the order of their creation, and no number comes twice.
    created = connection.execute(
        "SELECT count(*) FROM contacts WHERE contact > ?", (newest["seq"] if newest else 0,)
    ).fetchone()[0]
    for number in lists:
        added = connection.execute(
            "INSERT OR IGNORE INTO memberships (list, contact) SELECT ?, c.contact "
            "FROM json_each(?) AS j CROSS JOIN contacts AS c ON c.email = j.value",
            (number, addresses),
        ).rowcount
        _grow_list(connection, number, added)
    return Merged(created, merged - created)


def _covered(connection: sqlite3.Connection, keys: int) -> list[int]:
    """Give the sets of fields that a body with these fields writes in full."""
    rows = connection.execute("SELECT key_set, keys FROM key_sets").fetchall()
    known = {row["key_set"]: set(json.loads(row["keys"])) for row in rows}
    return [key_set for key_set, fields in known.items() if fields <= known[keys]]


def merge_rows(
    connection: sqlite3.Connection, job: int, lists: Sequence[int], at: float, fields_of: FieldsOf
) -> Merged:
    """Merge the rows of `incoming`."""
    _loosen(connection, job, fields_of)
    other = "(phone_number_id IS NOT NULL OR external_id IS NOT NULL OR anonymous_id IS NOT NULL OR email IS NULL)"
    if connection.execute(f"SELECT 1 FROM incoming WHERE job = ? AND {other} LIMIT 1", (job,)).fetchone():
        return _merge_one_by_one(connection, job, lists, at)
    refused = connection.execute(
        "SELECT i.position, i.email FROM incoming AS i JOIN contacts AS c ON c.email = i.email "
        f"WHERE i.job = ? AND {_OTHER_IDENTIFIER}",
        (job,),
    ).fetchall()
    store_errors(connection, job, [RowError(row[0], row[1], _NOT_ALL_IDENTIFIERS) for row in refused])
    connection.executemany("DELETE FROM incoming WHERE job = ? AND position = ?", [(job, row[0]) for row in refused])

    counted = "SELECT count(DISTINCT i.email), count(DISTINCT c.contact) FROM incoming AS i LEFT JOIN contacts AS c"
    people, known = connection.execute(f"{counted} ON c.email = i.email WHERE i.job = ?", (job,)).fetchone()
    merged = connection.execute(
        "INSERT INTO contacts (email, profile, fields, created_at, updated_at) "
        "SELECT email, profile, fields, ?, ? FROM incoming WHERE job = ? ORDER BY incoming "
        f"ON CONFLICT (email) DO UPDATE SET {_MERGE}",
        (at, at, job),
    ).rowcount
    created = people - known
    for number in lists:
        added = connection.execute(
            "INSERT OR IGNORE INTO memberships (list, contact) SELECT ?, c.contact "
            "FROM incoming i JOIN contacts c ON c.email = i.email WHERE i.job = ? ORDER BY c.contact",
            (number, job),
        ).rowcount
        _grow_list(connection, number, added)
    return Merged(created, merged - created)


def _loosen(connection: sqlite3.Connection, job: int, fields_of: FieldsOf) -> None:
    """Give the contacts that the job may change their fields as text instead of a pointer to a body."""
    same = " OR ".join(f"c.{name} = i.{name}" for name in limits.IDENTIFIERS)
    pointing = connection.execute(
        f"SELECT DISTINCT c.* FROM incoming AS i JOIN contacts AS c ON ({same}) "
        "WHERE i.job = ? AND (c.body IS NOT NULL OR c.over_body IS NOT NULL)",
        (job,),
    ).fetchall()
    connection.executemany(
        "UPDATE contacts SET fields = ?, body = NULL, position = NULL, key_set = NULL, "
        "over_body = NULL, over_position = NULL, over_key_set = NULL WHERE contact = ?",
        ((json.dumps(fields_of(row), ensure_ascii=False), row["contact"]) for row in pointing),
    )


def _merge_one_by_one(connection: sqlite3.Connection, job: int, lists: Sequence[int], at: float) -> Merged:
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
            store_errors(connection, job, [RowError(row["position"], next(iter(given.values())), reason)])
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
                f"INSERT INTO contacts ({IDENTIFIERS}, profile, fields, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row["profile"], row["fields"], at, at),
            ).lastrowid
            created += 1
        for number in lists:
            added = connection.execute("INSERT OR IGNORE INTO memberships VALUES (?, ?)", (number, contact)).rowcount
            _grow_list(connection, number, added)
    return Merged(created, updated)


def _grow_list(connection: sqlite3.Connection, number: int, added: int) -> None:
    connection.execute("UPDATE lists SET contact_count = contact_count + ? WHERE list = ?", (added, number))
