"""Erasure of personal data: POST /v3/recipients/erasejob, which is asynchronous and knows no status."""

import json
from datetime import datetime
from typing import Any, Final

from jobs.rehearsal import limits
from jobs.rehearsal.database import Database, id_from

ADDRESSES_PER_ERASURE: Final = 5_000
ERASURE_BYTES: Final = 256_000  # "256Kb", read in the smaller way
ERASURES_PER_MINUTE: Final = 100
ERASURE_SECONDS: Final = 1.0  # until it is done here; SendGrid gives no time


class Erasures:
    """The erasure jobs of one rehearsal provider."""

    def __init__(self, database: Database) -> None:
        """Keep jobs in `database`."""
        self._database = database

    def queue(self, payload: Any, size: int, now: datetime) -> str:
        """Accept addresses; give the job's id."""
        addresses = payload.get("email_addresses") if isinstance(payload, dict) else None
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise limits.bad_request("email_addresses must be an array of strings", "email_addresses")
        if not 1 <= len(addresses) <= ADDRESSES_PER_ERASURE or size > ERASURE_BYTES:
            most = f"{ADDRESSES_PER_ERASURE} addresses or {ERASURE_BYTES} bytes"
            raise limits.bad_request(f"expected 1 address, at most {most}", "email_addresses")
        targets = json.dumps(sorted({address.strip().lower() for address in addresses}))
        at = now.timestamp()
        with self._database.write() as connection:
            recent = connection.execute("SELECT count(*) FROM erasures WHERE asked_at > ?", (at - 60,)).fetchone()[0]
            if recent >= ERASURES_PER_MINUTE:
                raise limits.too_many_requests()
            count = connection.execute("SELECT count(*) FROM erasures").fetchone()[0]
            job_id = id_from("erasure", targets, count)
            connection.execute(
                "INSERT INTO erasures (id, asked_at, due_at, targets) VALUES (?, ?, ?, ?)",
                (job_id, at, at + ERASURE_SECONDS, targets),
            )
        return job_id

    def next_due_at(self) -> float | None:
        """Say when the next job is to be done (Unix time)."""
        due_at = self._database.value("SELECT min(due_at) FROM erasures WHERE targets IS NOT NULL")
        return None if due_at is None else float(due_at)

    def apply_next(self, now: datetime) -> bool:
        """Erase what mails hold about the people of one job. Contacts stay: these are deleted by themselves."""
        with self._database.write() as connection:
            job = connection.execute(
                "SELECT * FROM erasures WHERE targets IS NOT NULL AND due_at <= ? ORDER BY due_at LIMIT 1",
                (now.timestamp(),),
            ).fetchone()
            if job is None:
                return False
            people = "email IN (SELECT value FROM json_each(?))"
            for table in ("mails", "events"):
                connection.execute(f"DELETE FROM {table} WHERE {people}", (job["targets"],))  # noqa: S608 - constants
            connection.execute("UPDATE erasures SET targets = NULL WHERE erasure = ?", (job["erasure"],))
        return True
