"""Let a ledger that was lost, or is an old copy, learn what the provider has of a run; until then nothing of it leaves.

A run of Mail Send whose template the provider has is given up: nobody can tell any more who was mailed.

Reads:  the provider: the run's list and its single send, or its template, by their exact names
Writes: the ledger
Run:    python -m jobs.reconcile_ledger --lake LAKE --date 2026-11-02 --run-id by-hand --reason "its disk died" \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.release_mails import cancel_batch
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.quality.reasons import refuse_empty_reason


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--reason", required=True, help="what happened to the ledger; it stays in the new one")
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress, reason: str
) -> dict[str, Any]:
    """Adopt what the provider has; return it."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return reconcile_ledger(delivery, reason)


def reconcile_ledger(delivery: Delivery, reason: str) -> dict[str, Any]:
    """Adopt the run's list and single send. One that was scheduled or sent stops the run: it is never sent again.

    Raises: GateError if the date was never planned in this ledger.
    """
    refuse_empty_reason(reason, "what happened to the ledger")
    ledger, book, provider, calls = delivery.ledger, delivery.book, delivery.provider, delivery.calls()
    ledger.plan(delivery.run)
    if delivery.ledger.method(delivery.run) == "mail_send":
        return _give_up_mails(delivery, reason)
    name = delivery.campaign.send_name(delivery.run.send_date)
    list_id = calls.repeat(lambda: provider.find_list(name))
    found = calls.repeat(lambda: provider.find_single_send(name))
    size = 0
    if list_id is not None:
        adopted = list_id
        size = calls.repeat(lambda: provider.list_size(adopted))
        book.adopt("create_list", list_id)
        book.settle_list(list_id)
    if found is not None:
        book.adopt("create_draft", found.id)
        ledger.choose_send(delivery.run, found.id, size)
        ledger.mark_send(delivery.run, found.status)
        if found.status != "draft":
            ledger.stop(delivery.run, f"{found.status} before the ledger was lost: {reason}")
    return {
        "rows": size,
        "list": list_id is not None,
        "single_send": found.status if found else None,
        "stopped_reason": ledger.stopped_reason(delivery.run),
    }


def _give_up_mails(delivery: Delivery, reason: str) -> dict[str, Any]:
    """Stop a run of Mail Send if the provider has its template: nobody can tell any more who was mailed.

    A batch that this ledger knows and that still waits is cancelled; one that it does not know is discarded by the
    provider three days after its time, unless it was released.
    """
    ledger, book, provider, calls = delivery.ledger, delivery.mails, delivery.provider, delivery.calls()
    name = delivery.campaign.send_name(delivery.run.send_date)
    template_id, batch = calls.repeat(lambda: provider.find_template(name)), book.batch()
    if template_id is not None:
        book.adopt("create_template", template_id)
        ledger.stop(delivery.run, f"mails may have been handed over before the ledger was lost: {reason}")
        if batch is not None and calls.repeat(lambda: provider.batch_hold(batch.batch_id)) == "pause":
            cancel_batch(delivery, batch)
    left = book.batch()
    return {
        "rows": 0,
        "template": template_id is not None,
        "batch": left.state if left else None,
        "stopped_reason": ledger.stopped_reason(delivery.run),
    }


if __name__ == "__main__":
    run(main, arg_parser())
