"""Read what one chunk is rendered from: its rows, the catalog that its first worker saw, and what each user is to see.

A worker that waits for another one's signs of life to end reads meanwhile. It reads only: nothing is written to the
chunk, and nothing is asked of the provider, before the chunk is claimed. What was read is used if it is still what the
claim names, and read anew if it is not.
"""

import datetime as dt
import json
import logging
from dataclasses import dataclass

from jobs.delivery.chunk_contents import ChunkContents
from jobs.delivery.chunk_rows import ChunkRows, newest_catalog, read_chunk
from jobs.delivery.last_look import LastLook
from jobs.delivery.ledger import ChunkPlan, Claim
from jobs.delivery.run_context import Delivery
from jobs.lake.manifest import Manifest, Window
from schemas.errors import EmptyPartitionError, GateError, RymlError
from schemas.layout import Partition
from schemas.mail_fields import NEUTRAL
from schemas.tables import RECENT_EVENTS

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Inputs:
    """The very partitions that a chunk is rendered from."""

    plan: Manifest
    users: Manifest
    catalog: Manifest
    recent: Manifest | None


@dataclass(frozen=True)
class Reading:
    """What was read. `known_until` is up to when the lists know what users did, `read_at` when they were read."""

    plan_digest: str
    rows: ChunkRows
    contents: ChunkContents
    known_until: dt.datetime
    read_at: dt.datetime


class ChunkReader:
    """Reads one chunk, whether it is this worker's yet or not."""

    def __init__(self, delivery: Delivery, chunk: int) -> None:
        self._delivery, self._chunk = delivery, chunk
        self._ahead: tuple[_Inputs, Reading] | None = None

    def read_ahead(self) -> None:
        """Read what another worker's chunk will be rendered from. What goes wrong, `read` says in its time."""
        ledger, run = self._delivery.ledger, self._delivery.run
        pinned = ledger.pinned_catalog(run, self._chunk)
        if pinned is None:  # that worker has not seen any yet
            return
        try:
            inputs = self._inputs(pinned)
            plan = next(one for one in ledger.plan(run)[1] if one.chunk == self._chunk)
            self._ahead = inputs, self._read(inputs, plan)
        except RymlError as error:
            _log.info("chunk %d was not read ahead: %s", self._chunk, error)

    def read(self, claim: Claim) -> Reading:
        """Read a claimed chunk, from the catalog and the events since the build that its first worker saw.

        A retry gives the same bytes. Raises: GateError if the plan is not the one that the ledger froze;
        EmptyPartitionError if the campaign asks for recent events and nobody read them.
        """
        inputs = self._inputs(self._delivery.ledger.pin_catalog(self._delivery.run, claim, self._seen()))
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == inputs:
            return ahead[1]
        return self._read(inputs, claim.plan)

    def _seen(self) -> str:
        """Name the newest catalog, and the events since the build if the campaign asks for them."""
        lake, settings, date = self._delivery.lake, self._delivery.campaign, self._delivery.run.send_date
        recent = lake.find(Partition(RECENT_EVENTS.name, date, settings.name))
        if settings.last_look.recent_events and recent is None:
            raise EmptyPartitionError(
                f"{settings.name} takes a last look at recent events, and those of {date} were not read; run "
                "pull_recent_events, or set last_look.recent_events = false. Nothing was pushed"
            )
        seen = [newest_catalog(lake, date), *([recent] if settings.last_look.recent_events and recent else [])]
        return json.dumps([manifest.to_bytes().decode() for manifest in seen])

    def _inputs(self, pinned: str) -> _Inputs:
        lake, run = self._delivery.lake, self._delivery.run
        plan = lake.manifest(Partition("chunks", run.send_date, run.campaign))
        digest, _, _ = self._delivery.ledger.plan(run)
        if plan.content_sha256 != digest:
            raise GateError(f"{plan.partition} is not the plan that the ledger froze; nothing was pushed. Restore it")
        catalog, *more = (Manifest.from_bytes(one.encode(), "the ledger") for one in json.loads(pinned))
        return _Inputs(plan, lake.manifest(Partition("users", run.send_date)), catalog, more[0] if more else None)

    def _read(self, inputs: _Inputs, plan: ChunkPlan) -> Reading:
        delivery = self._delivery
        lake, settings = delivery.lake, delivery.campaign
        known_until = looked_at(inputs.recent, delivery.run.send_date)
        events = lake.read(inputs.recent, bucket=plan.bucket) if inputs.recent else None
        rows = read_chunk(
            lake,
            inputs.plan,
            inputs.users,
            inputs.catalog,
            plan,
            slots=settings.slots,
            min_items=settings.min_items,
            look=LastLook(settings, events, known_until),
        )
        is_mails = delivery.ledger.method(delivery.run) == "mail_send"
        contents = ChunkContents.of(delivery, rows, NEUTRAL if is_mails else settings.push.blank)
        return Reading(inputs.plan.content_sha256, rows, contents, known_until, delivery.timing.clock())


def looked_at(recent: Manifest | None, date: dt.date) -> dt.datetime:
    """Say up to when what users did is known to the lists: when it was read last, else the end of the date."""
    if recent is None:
        return Window.of_days(date, date).end_at
    return dt.datetime.fromisoformat(recent.metrics["read_at"])
