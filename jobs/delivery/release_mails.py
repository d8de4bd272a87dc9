"""The send of a run of Mail Send: its batch is released, once the barrier is open and nobody said no.

Releasing makes no mail: those were handed over once, and wait. So it may be repeated until it is known to be done.
"""

import datetime as dt
import logging
from typing import Any

from jobs.delivery.mail_book import Batch
from jobs.delivery.people_book import withdrawn
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.run_context import Delivery
from jobs.delivery.withdraw import withdraw_mails
from schemas.errors import EmptyPartitionError, GateError

_log = logging.getLogger(__name__)


def release_mails(delivery: Delivery, not_after: dt.datetime | None = None) -> dict[str, Any]:
    """Release the run's batch unless it is; return when its mails leave and to how many users.

    Raises: GateError if the batch was cancelled, or its mails would leave after `not_after`: then it is cancelled.
    """
    book, ledger, run_ = delivery.mails, delivery.ledger, delivery.run
    batch, counts = book.batch(), book.outcomes()
    recipients = counts.get("delivered", 0) + counts.get("unknown", 0)
    if batch is None or recipients == 0:
        raise EmptyPartitionError(
            f"no mail of {run_.campaign} {run_.send_date} was handed over; nothing was sent. Look at the push"
        )
    if batch.state in ("cancelled", "lifted"):
        raise GateError(f"the batch of {run_.campaign} {run_.send_date} was cancelled; none of its mails leaves")
    ledger.choose_send(run_, batch.batch_id, recipients)
    if batch.state != "released":
        calls = ProviderCalls(book, delivery.timing, deadline=not_after)
        calls.repeat(lambda: _release(delivery, calls, batch, not_after))
        book.mark_batch("released", was=("made", "held"))
    status = "triggered" if delivery.timing.clock() >= batch.send_at else "scheduled"
    ledger.mark_send(run_, status)
    left = sum(withdrawn(ledger, run_).values())
    return {
        "rows": recipients - left,
        "status": status,
        "recipients": recipients - left,
        "unknown": counts.get("unknown", 0),
        "withdrawn": left,
        "send_at": batch.send_at.isoformat(),
        "batch_id": batch.batch_id,
    }


def cancel_batch(delivery: Delivery, batch: Batch) -> None:
    """Have the provider discard the batch's mails, and write that down; may be repeated."""
    calls = delivery.calls()
    calls.repeat(lambda: delivery.provider.hold_batch(batch.batch_id, "cancel"))
    delivery.mails.mark_batch("cancelled", was=("made", "held", "released"))


def _release(delivery: Delivery, calls: ProviderCalls, batch: Batch, not_after: dt.datetime | None) -> None:
    """Take out whoever left, then lift the pause."""
    provider, book = delivery.provider, delivery.mails
    held = provider.batch_hold(batch.batch_id)
    if held == "cancel":
        raise GateError(
            f"the batch of {delivery.run.campaign} {delivery.run.send_date} was cancelled at the provider; none of its "
            "mails leaves"
        )
    if held is None:
        if not book.has_begun("release_batch"):
            _log.warning("the batch was not on hold any more: somebody released it at the provider")
        return
    leaves_at = max(batch.send_at, delivery.timing.clock())
    if calls.is_late or (not_after is not None and leaves_at > not_after):
        cancel_batch(delivery, batch)
        raise GateError(
            f"{delivery.run.send_date}: its mails would leave at {leaves_at.isoformat(timespec='seconds')}, past its "
            "time; nobody is mailed late. The batch was cancelled"
        )
    withdraw_mails(delivery, calls)
    calls.write_once("release_batch", batch.batch_id, lambda: provider.release_batch(batch.batch_id))
