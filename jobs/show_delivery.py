"""Say how far a campaign's push and send of a date are, and what went wrong on the way.

Reads:  the ledger
Writes: nothing
Run:    python -m jobs.show_delivery --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery import shared_pace
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.mail_book import MailBook
from jobs.delivery.override_book import overrides_of
from jobs.delivery.people_book import withdrawn
from jobs.delivery.request_book import RequestBook
from jobs.delivery.timing import utc_now
from schemas.campaign import load_campaign
from schemas.tables import MAIL_OUTCOMES

_LAST_CALLS = 10


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    return parser


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str) -> dict[str, Any]:
    """Return the plan's counts, chunks, requests and calls by state, the pace, the send, and the last failures."""
    settings = load_campaign(campaign)
    return show_delivery(Ledger(ledger, utc_now), Run(settings.name, date))


def show_delivery(ledger: Ledger, run_: Run) -> dict[str, Any]:
    """Describe one run.

    Raises: GateError if it was never planned.
    """
    digest, chunks, start_at = ledger.plan(run_)
    book, deadline_at, send = RequestBook(ledger, run_), ledger.deadline(run_), ledger.send(run_)
    history = book.history()
    with ledger.reading() as connection:
        pace = shared_pace.describe(connection, run_)
    requests = [request for chunk in chunks for request in book.of_chunk(chunk.chunk)]
    return {
        "rows": sum(chunk.users for chunk in chunks),
        "planned": ledger.plan_counts(run_),
        "plan": digest[:12],
        "method": ledger.method(run_),
        "start_at": start_at.isoformat(),
        "deadline_at": deadline_at.isoformat() if deadline_at else None,
        "chunks": dict(Counter(ledger.holder(run_, chunk.chunk).state for chunk in chunks)),
        "requests": dict(Counter(request.state for request in requests)),
        "calls": dict(Counter(f"{call['operation']} {call['outcome']}" for call in history)),
        "last_failures": [call for call in history if call["outcome"] in ("failed", "unknown")][-_LAST_CALLS:],
        "pace": pace,
        "is_reconciled": ledger.is_reconciled(run_),
        "stopped_reason": ledger.stopped_reason(run_),
        "overrides": overrides_of(ledger, run_),
        "withdrawn": withdrawn(ledger, run_),
        **_mails(MailBook(ledger, run_)),
        "send": None if send is None else {"single_send_id": send[0], "state": send[1], "recipients": send[2]},
    }


def _mails(book: MailBook) -> dict[str, Any]:
    """Describe a run of Mail Send: its batch, and its users by outcome. Nothing for a run of another method."""
    batch = book.batch()
    if batch is None:
        return {}
    users = {outcome: book.outcomes().get(outcome, 0) for outcome in MAIL_OUTCOMES}
    return {"batch": {"state": batch.state, "send_at": batch.send_at.isoformat()}, "users": users}


if __name__ == "__main__":
    run(main, arg_parser())
