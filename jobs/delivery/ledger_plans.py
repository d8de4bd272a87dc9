"""Plans in the ledger: frozen before their first request, kept as they are, cancelled for good."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa

from jobs.delivery.ledger_database import LedgerDatabase
from jobs.delivery.ledger_rows import DONE, ChunkPlan, Run, chunk_plan, same_run
from jobs.delivery.ledger_tables import chunks, plans
from schemas.errors import GateError
from schemas.push_method import PushMethod


class LedgerPlans(LedgerDatabase):
    """The part of the ledger that is about plans."""

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
                        chunks.c.state.not_in(DONE),
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
            return plan.digest, [chunk_plan(row) for row in rows], dt.datetime.fromisoformat(plan.start_at)

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
                .join(chunks, same_run(chunks))
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
                .where(*run.of(chunks), chunks.c.state.not_in(DONE))
                .values(state="expired", epoch=chunks.c.epoch + 1)
            )

    def stopped_reason(self, run: Run) -> str | None:
        """Say why a run was cancelled; None if it was not."""
        with self.reading() as connection:
            return connection.scalar(sa.select(plans.c.stopped_reason).where(*run.of(plans)))
