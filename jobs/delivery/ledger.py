"""The delivery ledger: what was planned, sent and confirmed, in a small SQL database (SQLite, or PostgreSQL by URL).

It is the only memory of the push and the send. A worker claims a chunk and gets an epoch; every later write names
it, so a worker that was replaced and wakes up changes nothing. Instants are the caller's clock, in ISO 8601 UTC.
"""

import contextlib
import datetime as dt
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from jobs.delivery import ledger_tables
from jobs.delivery.ledger_tables import SCHEMA_VERSION, chunks, keys, plans, requests, sends
from schemas.campaign import PushMethod
from schemas.errors import ConfigError, GateError

Clock = Callable[[], dt.datetime]

_WAIT = wait_random_exponential(0.05, max=1)
_DONE = ("confirmed", "expired")  # states of a chunk that nobody pushes any more


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
    state: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to push."""
        return self.state in _DONE


@dataclass(frozen=True)
class Holder:
    """Who has a chunk, as far as the ledger tells: as long as `beats` grows, that worker lives."""

    state: str
    epoch: int
    beats: int


@dataclass(frozen=True)
class Run:
    """One campaign on one date: what every row of the ledger belongs to."""

    campaign: str
    send_date: dt.date

    @property
    def key(self) -> dict[str, str]:
        """The two columns that name it."""
        return {"campaign": self.campaign, "send_date": self.send_date.isoformat()}

    def of(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        """The condition for this run's rows of a table."""
        return table.c.campaign == self.campaign, table.c.send_date == self.send_date.isoformat()


class Ledger:
    """The ledger at a database URL; its tables are made on first use."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Open it.

        Raises: ConfigError if its tables are of another version than this code's.
        """
        self._clock = clock
        self._engine = sa.create_engine(url)
        self._insert = sqlite_insert if self._engine.dialect.name == "sqlite" else postgresql_insert
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            # SQLite's default takes the write lock at the first write: what was read before it may be stale by then.
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._make_tables()

    def _make_tables(self) -> None:
        with self._engine.begin() as connection:
            is_old = sa.inspect(connection).has_table("plans")
            ledger_tables.metadata.create_all(connection)
            if not is_old:
                row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
                connection.execute(self._insert(keys).values(row).on_conflict_do_nothing())
            found = connection.scalar(sa.select(keys.c.value).where(keys.c.name == "schema_version"))
        if found != str(SCHEMA_VERSION):
            raise ConfigError(
                f"the ledger's tables have version {found or 1}, this code writes {SCHEMA_VERSION}; use the release "
                "that made it, or start a new ledger and run reconcile_ledger for the dates that are under way"
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction; the only way in which anything is written."""
        with self._engine.begin() as connection:
            yield connection

    def now_text(self) -> str:
        """The instant, as the ledger writes it."""
        return self._clock().isoformat()

    def now_seconds(self) -> float:
        """The instant in Unix time."""
        return self._clock().timestamp()

    def reading(self) -> sa.Connection:
        """A connection for reading, to be used as a context manager."""
        return self._engine.connect()

    def insert_or_ignore(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
        """Insert a row unless its key is there."""
        connection.execute(self._insert(table).values(**row).on_conflict_do_nothing())

    # Keys

    def key(self, name: str) -> str:
        """Return the secret key of that name (16 ASCII characters), made at random on first use."""
        with self.writing() as connection:
            self.insert_or_ignore(connection, keys, {"name": name, "value": secrets.token_hex(8)})
            return str(connection.scalar(sa.select(keys.c.value).where(keys.c.name == name)))

    # Plans

    def freeze_plan(
        self,
        run: Run,
        digest: str,
        counts: Mapping[str, int],
        plan: Sequence[ChunkPlan],
        *,
        deadline_minutes: float | None = None,
        method: PushMethod = "contacts",
    ) -> tuple[str, list[ChunkPlan], dt.datetime]:
        """Freeze a plan before its first request; return the digest, chunks and start of the plan that holds.

        How it is pushed is a part of it. A plan of which nothing was pushed yet is replaced; once a chunk was claimed
        the first plan stays. Chunks of earlier dates that are still open expire: contacts hold one date's content, and
        that is the newest.
        Raises: GateError if a later date of the campaign was planned already.
        """
        with self.writing() as connection:
            later = connection.scalar(
                sa.select(sa.func.max(plans.c.send_date)).where(
                    plans.c.campaign == run.campaign, plans.c.send_date > run.send_date.isoformat()
                )
            )
            held = connection.execute(sa.select(plans.c.digest, plans.c.method).where(*run.of(plans))).one_or_none()
            started = self._is_started(connection, run)
            if not started and (held is None or tuple(held) != (digest, method)):
                if later is not None:
                    raise GateError(
                        f"{run.campaign} of {later} was planned already, so {run.send_date} is not pushed any more: "
                        "contacts hold one date's items. Nothing was pushed"
                    )
                for table in (plans, chunks):
                    connection.execute(sa.delete(table).where(*run.of(table)))
                self._insert_plan(connection, run, digest, counts, plan, deadline_minutes, method)
            if not later:
                connection.execute(
                    sa.update(chunks)
                    .where(
                        chunks.c.campaign == run.campaign,
                        chunks.c.send_date < run.send_date.isoformat(),
                        chunks.c.state.not_in(_DONE),
                    )
                    .values(state="expired", epoch=chunks.c.epoch + 1)
                )
        return self.plan(run)

    def _insert_plan(
        self,
        connection: sa.Connection,
        run: Run,
        digest: str,
        counts: Mapping[str, int],
        plan: Sequence[ChunkPlan],
        deadline_minutes: float | None,
        method: PushMethod,
    ) -> None:
        now = self._clock()
        deadline_at = None if deadline_minutes is None else now + dt.timedelta(minutes=deadline_minutes)
        connection.execute(
            sa.insert(plans).values(
                **run.key,
                digest=digest,
                counts=dict(counts),
                method=method,
                start_at=now.isoformat(),
                deadline_at=deadline_at and deadline_at.isoformat(),
            )
        )
        rows = [{**run.key, **vars(chunk), "state": "planned", "epoch": 0, "beats": 0} for chunk in plan]
        if rows:
            connection.execute(sa.insert(chunks), rows)

    def plan(self, run: Run) -> tuple[str, list[ChunkPlan], dt.datetime]:
        """Return the frozen plan's digest, its chunks and the instant that their offsets count from.

        Raises: GateError if nothing was planned.
        """
        plan = self._plan_row(run)
        with self.reading() as connection:
            rows = connection.execute(sa.select(chunks).where(*run.of(chunks)).order_by(chunks.c.chunk))
            return plan.digest, [_chunk_plan(row) for row in rows], dt.datetime.fromisoformat(plan.start_at)

    def method(self, run: Run) -> PushMethod:
        """Return by which method the run's plan is pushed, whatever the campaign's file says by now."""
        return cast("PushMethod", self._plan_row(run).method)

    def plan_counts(self, run: Run) -> dict[str, int]:
        """Return how many users the plan has for each action."""
        with self.reading() as connection:
            counts = connection.scalar(sa.select(plans.c.counts).where(*run.of(plans)))
            return dict(counts or {})

    def deadline(self, run: Run) -> dt.datetime | None:
        """Return the instant after which nothing more is pushed."""
        found = self._plan_row(run).deadline_at
        return dt.datetime.fromisoformat(found) if found else None

    def list_id(self, run: Run) -> str | None:
        """Return the provider's id of the run's list, None while it has none."""
        found = self._plan_row(run).list_id
        return str(found) if found else None

    def is_started(self, run: Run) -> bool:
        """Tell whether any chunk of the run was ever claimed."""
        with self.reading() as connection:
            return self._is_started(connection, run)

    @staticmethod
    def _is_started(connection: sa.Connection, run: Run) -> bool:
        claimed = sa.select(sa.func.count()).select_from(chunks).where(*run.of(chunks), chunks.c.epoch > 0)
        return bool(connection.scalar(claimed))

    def _plan_row(self, run: Run) -> Any:
        with self.reading() as connection:
            plan = connection.execute(sa.select(plans).where(*run.of(plans))).one_or_none()
        if plan is None:
            raise GateError(f"{run.campaign} of {run.send_date} was never planned; run plan_push first")
        return plan

    def unreconciled_dates(self, run: Run, since: dt.date) -> list[str]:
        """Return the campaign's dates after `since` and before the run's that were pushed and never reconciled.

        What their contacts hold is in no mirror.
        """
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(plans.c.send_date)
                .join(chunks, _same_run(chunks))
                .where(
                    plans.c.campaign == run.campaign,
                    plans.c.send_date > since.isoformat(),
                    plans.c.send_date < run.send_date.isoformat(),
                    plans.c.reconciled_at.is_(None),
                    chunks.c.epoch > 0,
                )
                .distinct()
                .order_by(plans.c.send_date)
            )
            return [row.send_date for row in rows]

    def stop(self, run: Run, reason: str) -> None:
        """Cancel a run for good: nothing more of it is pushed or sent."""
        with self.writing() as connection:
            connection.execute(sa.update(plans).where(*run.of(plans)).values(stopped_reason=reason))
            connection.execute(
                sa.update(chunks)
                .where(*run.of(chunks), chunks.c.state.not_in(_DONE))
                .values(state="expired", epoch=chunks.c.epoch + 1)
            )

    def stopped_reason(self, run: Run) -> str | None:
        """Say why a run was cancelled; None if it was not."""
        with self.reading() as connection:
            return connection.scalar(sa.select(plans.c.stopped_reason).where(*run.of(plans)))

    # Chunks

    def holder(self, run: Run, chunk: int) -> Holder:
        """Say who has a chunk.

        Raises: GateError if the plan has no such chunk.
        """
        where = (*run.of(chunks), chunks.c.chunk == chunk)
        with self.reading() as connection:
            row = connection.execute(sa.select(chunks).where(*where)).one_or_none()
        if row is None:
            raise GateError(f"chunk {chunk} of {run.campaign} {run.send_date} is not in the plan; run plan_push again")
        return Holder(row.state, row.epoch, row.beats)

    def claim(self, run: Run, chunk: int, seen: Holder | None = None) -> Claim | None:
        """Take a chunk over; whoever had it before can no longer write to it.

        With `seen`, only if it is still as it was seen: None says that its holder did something since.
        """
        where = [*run.of(chunks), chunks.c.chunk == chunk]
        as_seen = [] if seen is None else [chunks.c.epoch == seen.epoch, chunks.c.beats == seen.beats]
        with self.writing() as connection:
            taken = connection.execute(
                sa.update(chunks)
                .where(*where, *as_seen, chunks.c.state.not_in(_DONE))
                .values(epoch=chunks.c.epoch + 1, state="in_flight", beats=0)
            ).rowcount
            row = connection.execute(sa.select(chunks).where(*where)).one_or_none()
        if row is None:
            raise GateError(f"chunk {chunk} of {run.campaign} {run.send_date} is not in the plan; run plan_push again")
        if not taken and row.state not in _DONE:
            return None
        return Claim(_chunk_plan(row), row.epoch, row.state, dict(row.counts or {}))

    def beat(self, run: Run, claim: Claim) -> None:
        """Tell that the claim's worker lives.

        Raises: GateError if it was replaced.
        """
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)

    def check_epoch(self, connection: sa.Connection, run: Run, claim: Claim) -> None:
        """Go on only if the claim holds; counts as a sign of life.

        Raises: GateError if the worker was replaced.
        """
        where = (*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
        alive = connection.execute(
            sa.update(chunks).where(*where, chunks.c.epoch == claim.epoch).values(beats=chunks.c.beats + 1)
        )
        if alive.rowcount != 1:
            epoch = connection.scalar(sa.select(chunks.c.epoch).where(*where))
            raise GateError(
                f"chunk {claim.plan.chunk}: epoch {claim.epoch} was replaced by {epoch}; this worker stops, "
                "the one that took over goes on"
            )

    def release(self, run: Run, claim: Claim) -> None:
        """Give a chunk back after a failure, so that the next worker need not wait for signs of life."""
        with self.writing() as connection:
            connection.execute(
                sa.update(chunks)
                .where(*run.of(chunks), chunks.c.chunk == claim.plan.chunk, chunks.c.epoch == claim.epoch)
                .where(chunks.c.state == "in_flight")
                .values(state="released")
            )

    def pin_catalog(self, run: Run, claim: Claim, manifest: str) -> str:
        """Settle what a chunk is rendered from: what its first worker saw. A retry then gives the same bytes."""
        where = (*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)
            connection.execute(sa.update(chunks).where(*where, chunks.c.catalog.is_(None)).values(catalog=manifest))
            return str(connection.scalar(sa.select(chunks.c.catalog).where(*where)))

    def close_chunk(self, run: Run, claim: Claim, state: str, counts: Mapping[str, int]) -> None:
        """Mark a chunk `confirmed` (every job of it was completed) or `expired` (what was not confirmed never is)."""
        with self.writing() as connection:
            self.check_epoch(connection, run, claim)
            connection.execute(
                sa.update(chunks)
                .where(*run.of(chunks), chunks.c.chunk == claim.plan.chunk)
                .values(state=state, counts=dict(counts))
            )

    def receipts(self, run: Run) -> list[tuple[ChunkPlan, str, list[dict[str, Any]], dict[str, int]]]:
        """Return each chunk's plan, state, receipt files and counts over its confirmed requests.

        Raises: GateError if a chunk is neither confirmed nor expired.
        """
        with self.reading() as connection:
            rows = connection.execute(sa.select(chunks).where(*run.of(chunks)).order_by(chunks.c.chunk)).all()
            done = connection.execute(
                sa.select(requests)
                .where(*run.of(requests), requests.c.state == "confirmed")
                .order_by(requests.c.chunk, requests.c.epoch, requests.c.request)
            ).all()
        open_chunks = [f"{row.chunk} ({row.state})" for row in rows if row.state not in _DONE]
        if open_chunks:
            raise GateError(
                f"{len(open_chunks)} of {len(rows)} chunks are not confirmed: {', '.join(open_chunks[:10])}; "
                "clear their push tasks and run reconcile_push again"
            )
        found: dict[int, tuple[list[dict[str, Any]], dict[str, int]]] = {row.chunk: ([], {}) for row in rows}
        for request in done:
            files, counts = found[request.chunk]
            files.append(request.receipt)
            for name, number in {**request.counts, "requests": 1}.items():
                counts[name] = counts.get(name, 0) + number
        return [(_chunk_plan(row), row.state, *found[row.chunk]) for row in rows]

    def chunk_counts(self, run: Run) -> list[dict[str, int]]:
        """Return what each closed chunk counted."""
        with self.reading() as connection:
            rows = connection.scalars(sa.select(chunks.c.counts).where(*run.of(chunks)).order_by(chunks.c.chunk))
            return [dict(counts) for counts in rows if counts]

    # Barrier and send

    def mark_reconciled(self, run: Run) -> None:
        """Open the barrier: the send may be scheduled."""
        with self.writing() as connection:
            connection.execute(sa.update(plans).where(*run.of(plans)).values(reconciled_at=self.now_text()))

    def is_reconciled(self, run: Run) -> bool:
        """Tell whether the barrier is open."""
        with self.reading() as connection:
            return connection.scalar(sa.select(plans.c.reconciled_at).where(*run.of(plans))) is not None

    def send(self, run: Run) -> tuple[str, str, int] | None:
        """Return the run's one send as (id at the provider, state, recipients), or None."""
        with self.reading() as connection:
            row = connection.execute(sa.select(sends).where(*run.of(sends))).one_or_none()
        return (row.single_send_id, row.state, row.recipients) if row else None

    def choose_send(self, run: Run, single_send_id: str, recipients: int) -> str:
        """Settle which single send is the run's one; the first choice stays. Return the id that holds."""
        values = {"single_send_id": single_send_id, "state": "drafted", "recipients": recipients}
        with self.writing() as connection:
            self.insert_or_ignore(connection, sends, {**run.key, **values, "updated_at": self.now_text()})
            return str(connection.scalar(sa.select(sends.c.single_send_id).where(*run.of(sends))))

    def mark_send(self, run: Run, state: str) -> None:
        """Write down the provider's word on the run's send."""
        with self.writing() as connection:
            connection.execute(sa.update(sends).where(*run.of(sends)).values(state=state, updated_at=self.now_text()))

    def recipients_before(self, run: Run, most: int) -> list[int]:
        """Return how many the campaign's last sends before the run's date went to, newest first."""
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(sends.c.recipients)
                .where(
                    sends.c.campaign == run.campaign,
                    sends.c.send_date < run.send_date.isoformat(),
                    sends.c.state.in_(("scheduled", "triggered")),
                )
                .order_by(sends.c.send_date.desc())
                .limit(most)
            )
            return [row.recipients for row in rows]

    def nights(self) -> list[dict[str, Any]]:
        """Return every planned run with its counts and how far it got, newest first."""
        confirmed = sa.func.sum(sa.case((chunks.c.state == "confirmed", 1), else_=0))
        expired = sa.func.sum(sa.case((chunks.c.state == "expired", 1), else_=0))
        per_run = (
            sa.select(
                chunks.c.campaign,
                chunks.c.send_date,
                sa.func.count().label("chunks"),
                confirmed.label("confirmed"),
                expired.label("expired"),
            )
            .group_by(chunks.c.campaign, chunks.c.send_date)
            .subquery()
        )
        rows = (
            sa.select(
                plans.c.campaign,
                plans.c.send_date,
                plans.c.counts.label("planned"),
                sa.func.coalesce(per_run.c.chunks, 0).label("chunks"),
                sa.func.coalesce(per_run.c.confirmed, 0).label("confirmed"),
                sa.func.coalesce(per_run.c.expired, 0).label("expired"),
                plans.c.reconciled_at.is_not(None).label("is_reconciled"),
                plans.c.stopped_reason,
                sends.c.state.label("send_state"),
                sends.c.recipients,
            )
            .outerjoin(per_run, _same_run(per_run))
            .outerjoin(sends, _same_run(sends))
            .order_by(plans.c.send_date.desc(), plans.c.campaign)
        )
        with self.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(rows)]


def _chunk_plan(row: Any) -> ChunkPlan:
    return ChunkPlan(row.chunk, row.bucket, row.part, row.users, row.offset_seconds)


def _same_run(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.campaign == plans.c.campaign, table.c.send_date == plans.c.send_date)


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
