"""What the ledger's rows are about: runs, chunks of their plans, and who has a chunk."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from jobs.delivery.ledger_tables import plans

DONE: Final = ("confirmed", "expired")  # states of a chunk that nobody pushes any more


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
        return self.state in DONE


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


def chunk_plan(row: Any) -> ChunkPlan:
    """Read a row of `chunks`."""
    return ChunkPlan(row.chunk, row.bucket, row.part, row.users, row.offset_seconds)


def same_run(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """The condition that a row of another table is of a plan's run."""
    return sa.and_(table.c.campaign == plans.c.campaign, table.c.send_date == plans.c.send_date)
