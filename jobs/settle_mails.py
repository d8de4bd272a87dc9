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
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.event_files import Heard, read_events
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.mail_bodies import request_token, run_token
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
    heard = read_events(events, run_token(ledger, run_))
    requests = [(chunk, request) for chunk in chunks for request in book.of_chunk(chunk.chunk)]
    is_quiet = _is_silence_an_answer(book, batch, heard, [request for _, request in requests])
    attempt = receipts_attempt(lake, run_, digest)
    for chunk, request in requests:
        state = _verdict(book, batch, heard, request, is_quiet=is_quiet)
        if state is not None:
            _settle(book, ReceiptFiles(attempt, chunk), request, state)
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


def _is_silence_an_answer(book: MailBook, batch: Batch, heard: Heard, requests: Sequence[Request]) -> bool:
    """Say whether a request that no event names was not taken: late enough, and nothing else is missing."""
    answered = [request for request in requests if request.state == "confirmed" and request.counts.get("delivered")]
    missing = [request for request in answered if _token(book, request) not in heard.requests]
    is_late = book.ledger.now_seconds() >= (batch.send_at + SILENT_AFTER).timestamp()
    if heard.events and (missing or heard.unreadable):
        _log.warning(
            "%d of %d requests that were answered are in no event, %d events cannot be read: silence says nothing",
            len(missing),
            len(answered),
            heard.unreadable,
        )
    return batch.state == "released" and is_late and bool(answered) and not missing and not heard.unreadable


def _verdict(book: MailBook, batch: Batch, heard: Heard, request: Request, *, is_quiet: bool) -> State | None:
    """What is known of a request now; None if that is nothing new."""
    is_mail = bool(request.state in UNHEARD or request.counts.get("delivered") or request.counts.get("not_sent"))
    if not is_mail:
        return None
    if _token(book, request) in heard.requests:
        return None if request.counts.get("delivered") else "confirmed"
    if request.state == "not_sent":
        return None
    if batch.state in ("cancelled", "lifted") and book.ledger.now_seconds() >= batch.send_at.timestamp():
        return "not_sent" if not book.has_begun("release_batch") else None
    return "not_sent" if request.state in UNHEARD and is_quiet else None


def _settle(book: MailBook, files: ReceiptFiles, request: Request, state: State) -> None:
    rows = as_outcome(files.read(request.receipt), "delivered" if state == "confirmed" else "not_sent")
    book.settle_unheard(request, state, asdict(files.write_again(rows)))


def _token(book: MailBook, request: Request) -> str:
    return request_token(book.ledger, book.run, request.chunk, request.epoch, request.request)


if __name__ == "__main__":
    run(main, arg_parser())
