"""The batch of a run of Mail Send: made and paused before the first mail is handed over, released by the send alone.

SendGrid promises a pause only if it stands ten minutes before `send_at`. So every mail of the run has the same
`send_at`, a quarter of an hour after the last instant at which one is handed over, and the pause stands before the
first is. What is never released is discarded by the provider three days after `send_at`.
"""

import datetime as dt
import hashlib
import logging
from typing import Final

from jobs.delivery.mail_book import Batch, MailBook
from jobs.delivery.mail_template import MailTemplate, load_template, mail_send_template
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.run_context import Delivery
from jobs.delivery.run_list import lost_ledger
from schemas.errors import GateError
from schemas.mail_send import HOLD_MINUTES

# Cancelled mails are discarded at send_at, paused ones 72 hours after it. Past that no hold is needed any more, and of
# these an account has ten.
LIFT_AFTER: Final = dt.timedelta(hours=96)
# A template is also the sign by which a ledger that was lost is noticed, as long as anybody could mail its date again.
TEMPLATE_DAYS: Final = range(15, 22)  # a week of them: a night may have been given up

_log = logging.getLogger(__name__)


def ensure_run_batch(delivery: Delivery) -> Batch:
    """Give the run's batch, on hold: made on first use, with the template that its mails are made of.

    Raises: GateError if the batch was cancelled or released, if somebody else lifted its pause, or if the provider has
    the run's template and the ledger never made it (then the ledger was lost: it may have mailed everybody already).
    """
    book, calls, provider = delivery.mails, delivery.calls(), delivery.provider
    batch = book.batch()
    if batch is None:
        _tidy_up(delivery)
        template_id = _ensure_template(delivery)
        batch_id, ticket = calls.write("create_batch", "", provider.create_batch)
        book.end_call(ticket, "ok", batch_id)
        batch = book.settle_batch(batch_id, template_id, _send_at(delivery))
    if batch.state == "made":
        held = batch.batch_id
        _, ticket = calls.write("hold_batch", held, lambda: provider.hold_batch(held, "pause"))
        book.end_call(ticket, "ok", "pause")
        check_hold(delivery, batch, calls)
        book.mark_batch("held", was=("made",))
    elif batch.state == "held":
        check_hold(delivery, batch, calls)
    else:
        raise GateError(
            f"the batch of {delivery.run.campaign} {delivery.run.send_date} is {batch.state}; no mail is added to it"
        )
    return batch


def check_hold(delivery: Delivery, batch: Batch, calls: ProviderCalls) -> None:
    """Ask the provider whether the batch is still paused, as often as it takes to be told.

    Raises: GateError if it is not: what is handed over now could leave before the barrier.
    """
    found = calls.repeat(lambda: delivery.provider.batch_hold(batch.batch_id))
    if found != "pause":
        raise GateError(
            f"the batch of {delivery.run.campaign} {delivery.run.send_date} is {found or 'not held'} at the provider, "
            "expected pause; no mail is added to it. Find out who changed it; cancel_send takes back what is there"
        )


def run_template(delivery: Delivery) -> MailTemplate:
    """Make the run's template of the campaign's settings."""
    settings = delivery.campaign
    template = load_template(delivery.run.send_date, settings.mail.field_prefix)
    written = mail_send_template(template, settings.mail_send)
    return MailTemplate(settings.mail.subject, written.html, written.text)


def _ensure_template(delivery: Delivery) -> str:
    """Give the id of the template of the run's name, made on first use. A run's own: the next changes none that waits.

    Raises: GateError if the ledger was lost.
    """
    book, calls, provider = delivery.mails, delivery.calls(), delivery.provider
    name, template = delivery.campaign.send_name(delivery.run.send_date), run_template(delivery)
    if not book.has_begun("create_template"):
        found = calls.repeat(lambda: provider.find_template(name))
        # Asked again: another worker may have begun, and made the template, between the two questions.
        if found is not None and not book.has_begun("create_template"):
            raise lost_ledger(delivery, f"the template {name!r}")
    digest = hashlib.sha256("\0".join((template.subject, template.html, template.text)).encode()).hexdigest()[:16]
    template_id, ticket = calls.write(
        "create_template",
        name,
        lambda: provider.ensure_template(
            name, version=digest, subject=template.subject, html=template.html, text=template.text
        ),
    )
    book.end_call(ticket, "ok", template_id)
    return template_id


def _send_at(delivery: Delivery) -> dt.datetime:
    """Say when the run's mails leave.

    Raises: GateError if the plan has no deadline: then nothing says when the last mail is handed over.
    """
    deadline = delivery.ledger.deadline(delivery.run)
    if deadline is None:
        raise GateError(f"the plan of {delivery.run.campaign} {delivery.run.send_date} has no deadline; plan it again")
    return (deadline + dt.timedelta(minutes=HOLD_MINUTES)).replace(microsecond=0)


def _tidy_up(delivery: Delivery) -> None:
    """Cancel batches of earlier dates that were never released, and free the holds and templates that are past use."""
    calls, provider, now = delivery.calls(), delivery.provider, delivery.timing.clock()
    for run, batch in delivery.mails.batches_before():
        book, batch_id = MailBook(delivery.ledger, run), batch.batch_id
        if batch.state != "cancelled":
            _log.info("the batch of %s was never released; it is cancelled", run.send_date)
            calls.repeat(lambda batch_id=batch_id: provider.hold_batch(batch_id, "cancel"))  # type: ignore[misc]
            book.mark_batch("cancelled", was=("made", "held"))
        if now - batch.send_at > LIFT_AFTER:
            calls.repeat(lambda batch_id=batch_id: provider.release_batch(batch_id))  # type: ignore[misc]
            book.mark_batch("lifted", was=("cancelled",))
    for days in TEMPLATE_DAYS:
        old = delivery.campaign.send_name(delivery.run.send_date - dt.timedelta(days=days))
        template_id = calls.repeat(lambda old=old: provider.find_template(old))  # type: ignore[misc]
        if template_id is not None:
            calls.repeat(lambda found=template_id: provider.delete_template(found))  # type: ignore[misc]
