"""List the contacts that a date's push set aside, with the reason; users by a keyed hash, never by id or address.

Reads:  the ledger, the receipts
Writes: nothing
Run:    python -m jobs.show_quarantine --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.addresses import UID_KEY
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.receipt_files import ReceiptFiles, receipts_attempt
from jobs.delivery.request_book import RequestBook
from jobs.delivery.timing import utc_now
from jobs.lake.buckets import keyed_hash
from jobs.lake.lake import Lake
from schemas.campaign import load_campaign

_SHOWN = 100


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    return parser


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str) -> dict[str, Any]:
    """Return how many there are of each reason, and the first hundred."""
    return show_quarantine(Lake.open(lake), Ledger(ledger, utc_now), Run(load_campaign(campaign).name, date))


def show_quarantine(lake: Lake, ledger: Ledger, run_: Run) -> dict[str, Any]:
    """Go through the receipts of the requests that have someone in quarantine."""
    digest, chunks, _ = ledger.plan(run_)
    attempt, key, found = receipts_attempt(lake, run_, digest), ledger.key(UID_KEY), []
    for chunk in chunks:
        for request in RequestBook(ledger, run_).of_chunk(chunk.chunk):
            if request.state == "confirmed" and request.counts.get("quarantined"):
                rows = ReceiptFiles(attempt, chunk).read(request.receipt)
                rows = rows.filter(pc.equal(rows["outcome"], "quarantined"))
                hashes = keyed_hash(rows["user_id"].combine_chunks(), key)
                found += [
                    {"user": f"{user:016x}", "chunk": chunk.chunk, "reason": reason}
                    for user, reason in zip(hashes.tolist(), rows["reason"].to_pylist(), strict=True)
                ]
    return {
        "rows": len(found),
        "reasons": dict(Counter(row["reason"] for row in found)),
        "quarantined": found[:_SHOWN],
    }


if __name__ == "__main__":
    run(main, arg_parser())
