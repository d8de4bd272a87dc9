"""Schedule the campaign's one send of the date, once: choose a draft, take off who left, schedule that draft.

Of a campaign of Mail Send the mails wait at the provider already: the pause of their batch is lifted.

Reads:  the ledger, the provider and its suppressions, chunks, receipts and users of the date
Writes: one single send at the provider, or its batch; the ledger
Run:    python -m jobs.schedule_send --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.client import SingleSend
from jobs.delivery.mail_template import load_template
from jobs.delivery.people_book import withdrawn
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.release_mails import release_mails
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.delivery.run_list import ensure_run_list, lost_ledger
from jobs.delivery.withdraw import withdraw
from schemas.errors import EmptyPartitionError, GateError, MailError, RejectedMailError

_DONE = ("scheduled", "triggered")
_STATUS_WAIT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument(
        "--not-after",
        type=dt.datetime.fromisoformat,
        help="instant (ISO 8601 with its offset) past which nothing leaves",
    )
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    ledger: str,
    provider: ProviderAddress,
    not_after: dt.datetime | None = None,
) -> dict[str, Any]:
    """Schedule the send unless it is; return its state at the provider and the number of recipients.

    Raises: GateError if the push was not reconciled, or it is too late; EmptyPartitionError if the list is empty.
    """
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return schedule_send(delivery, not_after)


def schedule_send(delivery: Delivery, not_after: dt.datetime | None = None) -> dict[str, Any]:
    """Schedule the run's one send unless it is; return its state and its recipients."""
    run_ = delivery.run
    if not delivery.ledger.is_reconciled(run_):
        raise GateError(
            f"{run_.campaign} of {run_.send_date} was not reconciled; run reconcile_push first. Nothing was sent"
        )
    if delivery.ledger.method(delivery.run) == "mail_send":
        return release_mails(delivery, not_after)
    calls = ProviderCalls(delivery.book, delivery.timing, deadline=not_after)
    send = delivery.ledger.send(run_)
    single_send_id = send[0] if send else _choose(delivery, calls)
    status = _schedule(delivery, calls, single_send_id)
    held = delivery.ledger.send(run_)
    left = sum(withdrawn(delivery.ledger, run_).values())
    # The ledger has the list's size when the draft was chosen, which is before anybody is taken off it.
    recipients = held[2] - left if held else 0
    return {
        "rows": recipients,
        "status": status,
        "recipients": recipients,
        "withdrawn": left,
        "single_send_id": single_send_id,
    }


def _choose(delivery: Delivery, calls: ProviderCalls) -> str:
    """Find the draft by its exact name or create it; what the ledger wrote down first is the one.

    Raises: GateError if the provider has one that this ledger never began to make.
    """
    provider, settings, date = delivery.provider, delivery.campaign, delivery.run.send_date
    name, book = settings.send_name(date), delivery.book
    list_id = ensure_run_list(delivery)
    recipients = calls.repeat(lambda: provider.list_size(list_id))
    if recipients == 0:
        raise EmptyPartitionError(f"the list {name!r} at the provider is empty; nothing was sent. Look at the push")
    template = load_template(date, settings.mail.field_prefix)
    group = calls.repeat(lambda: provider.ensure_suppression_group(settings.mail.suppression_group))

    def find_or_create() -> SingleSend:
        # An unknown answer to create may have made a draft: it is looked for before another one is made. One that is
        # not found yet stays a draft, which nobody schedules.
        found = provider.find_single_send(name)
        if found is not None and not book.has_begun("create_draft"):
            raise lost_ledger(delivery, f"the single send {name!r}")
        return found or calls.write_once(
            "create_draft",
            name,
            lambda: provider.create_draft(
                name=name,
                list_id=list_id,
                subject=settings.mail.subject,
                html=template.html,
                text=template.text,
                suppression_group_id=group,
                sender_id=settings.mail.sender_id,
            ),
        )

    return delivery.ledger.choose_send(delivery.run, calls.repeat(find_or_create).id, recipients)


def _schedule(delivery: Delivery, calls: ProviderCalls, single_send_id: str) -> str:
    """Schedule the chosen send if it is still a draft, and wait for the provider's word that it stands.

    Right before, and again at every try (an outage may have lasted), whoever may not be mailed any more is taken off.
    """
    provider = delivery.provider

    def schedule_if_draft() -> None:
        # The answer may be unknown or a refusal; only the status tells whether it was scheduled.
        if provider.single_send(single_send_id).status != "draft":
            return
        withdraw(delivery, calls, ensure_run_list(delivery))
        if calls.is_late:
            raise GateError(f"{delivery.run.send_date} is past its time; nobody is mailed late. The batch is given up")
        try:
            calls.write_once("schedule", single_send_id, lambda: provider.schedule(single_send_id, None))
        except RejectedMailError:
            if provider.single_send(single_send_id).status not in _DONE:
                raise

    calls.repeat(schedule_if_draft)
    for wait_seconds in _STATUS_WAIT_SECONDS:
        send = calls.repeat(lambda: provider.single_send(single_send_id))
        delivery.ledger.mark_send(delivery.run, send.status)
        if send.status == "triggered":
            break
        calls.wait(wait_seconds)
    if send.status not in _DONE:
        raise MailError(
            f"single send {single_send_id} is {send.status} after it was scheduled; expected scheduled or triggered. "
            "Look at it at the provider, then run schedule_send again"
        )
    return send.status


if __name__ == "__main__":
    run(main, arg_parser())
