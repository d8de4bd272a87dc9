"""Schedule the campaign's one send of the date, once: choose a draft, write its id down, schedule that id.

Reads:  the ledger, the provider
Writes: one single send at the provider; the ledger
Run:    python -m jobs.schedule_send --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import time
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.client import SingleSend
from jobs.delivery.engine import retrying
from jobs.delivery.mail_template import load_template
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from schemas.errors import EmptyPartitionError, GateError, MailError

_DONE = ("scheduled", "triggered")
_STATUS_WAIT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return delivery_parser(__doc__)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress
) -> dict[str, Any]:
    """Schedule the send unless it is; return its state at the provider and the number of recipients.

    Raises: GateError if the push was not reconciled; EmptyPartitionError if the list is empty.
    """
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    if not delivery.ledger.is_reconciled(delivery.run):
        raise GateError(f"{campaign} of {date} was not reconciled; run reconcile_push first. Nothing was sent")
    send = delivery.ledger.send(delivery.run)
    single_send_id = send[0] if send else _choose(delivery)
    status = _schedule(delivery, single_send_id)
    held = delivery.ledger.send(delivery.run)
    recipients = held[2] if held else 0
    return {"rows": recipients, "status": status, "recipients": recipients, "single_send_id": single_send_id}


def _choose(delivery: Delivery) -> str:
    """Find the draft by its exact name or create it; what the ledger wrote down first is the one."""
    provider, settings, date = delivery.provider, delivery.campaign, delivery.run.send_date
    name = settings.send_name(date)
    list_id = provider.ensure_list(name)
    recipients = provider.list_size(list_id)
    if recipients == 0:
        raise EmptyPartitionError(f"the list {name!r} at the provider is empty; nothing was sent. Look at the push")
    found = provider.find_single_send(name)
    if found is None:
        template = load_template(date, settings.mail.field_prefix)
        # Not retried here: an unknown answer to create may have made a draft, and the next try finds it by its name.
        found = provider.create_draft(
            name=name,
            list_id=list_id,
            subject=settings.mail.subject,
            html=template.html,
            text=template.text,
            suppression_group_id=provider.ensure_suppression_group(settings.mail.suppression_group),
            sender_id=settings.mail.sender_id,
        )
    return delivery.ledger.choose_send(delivery.run, found.id, recipients)


def _schedule(delivery: Delivery, single_send_id: str) -> str:
    """Schedule the chosen send if it is still a draft, and wait for the provider's word that it stands."""
    send = _look(delivery, single_send_id)
    if send.status == "draft":
        try:
            delivery.provider.schedule(single_send_id, None)
        except MailError:
            # The answer is unknown or a refusal; only the status tells whether it was scheduled.
            if _look(delivery, single_send_id).status not in _DONE:
                raise
    for wait_seconds in _STATUS_WAIT_SECONDS:
        send = _look(delivery, single_send_id)
        delivery.ledger.mark_send(delivery.run, send.status)
        if send.status == "triggered":
            break
        time.sleep(wait_seconds)
    if send.status not in _DONE:
        raise MailError(
            f"single send {single_send_id} is {send.status} after it was scheduled; expected scheduled or triggered. "
            "Look at it at the provider, then run schedule_send again"
        )
    return send.status


def _look(delivery: Delivery, single_send_id: str) -> SingleSend:
    for attempt in retrying(time.sleep):
        with attempt:
            send = delivery.provider.single_send(single_send_id)
    return send


if __name__ == "__main__":
    run(main, arg_parser())
