"""The rehearsal provider's SQLite file: tables, one writer, a reader per thread.

Measured with bench/rehearsal_intake.py (contacts of 27 custom fields, 1.45 kB, two threads of the real client; two
shared cores under a load of 29, so per second of processor time of the server): 55,000 contacts created, 49,000
updated, 102,000 stamped with two fields. Value by value, in the same minutes: 14,000, 11,700 and 22,000.
`synchronous=NORMAL` in WAL mode keeps every committed transaction when the process dies.
"""

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from schemas.errors import StorageError

SCHEMA_VERSION: Final = 2
_IDS: Final = uuid.UUID(int=0x4C0FFEE)
SCHEMA: Final = """
CREATE TABLE field_definitions (
    field INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    field_type TEXT NOT NULL
);
CREATE TABLE lists (
    list INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    contact_count INTEGER NOT NULL DEFAULT 0, is_deleted INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX lists_by_name ON lists (name) WHERE NOT is_deleted;
-- Past sizes of lists, for a provider whose counts lag behind; `at` is Unix time.
CREATE TABLE list_sizes (list INTEGER NOT NULL, at REAL NOT NULL, contact_count INTEGER NOT NULL);
CREATE INDEX list_sizes_by_time ON list_sizes (list, at);
-- `fields`: JSON object, custom field id -> value. `profile`: JSON object of the reserved fields that were given.
-- Custom fields are in `fields`, or else those of the contact at `position` of a stored body; and over these lie, if
-- there is one, those of a later body that wrote only some of them. Times are Unix times.
CREATE TABLE contacts (
    contact INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE, phone_number_id TEXT, external_id TEXT,
    anonymous_id TEXT, profile TEXT NOT NULL, fields TEXT, body INTEGER, position INTEGER, key_set INTEGER,
    over_body INTEGER, over_position INTEGER, over_key_set INTEGER,
    created_at REAL NOT NULL, updated_at REAL NOT NULL
);
-- Bodies of requests as they came (zstd), each of whose contacts has the same set of custom fields.
CREATE TABLE key_sets (key_set INTEGER PRIMARY KEY, keys TEXT NOT NULL UNIQUE);
CREATE TABLE bodies (
    body INTEGER PRIMARY KEY, key_set INTEGER NOT NULL, size INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE UNIQUE INDEX contacts_by_phone ON contacts (phone_number_id) WHERE phone_number_id IS NOT NULL;
CREATE UNIQUE INDEX contacts_by_external ON contacts (external_id) WHERE external_id IS NOT NULL;
CREATE UNIQUE INDEX contacts_by_anonymous ON contacts (anonymous_id) WHERE anonymous_id IS NOT NULL;
CREATE TABLE memberships (list INTEGER NOT NULL, contact INTEGER NOT NULL, PRIMARY KEY (list, contact)) WITHOUT ROWID;
CREATE TABLE jobs (
    job INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, lists TEXT NOT NULL,
    requested INTEGER NOT NULL, created INTEGER NOT NULL DEFAULT 0, updated INTEGER NOT NULL DEFAULT 0,
    errored INTEGER NOT NULL DEFAULT 0, accepted_at REAL NOT NULL, due_at REAL NOT NULL, finished_at TEXT,
    digest TEXT NOT NULL, fault TEXT, job_type TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    -- What an upsert of plain contacts, a deletion, or the import of a file (and how far it is) works on.
    body INTEGER, targets TEXT, mappings TEXT, upload_token TEXT UNIQUE, done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_digest ON jobs (digest);
CREATE INDEX jobs_pending ON jobs (due_at, job) WHERE status = 'pending';
-- The valid rows of jobs that are not applied yet, in the order of the request.
CREATE TABLE incoming (
    incoming INTEGER PRIMARY KEY, job INTEGER NOT NULL, position INTEGER NOT NULL, email TEXT, phone_number_id TEXT,
    external_id TEXT, anonymous_id TEXT, profile TEXT NOT NULL, fields TEXT NOT NULL
);
CREATE INDEX incoming_by_job ON incoming (job);
CREATE TABLE job_errors (
    job INTEGER NOT NULL, position INTEGER NOT NULL, identifier TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (job, position)
);
CREATE TABLE asm_groups (
    asm_group INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL, is_default INTEGER NOT NULL
);
-- `asm_group` is 0 but for the kind group_unsubscribes.
CREATE TABLE suppressions (
    email TEXT NOT NULL, kind TEXT NOT NULL, asm_group INTEGER NOT NULL, created_at INTEGER NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (email, kind, asm_group)
) WITHOUT ROWID;
CREATE INDEX suppressions_by_time ON suppressions (kind, asm_group, created_at, email);
CREATE TABLE single_sends (
    single_send INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, status TEXT NOT NULL,
    categories TEXT NOT NULL, send_to TEXT NOT NULL, email_config TEXT NOT NULL, send_at TEXT, due_at REAL,
    created_at TEXT NOT NULL, created_unix REAL NOT NULL, updated_at TEXT NOT NULL, triggered_at TEXT,
    first_mail INTEGER,
    requests INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0, drops TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX single_sends_scheduled ON single_sends (due_at) WHERE status = 'scheduled';
-- One row per recipient of a triggered single send, with the contact as it was at that instant. The mails of a
-- single send have consecutive numbers from its `first_mail` on.
CREATE TABLE mails (
    mail INTEGER PRIMARY KEY, single_send INTEGER, contact INTEGER, email TEXT NOT NULL,
    profile TEXT NOT NULL, fields TEXT, body INTEGER, position INTEGER, over_body INTEGER, over_position INTEGER,
    sent_at TEXT NOT NULL,
    message INTEGER, personalization INTEGER, UNIQUE (email, single_send)
);
CREATE TABLE erasures (
    erasure INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, asked_at REAL NOT NULL, due_at REAL NOT NULL, targets TEXT
);
-- Mail Send: each request is one message, and each of its recipients one of the mails above.
CREATE TABLE batches (id TEXT PRIMARY KEY, status TEXT) WITHOUT ROWID;
CREATE TABLE messages (
    message INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, batch_id TEXT, status TEXT NOT NULL, due_at REAL NOT NULL,
    size INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE INDEX messages_waiting ON messages (due_at) WHERE status = 'waiting';
CREATE TABLE templates (
    template INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, generation TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE template_versions (
    version INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, template INTEGER NOT NULL, name TEXT NOT NULL,
    subject TEXT NOT NULL, html_content TEXT NOT NULL, plain_content TEXT NOT NULL, is_active INTEGER NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE webhooks (
    webhook INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, private_key BLOB,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
-- What is still to be posted to a webhook; `content` is the event as JSON.
CREATE TABLE events (
    event INTEGER PRIMARY KEY, webhook INTEGER NOT NULL, email TEXT NOT NULL, content TEXT NOT NULL,
    due_at REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX events_due ON events (due_at);
CREATE INDEX events_by_email ON events (email);
"""
# Came with version 2, and is made where it is missing: since when a batch is paused or cancelled.
HOLDS: Final = "CREATE TABLE IF NOT EXISTS holds (batch_id TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID"


def id_from(*parts: object) -> str:
    """Make an id that follows from what it stands for, so that the same night has the same ids whenever it is run."""
    return str(uuid.uuid5(_IDS, "\n".join(map(str, parts))))


class Database:
    """One SQLite file. Writes are serialised by a lock; each thread reads through a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it with its tables if it is not there."""
        self._path = path
        self._lock = threading.Lock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # addresses are in it
        # 16 kB pages hold ten contacts of 1.5 kB; the default 4 kB hold two, with a quarter of each page empty.
        self._writer = self._connect()
        self._writer.execute("PRAGMA page_size = 16384")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA wal_autocheckpoint = 8000")  # 128 MB: about ten requests of 6 MB per checkpoint
        with self.write() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(HOLDS)
        if version not in (0, SCHEMA_VERSION):
            self.close()
            raise StorageError(
                f"{path.name}: the rehearsal state is of version {version}, this code writes version {SCHEMA_VERSION}; "
                "move the file away to begin with an empty provider"
            )

    def _connect(self, *, cache_kilobytes: int = 65536) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30.0, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{cache_kilobytes}")
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Hold the writer in one transaction: committed at the end, rolled back by an exception."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                # An interrupted statement may have ended the transaction already.
                with suppress(sqlite3.OperationalError):
                    self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Read rows; sees every transaction that was committed before."""
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._connect(cache_kilobytes=8192)  # up to 40 threads answer requests
            reader.execute("PRAGMA query_only = ON")
            self._local.reader = reader
            self._readers.append(reader)
        return reader.execute(query, parameters).fetchall()

    def row(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Read the first row, if there is one."""
        rows = self.rows(query, parameters)
        return rows[0] if rows else None

    def value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """Read the first column of the first row, or None."""
        row = self.row(query, parameters)
        return row[0] if row is not None else None

    def interrupt(self) -> None:
        """Break off a write that is under way, so that the process can end; the transaction is rolled back."""
        self._writer.interrupt()

    def close(self) -> None:
        """Close every connection; nothing may use the object afterwards."""
        with self._lock:
            self._writer.close()
        for reader in self._readers:
            reader.close()
