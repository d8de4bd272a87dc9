"""The tables of the delivery ledger.

`calls` is a history that is only ever appended to: a row before each call that changes something at the provider, and
one after it. A call without a second row was cut off, and its outcome is unknown.
"""

from typing import Any, Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 4  # of these tables; a ledger of another version is refused

metadata = sa.MetaData()


def _run_columns() -> list["sa.Column[Any]"]:
    """The two columns that every row of a run has first in its key."""
    return [sa.Column("campaign", sa.String, primary_key=True), sa.Column("send_date", sa.String, primary_key=True)]


keys = sa.Table(
    "keys", metadata, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
plans = sa.Table(
    "plans",
    metadata,
    *_run_columns(),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("method", sa.String, nullable=False),  # contacts, csv_import: by which every worker pushes
    sa.Column("start_at", sa.String, nullable=False),
    sa.Column("deadline_at", sa.String),
    sa.Column("list_id", sa.String),
    sa.Column("reconciled_at", sa.String),
    sa.Column("stopped_reason", sa.String),
)
chunks = sa.Table(
    "chunks",
    metadata,
    *_run_columns(),
    sa.Column("chunk", sa.Integer, primary_key=True),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("users", sa.Integer, nullable=False),
    sa.Column("offset_seconds", sa.Float, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # planned, in_flight, released, confirmed, expired
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("beats", sa.Integer, nullable=False),  # grows while the holder lives
    sa.Column("catalog", sa.String),  # the manifest that the chunk's first worker took
    sa.Column("counts", sa.JSON),
)
requests = sa.Table(
    "requests",
    metadata,
    *_run_columns(),
    sa.Column("chunk", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("request", sa.Integer, primary_key=True),
    sa.Column("body_sha256", sa.String, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("contacts", sa.Integer, nullable=False),
    # intended, accepted, confirmed, dropped. Of Mail Send: intended, confirmed, dropped, unknown, not_sent
    sa.Column("state", sa.String, nullable=False),
    sa.Column("job_id", sa.String),
    sa.Column("receipt", sa.JSON, nullable=False),
    sa.Column("counts", sa.JSON),
)
calls = sa.Table(
    "calls",
    metadata,
    sa.Column("call", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("campaign", sa.String, nullable=False),
    sa.Column("send_date", sa.String, nullable=False),
    sa.Column("operation", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("event", sa.String, nullable=False),  # begun; then ok, failed or unknown. adopted: found at the provider
    sa.Column("begun_call", sa.Integer),  # of the row that this one ends
    sa.Column("detail", sa.String, nullable=False),
)
sa.Index("calls_of_run", calls.c.campaign, calls.c.send_date, calls.c.operation)
paces = sa.Table(
    "paces",
    metadata,
    *_run_columns(),
    sa.Column("last_at", sa.Float, nullable=False),  # Unix time that the last reservation is for
    sa.Column("reserved", sa.Integer, nullable=False),  # so many so far: each has a number
    sa.Column("blocked_until", sa.Float, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),  # in a row, over all processes
    sa.Column("requests_per_second", sa.Float),  # an operator's word; NULL: the campaign's
    # What the provider said of its limit in the window that ends at reset_at; NULL: nothing, or the window is over.
    sa.Column("reset_at", sa.Float),
    sa.Column("rate_limit", sa.Integer),
    sa.Column("remaining", sa.Integer),  # the least that an answer of this window said
    sa.Column("answered", sa.Integer),  # the highest number among the requests that these answers were to
)
sends = sa.Table(
    "sends",
    metadata,
    *_run_columns(),
    sa.Column("single_send_id", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("recipients", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.String, nullable=False),
)
# Of Mail Send: the batch that all mails of a run are in, and how far it is. It leaves by no other way than its state.
batches = sa.Table(
    "batches",
    metadata,
    *_run_columns(),
    sa.Column("batch_id", sa.String, nullable=False),
    sa.Column("template_id", sa.String, nullable=False),
    sa.Column("send_at", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # made, held, released, cancelled, lifted
    sa.Column("updated_at", sa.String, nullable=False),
)
# Who was erased, for good: a keyed hash of the address, and of each user id that had it.
tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),  # address, user
    sa.Column("hash", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("erased_at", sa.String, nullable=False),
)
# Who was on a run's list and was taken off it just before the send.
withdrawals = sa.Table(
    "withdrawals",
    metadata,
    *_run_columns(),
    sa.Column("address_hash", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
)
# Who let a run pass that a gate would have stopped.
overrides = sa.Table(
    "overrides",
    metadata,
    *_run_columns(),
    sa.Column("gate", sa.String, primary_key=True),
    sa.Column("found", sa.String, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
)

for _event in ("UPDATE", "DELETE"):
    sa.event.listen(
        calls,
        "after_create",
        sa.DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER calls_refuse_{_event.lower()} BEFORE {_event} ON calls "
            "BEGIN SELECT RAISE(ABORT, 'calls is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
