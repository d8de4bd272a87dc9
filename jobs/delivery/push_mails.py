"""Push one chunk by Mail Send: see that the run's batch is on hold, then hand the chunk's mails over to it."""

from jobs.delivery.chunk_reader import Reading
from jobs.delivery.ledger import Claim
from jobs.delivery.mail_bodies import Envelope, MailTokens
from jobs.delivery.mail_book import Batch
from jobs.delivery.mail_engine import Mailer
from jobs.delivery.mail_sheet import make_mail_sheet
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.receipt_files import ReceiptFiles
from jobs.delivery.run_batch import check_hold, ensure_run_batch
from jobs.delivery.run_context import Delivery
from schemas.errors import ConfigError


def push_mails(
    delivery: Delivery, claim: Claim, reading: Reading, calls: ProviderCalls, files: ReceiptFiles
) -> tuple[bool, dict[str, int]]:
    """Hand over what is open of a chunk; say whether all of it is settled, and count its users by outcome."""
    batch, tokens = ensure_run_batch(delivery), MailTokens.of(delivery.ledger, delivery.run)
    mailer = Mailer(
        delivery.provider,
        delivery.mails,
        claim,
        calls,
        files,
        _envelope(delivery, batch, tokens, calls),
        tokens,
        delivery.campaign.push.requests_per_second,
        lambda: check_hold(delivery, batch, calls),
    )
    is_settled = mailer.push(make_mail_sheet(delivery, claim, reading))
    return is_settled, mailer.counts()


def _envelope(delivery: Delivery, batch: Batch, tokens: MailTokens, calls: ProviderCalls) -> Envelope:
    settings, sender = delivery.campaign, delivery.campaign.mail_send
    if sender.from_email is None:
        raise ConfigError(
            f"{settings.name} of {delivery.run.send_date} was planned for mail_send, and mail_send.from_email is not "
            "given any more; put it back into the campaign's file. Nothing was pushed"
        )
    group = settings.mail.suppression_group
    return Envelope(
        from_email=sender.from_email,
        from_name=sender.from_name,
        template_id=batch.template_id,
        batch_id=batch.batch_id,
        send_at=int(batch.send_at.timestamp()),
        group_id=calls.repeat(lambda: delivery.provider.ensure_suppression_group(group)),
        category=f"ryml {settings.name}",
        run_token=tokens.run_token,
    )
