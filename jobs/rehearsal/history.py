"""What was asked of the rehearsal provider, request by request: for tests that count, and for reading afterwards.

No bodies, no query strings, no keys, no addresses: of a body its size, and a hash keyed for this file alone, which
tells that two requests were the same. Kept apart from the state, so that noting a request never waits for a job. Rows
are only ever added; two triggers see to it.
"""

import hashlib
import secrets
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

REQUESTS_PER_PAGE: Final = (1, 100, 1000)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS requests (
    request INTEGER PRIMARY KEY, received_at TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    status INTEGER NOT NULL, fault TEXT, body_hash TEXT NOT NULL, bytes INTEGER NOT NULL, milliseconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS body_key (key BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS requests_stay BEFORE DELETE ON requests
BEGIN SELECT raise(ABORT, 'requests are only ever added'); END;
CREATE TRIGGER IF NOT EXISTS requests_stay_equal BEFORE UPDATE ON requests
BEGIN SELECT raise(ABORT, 'requests are only ever added'); END;
"""


def fault_counts(path: Path) -> dict[str, int]:
    """Count the requests of a history, and those that met each fault: {"requests": 120, "drop_after": 4, ...}."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT coalesce(fault, ''), count(*) FROM requests GROUP BY 1 ORDER BY 1").fetchall()
    return {"requests": sum(count for _, count in rows), **{name: count for name, count in rows if name}}


class History:
    """An append-only SQLite file of requests."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if it is not there."""
        self.path = path
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")  # survives the process, not a power cut: it is a history
        self._connection.executescript(_SCHEMA)
        key = self._connection.execute("SELECT key FROM body_key").fetchone()
        if key is None:
            key = (secrets.token_bytes(32),)
            self._connection.execute("INSERT INTO body_key VALUES (?)", key)
        self._body_key: bytes = key[0]

    def add(
        self,
        *,
        received_at: datetime,
        method: str,
        path: str,
        status: int,
        fault: str | None,
        digest: str,
        body_bytes: int,
        milliseconds: float,
    ) -> None:
        """Note one request: `status` 0 is no answer, `body_bytes` counts what the client sent."""
        at = received_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        hashed = hashlib.blake2b(digest.encode(), key=self._body_key, digest_size=8).hexdigest() if digest else ""
        with self._lock:
            self._connection.execute(
                "INSERT INTO requests (received_at, method, path, status, fault, body_hash, bytes, milliseconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (at, method, path, status, fault, hashed, body_bytes, round(milliseconds, 1)),
            )

    def all(self) -> list[dict[str, Any]]:
        """Give every request, oldest first: for tests, which know how many they made."""
        return list(self.page(after=0, limit=2**62)["requests"])

    def page(self, *, after: int, limit: int) -> dict[str, Any]:
        """Give up to `limit` requests later than the request numbered `after`, oldest first, and the number of all."""
        with self._lock:
            count = self._connection.execute("SELECT coalesce(max(request), 0) FROM requests").fetchone()[0]
            rows = self._connection.execute(
                "SELECT * FROM requests WHERE request > ? ORDER BY request LIMIT ?", (after, limit)
            ).fetchall()
        return {"count": count, "requests": [dict(row) for row in rows]}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
