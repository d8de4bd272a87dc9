"""Cancel a campaign's batch of a date for good: nothing more is pushed, and a send that is scheduled is taken back.

Reads:  the provider
Writes: the ledger; the single send at the provider
Run:    python -m jobs.cancel_send --lake LAKE --date 2026-11-02 --run-id by-hand --reason "prices are in cents" \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.quality.reasons import refuse_empty_reason
from schemas.errors import GateError, RejectedMailError

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
    send = ledger.send(delivery.run)
    status = "none" if send is None else _take_back(delivery, send[0])
    if status == "triggered":
        raise GateError(
            f"{delivery.run.campaign} of {delivery.run.send_date} is out already; nothing can take it back. What was "
            "not pushed yet never will be"
        )
    return {"rows": 0, "status": status, "stopped_reason": reason}


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
