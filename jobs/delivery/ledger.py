"""The delivery ledger: what was planned, sent and confirmed, in a small SQL database (SQLite, or PostgreSQL by URL).

It is the only memory of the push and the send. A worker claims a chunk and gets an epoch; every later write names
it, so a worker that was replaced and wakes up changes nothing. Instants are the caller's clock, in ISO 8601 UTC.
"""

import datetime as dt
import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from schemas.errors import GateError

Clock = Callable[[], dt.datetime]

_WAIT = wait_random_exponential(0.05, max=1)
_metadata = sa.MetaData()

_keys = sa.Table(
    "keys", _metadata, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
_plans = sa.Table(
    "plans",
    _metadata,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("send_date", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("start_at", sa.String, nullable=False),
    sa.Column("reconciled_at", sa.String),
)
_chunks = sa.Table(
    "chunks",
    _metadata,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("send_date", sa.String, primary_key=True),
    sa.Column("chunk", sa.Integer, primary_key=True),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("users", sa.Integer, nullable=False),
    sa.Column("offset_seconds", sa.Float, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("receipt", sa.JSON),
    sa.Column("counts", sa.JSON),
)
_requests = sa.Table(
    "requests",
    _metadata,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("send_date", sa.String, primary_key=True),
    sa.Column("chunk", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("request", sa.Integer, primary_key=True),
    sa.Column("body_sha256", sa.String, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("contacts", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("job_id", sa.String),
)
_sends = sa.Table(
    "sends",
    _metadata,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("send_date", sa.String, primary_key=True),
    sa.Column("single_send_id", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("recipients", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.String, nullable=False),
)


@dataclass(frozen=True)
class ChunkPlan:
    """One chunk of a plan: which rows it pushes and how long after the plan's start."""

    chunk: int
    bucket: int
    part: int
    users: int
    offset_seconds: float


@dataclass(frozen=True)
class Claim:
    """The right to push a chunk, until somebody else claims it."""

    plan: ChunkPlan
    epoch: int
    is_confirmed: bool
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """One campaign on one date: what every row of the ledger belongs to."""

    campaign: str
    send_date: dt.date

    @property
    def key(self) -> dict[str, str]:
        """The two columns that name it."""
        return {"campaign": self.campaign, "send_date": self.send_date.isoformat()}


class Ledger:
    """The ledger at a database URL; its tables are made on first use."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._engine = sa.create_engine(url)
        self._insert = sqlite_insert if self._engine.dialect.name == "sqlite" else postgresql_insert
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            # SQLite's default takes the write lock at the first write: what was read before it may be stale by then.
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        _metadata.create_all(self._engine)

    def key(self, name: str) -> str:
        """Return the secret key of that name (16 ASCII characters), made at random on first use."""
        with self._engine.begin() as connection:
            connection.execute(
                self._insert(_keys).values(name=name, value=secrets.token_hex(8)).on_conflict_do_nothing()
            )
            return str(connection.scalar(sa.select(_keys.c.value).where(_keys.c.name == name)))

    def freeze_plan(
        self, run: Run, digest: str, counts: Mapping[str, int], chunks: Sequence[ChunkPlan]
    ) -> tuple[str, list[ChunkPlan], dt.datetime]:
        """Freeze a plan before its first request; return the digest, chunks and start of the plan that holds.

        A plan of which nothing was pushed yet is replaced; once a chunk was claimed the first plan stays.
        """
        with self._engine.begin() as connection:
            started = connection.scalar(
                sa.select(sa.func.count()).select_from(_chunks).where(*self._of(_chunks, run), _chunks.c.epoch > 0)
            )
            held = connection.scalar(sa.select(_plans.c.digest).where(*self._of(_plans, run)))
            if not started and held != digest:
                for table in (_plans, _chunks):
                    connection.execute(sa.delete(table).where(*self._of(table, run)))
                now = self._clock().isoformat()
                connection.execute(
                    sa.insert(_plans).values(**run.key, digest=digest, counts=dict(counts), start_at=now)
                )
                rows = [{**run.key, **vars(chunk), "state": "planned", "epoch": 0} for chunk in chunks]
                if rows:
                    connection.execute(sa.insert(_chunks), rows)
        return self.plan(run)

    def plan(self, run: Run) -> tuple[str, list[ChunkPlan], dt.datetime]:
        """Return the frozen plan's digest, its chunks and the instant that their offsets count from.

        Raises: GateError if nothing was planned.
        """
        with self._engine.connect() as connection:
            plan = connection.execute(sa.select(_plans).where(*self._of(_plans, run))).one_or_none()
            chunks = connection.execute(sa.select(_chunks).where(*self._of(_chunks, run)).order_by(_chunks.c.chunk))
            if plan is None:
                raise GateError(f"{run.campaign} of {run.send_date} was never planned; run plan_push first")
            found = [ChunkPlan(row.chunk, row.bucket, row.part, row.users, row.offset_seconds) for row in chunks]
            return plan.digest, found, dt.datetime.fromisoformat(plan.start_at)

    def plan_counts(self, run: Run) -> dict[str, int]:
        """Return how many users the plan has for each action."""
        with self._engine.connect() as connection:
            counts = connection.scalar(sa.select(_plans.c.counts).where(*self._of(_plans, run)))
            return dict(counts or {})

    def is_started(self, run: Run) -> bool:
        """Tell whether any chunk of the run was ever claimed."""
        with self._engine.connect() as connection:
            return bool(
                connection.scalar(
                    sa.select(sa.func.count()).select_from(_chunks).where(*self._of(_chunks, run), _chunks.c.epoch > 0)
                )
            )

    def claim(self, run: Run, chunk: int) -> Claim:
        """Take a chunk over; whoever had it before can no longer write to it."""
        where = (*self._of(_chunks, run), _chunks.c.chunk == chunk)
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_chunks)
                .where(*where, _chunks.c.state != "confirmed")
                .values(epoch=_chunks.c.epoch + 1, state="in_flight")
            )
            row = connection.execute(sa.select(_chunks).where(*where)).one_or_none()
        if row is None:
            raise GateError(f"chunk {chunk} of {run.campaign} {run.send_date} is not in the plan; run plan_push again")
        plan = ChunkPlan(row.chunk, row.bucket, row.part, row.users, row.offset_seconds)
        return Claim(plan, row.epoch, row.state == "confirmed", dict(row.counts or {}))

    def record_request(
        self, run: Run, claim: Claim, request: int, *, sha256: str, size: int, contacts: int, state: str,
        job_id: str | None = None,
    ) -> None:  # fmt: skip
        """Write down what became of a request: `intended` before the call, `accepted` or `confirmed` after it."""
        key = {**run.key, "chunk": claim.plan.chunk, "epoch": claim.epoch, "request": request}
        values = {"body_sha256": sha256, "bytes": size, "contacts": contacts, "state": state, "job_id": job_id}
        with self._engine.begin() as connection:
            self._check_epoch(connection, run, claim)
            connection.execute(
                self._insert(_requests)
                .values(**key, **values)
                .on_conflict_do_update(index_elements=[*key], set_=values)
            )

    def confirm_chunk(self, run: Run, claim: Claim, receipt: Mapping[str, Any], counts: Mapping[str, int]) -> None:
        """Mark a chunk done: every job of it was completed and its receipts are on disk."""
        with self._engine.begin() as connection:
            self._check_epoch(connection, run, claim)
            connection.execute(
                sa.update(_chunks)
                .where(*self._of(_chunks, run), _chunks.c.chunk == claim.plan.chunk)
                .values(state="confirmed", receipt=json.loads(json.dumps(receipt)), counts=dict(counts))
            )

    def receipts(self, run: Run) -> list[tuple[ChunkPlan, dict[str, Any], dict[str, int]]]:
        """Return each confirmed chunk's plan, receipt file and counts.

        Raises: GateError if a chunk is not confirmed.
        """
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_chunks).where(*self._of(_chunks, run)).order_by(_chunks.c.chunk)).all()
        open_chunks = [f"{row.chunk} ({row.state})" for row in rows if row.state != "confirmed"]
        if open_chunks:
            raise GateError(
                f"{len(open_chunks)} of {len(rows)} chunks are not confirmed: {', '.join(open_chunks[:10])}; "
                "clear their push tasks and run reconcile_push again"
            )
        return [
            (ChunkPlan(r.chunk, r.bucket, r.part, r.users, r.offset_seconds), r.receipt, dict(r.counts)) for r in rows
        ]

    def mark_reconciled(self, run: Run) -> None:
        """Open the barrier: the send may be scheduled."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_plans).where(*self._of(_plans, run)).values(reconciled_at=self._clock().isoformat())
            )

    def is_reconciled(self, run: Run) -> bool:
        """Tell whether the barrier is open."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(_plans.c.reconciled_at).where(*self._of(_plans, run))) is not None

    def send(self, run: Run) -> tuple[str, str, int] | None:
        """Return the run's one send as (id at the provider, state, recipients), or None."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_sends).where(*self._of(_sends, run))).one_or_none()
        return (row.single_send_id, row.state, row.recipients) if row else None

    def choose_send(self, run: Run, single_send_id: str, recipients: int) -> str:
        """Settle which single send is the run's one; the first choice stays. Return the id that holds."""
        values = {"single_send_id": single_send_id, "state": "drafted", "recipients": recipients}
        with self._engine.begin() as connection:
            connection.execute(
                self._insert(_sends)
                .values(**run.key, **values, updated_at=self._clock().isoformat())
                .on_conflict_do_nothing()
            )
            return str(connection.scalar(sa.select(_sends.c.single_send_id).where(*self._of(_sends, run))))

    def mark_send(self, run: Run, state: str) -> None:
        """Write down the provider's word on the run's send."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_sends)
                .where(*self._of(_sends, run))
                .values(state=state, updated_at=self._clock().isoformat())
            )

    def nights(self) -> list[dict[str, Any]]:
        """Return every planned run with its counts and how far it got, newest first."""
        confirmed = sa.func.sum(sa.case((_chunks.c.state == "confirmed", 1), else_=0))
        per_run = (
            sa.select(
                _chunks.c.campaign, _chunks.c.send_date, sa.func.count().label("chunks"), confirmed.label("confirmed")
            )
            .group_by(_chunks.c.campaign, _chunks.c.send_date)
            .subquery()
        )
        rows = (
            sa.select(
                _plans.c.campaign,
                _plans.c.send_date,
                _plans.c.counts.label("planned"),
                sa.func.coalesce(per_run.c.chunks, 0).label("chunks"),
                sa.func.coalesce(per_run.c.confirmed, 0).label("confirmed"),
                _plans.c.reconciled_at.is_not(None).label("is_reconciled"),
                _sends.c.state.label("send_state"),
                _sends.c.recipients,
            )
            .outerjoin(per_run, _same_run(per_run))
            .outerjoin(_sends, _same_run(_sends))
            .order_by(_plans.c.send_date.desc(), _plans.c.campaign)
        )
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(rows)]

    def _check_epoch(self, connection: sa.Connection, run: Run, claim: Claim) -> None:
        epoch = connection.scalar(
            sa.select(_chunks.c.epoch)
            .where(*self._of(_chunks, run), _chunks.c.chunk == claim.plan.chunk)
            .with_for_update()
        )
        if epoch != claim.epoch:
            raise GateError(
                f"chunk {claim.plan.chunk}: epoch {claim.epoch} was replaced by {epoch}; this worker stops, "
                "the one that took over goes on"
            )

    @staticmethod
    def _of(table: sa.Table, run: Run) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        return table.c.campaign == run.campaign, table.c.send_date == run.send_date.isoformat()


def _same_run(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.campaign == _plans.c.campaign, table.c.send_date == _plans.c.send_date)


# Of two processes that open a new database at once, one gets "database is locked" whatever the time-out says.
@retry(retry=retry_if_exception_type(sqlite3.OperationalError), stop=stop_after_delay(10), wait=_WAIT, reraise=True)
def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by the engine's own event, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose the last commits at power loss; a lost "accepted" would be pushed twice.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
