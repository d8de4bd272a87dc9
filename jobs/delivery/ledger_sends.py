"""Sends in the ledger: the barrier before them, the one send of a run, and how far each night is."""

from typing import Any

import sqlalchemy as sa

from jobs.delivery.ledger_database import LedgerDatabase
from jobs.delivery.ledger_rows import Run, same_run
from jobs.delivery.ledger_tables import chunks, plans, sends


class LedgerSends(LedgerDatabase):
    """The part of the ledger that is about the barrier, the send, and the nights as a whole."""

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
            .outerjoin(per_run, same_run(per_run))
            .outerjoin(sends, same_run(sends))
            .order_by(plans.c.send_date.desc(), plans.c.campaign)
        )
        with self.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(rows)]
