"""Close the books on a push by Mail Send: every user in one outcome, the batch on hold, receipts published.

There is no list to count, no contact to read back and no mirror to carry on: nothing is kept at the provider. What is
`unknown` stays that until `settle_mails` hears of it, and counts as mailed.
"""

from collections.abc import Mapping
from typing import Any

from jobs.delivery.ledger import ChunkPlan
from jobs.delivery.mail_book import MailBook
from jobs.delivery.mail_engine import mark_unknown
from jobs.delivery.receipt_files import ReceiptFiles, receipts_attempt
from jobs.delivery.request_book import Request
from jobs.delivery.run_batch import check_hold
from jobs.delivery.run_context import Delivery
from jobs.lake.lake import Lake
from jobs.lake.manifest import FileEntry, Json, Manifest
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import MAIL_OUTCOMES


def reconcile_mails(delivery: Delivery, lag: Mapping[str, int]) -> dict[str, Any]:
    """Balance the books, publish the receipts, and open the barrier; return the counts.

    Raises: GateError if a chunk is open, the counts do not balance, or the batch is not on hold.
    """
    ledger, run_, book = delivery.ledger, delivery.run, delivery.mails
    chunks = [(chunk, state) for chunk, state, _, _ in ledger.receipts(run_)]
    for chunk, _ in chunks:
        _give_up_unheard(delivery, chunk)
    counts = mail_counts(book)
    planned = ledger.plan_counts(run_)
    counts["expired"] = planned["upsert"] - sum(counts[outcome] for outcome in MAIL_OUTCOMES)
    if counts["expired"] < 0 or (counts["expired"] and all(state == "confirmed" for _, state in chunks)):
        raise GateError(
            f"the plan mails {planned['upsert']} users, the receipts say {dict(counts)}; nothing is sent. "
            "Compare the chunks' receipts with the plan"
        )
    batch = book.batch()
    if batch is not None and not ledger.is_reconciled(run_):
        check_hold(delivery, batch, delivery.calls())
    manifest = publish_receipts(delivery.lake, book, {**counts, **lag})
    ledger.mark_reconciled(run_)
    return {
        "partition": str(manifest.partition),
        "rows": manifest.rows,
        **counts,
        **lag,
        "unchanged": planned["unchanged"],
        "withheld_by_plan": planned["withheld"],
        "skipped": "the provider's list, reading contacts back and the mirror: Mail Send keeps nothing at the provider",
    }


def mail_counts(book: MailBook) -> dict[str, int]:
    """Count a run's users by outcome, and the requests that were made of them."""
    found = {**dict.fromkeys(MAIL_OUTCOMES, 0), **book.outcomes()}
    return {**found, "requests": sum(request.state != "dropped" for request in _requests(book))}


def publish_receipts(lake: Lake, book: MailBook, metrics: Json) -> Manifest:
    """Publish the receipts of all requests as they are now; settled ones replace what was published before."""
    run_ = book.run
    digest, _, _ = book.ledger.plan(run_)
    plan = lake.manifest(Partition("chunks", run_.send_date, run_.campaign))
    files = [
        FileEntry(**request.receipt) for request in _requests(book) if request.state not in ("dropped", "intended")
    ]
    before = lake.find(Partition("receipts", run_.send_date, run_.campaign))
    kept = {name: value for name, value in (before.metrics if before else {}).items() if name not in metrics}
    return receipts_attempt(lake, run_, digest).publish(
        files, inputs=[plan], parameters={}, metrics={**kept, **metrics}
    )


def _requests(book: MailBook) -> list[Request]:
    _, chunks, _ = book.ledger.plan(book.run)
    return [request for chunk in chunks for request in book.of_chunk(chunk.chunk)]


def _give_up_unheard(delivery: Delivery, chunk: ChunkPlan) -> None:
    """What a closed chunk's last worker left intended is unknown: no other worker came after it."""
    digest, _, _ = delivery.ledger.plan(delivery.run)
    files = ReceiptFiles(receipts_attempt(delivery.lake, delivery.run, digest), chunk)
    for request in delivery.mails.of_chunk(chunk.chunk):
        if request.state == "intended":
            mark_unknown(delivery.mails, files, request)
