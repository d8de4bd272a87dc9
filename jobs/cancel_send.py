"""Cancel a campaign's batch of a date for good: nothing more is pushed, and a send that is scheduled is taken back.

Reads:  the provider
Writes: the ledger; the single send, or the batch of mails, at the provider
Run:    python -m jobs.cancel_send --lake LAKE --date 2026-11-02 --run-id by-hand --reason "prices are in cents" \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.mail_book import Batch
from jobs.delivery.release_mails import cancel_batch
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.quality.reasons import refuse_empty_reason
from schemas.errors import GateError, RejectedMailError

# SendGrid promises a cancellation only if it is made so long before send_at; one of a paused batch at any time.
HOLD_AHEAD = dt.timedelta(minutes=10)
_LOOK_SECONDS = (0.0, 1.0, 2.0)  # a schedule that was under way when the run was stopped shows up by then


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--reason", required=True, help="why; it stays in the ledger")
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress, reason: str
) -> dict[str, Any]:
    """Cancel; return the send's state at the provider."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return cancel_send(delivery, reason)


def cancel_send(delivery: Delivery, reason: str) -> dict[str, Any]:
    """Stop a run, then take its schedule back.

    Raises: GateError if the mail is out already, or nothing was planned.
    """
    refuse_empty_reason(reason, "why the batch is cancelled")
    ledger = delivery.ledger
    ledger.plan(delivery.run)
    ledger.stop(delivery.run, reason)
    batch = delivery.mails.batch()
    if batch is not None:
        return {"rows": 0, **_discard(delivery, batch), "stopped_reason": reason}
    send = ledger.send(delivery.run)
    status = "none" if send is None else _take_back(delivery, send[0])
    if status == "triggered":
        raise GateError(
            f"{delivery.run.campaign} of {delivery.run.send_date} is out already; nothing can take it back. What was "
            "not pushed yet never will be"
        )
    return {"rows": 0, "status": status, "stopped_reason": reason}


def _discard(delivery: Delivery, batch: Batch) -> dict[str, Any]:
    """Cancel a batch of Mail Send; return its state, and whether that is certain.

    Raises: GateError if its mails are out already.
    """
    if batch.state == "lifted":
        return {"status": "cancelled", "is_certain": True}
    now = delivery.timing.clock()
    held = delivery.calls().repeat(lambda: delivery.provider.batch_hold(batch.batch_id))
    # The provider's word: a release whose answer was lost is in the ledger as begun alone. `made` has no mails yet.
    is_free = held is None and batch.state != "made"
    if is_free and now >= batch.send_at:
        raise GateError(
            f"the mails of {delivery.run.campaign} {delivery.run.send_date} left at {batch.send_at.isoformat()}; "
            "nothing can take them back. What was not pushed yet never will be"
        )
    # A release that was under way when the run was stopped would lift the cancellation: it is looked at again.
    for seconds in _LOOK_SECONDS:
        delivery.calls().wait(seconds)
        cancel_batch(delivery, batch)
    delivery.ledger.mark_send(delivery.run, "cancelled")
    return {"status": "cancelled", "is_certain": not is_free or batch.send_at - now >= HOLD_AHEAD}


def _take_back(delivery: Delivery, single_send_id: str) -> str:
    """Take the schedule of a single send back if it has one; return its state."""
    calls, provider = delivery.calls(), delivery.provider
    for seconds in _LOOK_SECONDS:
        calls.wait(seconds)
        status = calls.repeat(lambda: provider.single_send(single_send_id)).status
        if status == "scheduled":
            # A refusal says that it is triggered, or was taken back by a call whose answer was lost.
            with contextlib.suppress(RejectedMailError):
                calls.repeat(lambda: provider.unschedule(single_send_id))
            status = calls.repeat(lambda: provider.single_send(single_send_id)).status
        delivery.ledger.mark_send(delivery.run, status)
    return status


if __name__ == "__main__":
    run(main, arg_parser())
