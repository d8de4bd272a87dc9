"""What came out of a night at the rehearsal provider, read from its file while it runs: mails, and who got two."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# One send is a single send, or a batch of Mail Send: each belongs to one campaign and date.
_TWICE: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM mails LEFT JOIN messages USING (message)
    GROUP BY mails.email, mails.single_send, messages.batch_id HAVING count(*) > 1
)
"""
_WAITING: Final = """
SELECT (SELECT count(*) FROM single_sends WHERE status = 'scheduled') + (
    SELECT count(*) FROM messages LEFT JOIN batches ON batches.id = messages.batch_id
    WHERE messages.status = 'waiting' AND batches.status IS NULL
)
"""


@dataclass(frozen=True)
class MailCounts:
    """`mails` have left; `twice` people got two of one send; `waiting` sends and messages are released and not due."""

    mails: int
    twice: int
    waiting: int


def mail_counts(path: Path) -> MailCounts:
    """Count in the provider's file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)) as connection:
        counts = [
            int(connection.execute(query).fetchone()[0]) for query in ("SELECT count(*) FROM mails", _TWICE, _WAITING)
        ]
    return MailCounts(*counts)
