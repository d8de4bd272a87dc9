"""Settle the mails of Mail Send whose request was never answered: the provider's events say whether they were taken.

Nobody is mailed by this. A request that any event names was taken. One that none names was not, if its batch was
released two days ago and every request that the provider did answer is named: only then is silence an answer. Of a
batch that was cancelled before anybody released it, nothing left.

Reads:  files of the provider's event posts, the ledger
Writes: the ledger; receipts of the campaign and date, anew
Run:    python -m jobs.settle_mails --lake LAKE --date 2026-11-02 --run-id by-hand --events POSTS \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.event_files import Heard, read_events
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.mail_bodies import MailTokens
from jobs.delivery.mail_book import UNHEARD, Batch, MailBook
from jobs.delivery.receipt_files import ReceiptFiles, as_outcome, receipts_attempt
from jobs.delivery.reconcile_mails import mail_counts, publish_receipts
from jobs.delivery.request_book import Request
from jobs.delivery.timing import utc_now
from jobs.lake.lake import Lake
from schemas.campaign import load_campaign
from schemas.errors import EmptyPartitionError
from schemas.tables import MAIL_OUTCOMES

# SendGrid repeats a post for 24 hours; a day more for whoever receives and copies them.
SILENT_AFTER: Final = dt.timedelta(hours=48)
State = Literal["confirmed", "not_sent"]

_log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    parser.add_argument(
        "--events",
        type=Path,
        nargs="+",
        default=(),
        help="files, or folders of files, with the bodies of the provider's event posts, verified by who received them",
    )
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, events: Sequence[Path] = ()
) -> dict[str, Any]:
    """Settle what can be; return users by outcome, and how many requests are still unknown."""
    run_ = Run(load_campaign(campaign).name, date)
    return settle_mails(Lake.open(lake), Ledger(ledger, utc_now), run_, events)


def settle_mails(lake: Lake, ledger: Ledger, run_: Run, events: Sequence[Path]) -> dict[str, Any]:
    """Settle the requests of a run by events; may be repeated with more of them.

    Raises: EmptyPartitionError if the run has no batch of Mail Send.
    """
    book = MailBook(ledger, run_)
    batch = book.batch()
    if batch is None:
        raise EmptyPartitionError(
            f"{run_.campaign} of {run_.send_date} handed no mail to Mail Send; there is nothing to settle"
        )
    digest, chunks, _ = ledger.plan(run_)
    tokens = MailTokens.of(ledger, run_)
    heard = read_events(events, tokens.run_token)
    requests = [(chunk, request) for chunk in chunks for request in book.of_chunk(chunk.chunk)]
    evidence = Evidence(tokens, heard, silence(book, batch, tokens, heard, [request for _, request in requests]))
    attempt = receipts_attempt(lake, run_, digest)
    for chunk, request in requests:
        state = evidence.verdict(request)
        if state is not None:
            files = ReceiptFiles(attempt, chunk)
            rows = as_outcome(files.read(request.receipt), "delivered" if state == "confirmed" else "not_sent")
            book.settle_unheard(request, state, asdict(files.write_again(rows)))
    counts = mail_counts(book)
    if ledger.is_reconciled(run_):
        publish_receipts(lake, book, counts)
    left = sum(request.state in UNHEARD for chunk in chunks for request in book.of_chunk(chunk.chunk))
    return {
        "rows": sum(counts[outcome] for outcome in MAIL_OUTCOMES),
        **counts,
        "unknown_requests": left,
        "events_of_run": heard.events,
        "unreadable": heard.unreadable,
    }


@dataclass(frozen=True)
class Evidence:
    """What is known of a run's requests. `silence`: what it means that no event names a request."""

    tokens: MailTokens
    heard: Heard
    silence: Literal["nothing", "not_taken", "nothing_left"]

    def names(self, request: Request) -> bool:
        """Say whether any event is of this request."""
        return self.tokens.request(request.chunk, request.epoch, request.request) in self.heard.requests

    def verdict(self, request: Request) -> State | None:
        """Say what a request has become; None if that is nothing new, or it made no mail."""
        is_answered, is_given_up = bool(request.counts.get("delivered")), request.state == "not_sent"
        if not (is_answered or is_given_up or request.state in UNHEARD):
            return None
        if self.names(request):  # the last word, whatever was concluded before
            return None if is_answered else "confirmed"
        if is_given_up or self.silence == "nothing":
            return None
        return "not_sent" if self.silence == "nothing_left" or not is_answered else None


def silence(
    book: MailBook, batch: Batch, tokens: MailTokens, heard: Heard, requests: Sequence[Request]
) -> Literal["nothing", "not_taken", "nothing_left"]:
    """Say what it means for a request that no event names it.

    `nothing_left`: its batch was cancelled before anybody began to release it, so that no mail of it left at all.
    `not_taken`: it is late enough, every request that was answered is named, and everything could be read.
    """
    now = book.ledger.now_seconds()
    if batch.state in ("cancelled", "lifted"):
        is_over = now >= batch.send_at.timestamp() and not book.has_begun("release_batch")
        return "nothing_left" if is_over else "nothing"
    if batch.state != "released" or now < (batch.send_at + SILENT_AFTER).timestamp():
        return "nothing"
    answered = [request for request in requests if request.counts.get("delivered")]
    named = sum(Evidence(tokens, heard, "nothing").names(request) for request in answered)
    if not answered or named < len(answered) or heard.unreadable:
        _log.warning(
            "events name %d of the %d requests that were answered, and %d cannot be read: silence says nothing",
            named,
            len(answered),
            heard.unreadable,
        )
        return "nothing"
    return "not_taken"


if __name__ == "__main__":
    run(main, arg_parser())
