"""Push one chunk: render its contacts with the catalog as it is now, send them, wait until the provider has them.

Of a campaign of Mail Send (`push.method`): render its mails, and hand them over to the run's batch, which waits.

Reads:  chunks and users of the date, the newest catalog, recent_events if the campaign asks for them, the ledger
Writes: contacts, or mails that wait, at the provider; the chunk's receipts (published by reconcile_push); the ledger
Run:    python -m jobs.push_chunk --lake LAKE --date 2026-11-02 --run-id by-hand --chunk 0 \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.chunk_reader import ChunkReader, Reading
from jobs.delivery.chunk_sheet import ProviderFields, make_sheet
from jobs.delivery.engine import Pusher
from jobs.delivery.ledger import Claim
from jobs.delivery.provider_calls import LEASE_SECONDS, ProviderCalls
from jobs.delivery.push_mails import push_mails
from jobs.delivery.receipt_files import ReceiptFiles, receipts_attempt
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.delivery.run_list import ensure_run_list
from schemas.mail_fields import all_fields, own_field
from schemas.tables import MAIL_OUTCOMES, RECEIPT_OUTCOMES

LAG = "exclusion_lag_seconds"  # from when the lists knew what users did to when they were rendered
_LOOK_SECONDS = 0.5  # between two looks at whether another worker lives


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--chunk", required=True, type=int, help="the chunk's number in the plan")
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress, chunk: int
) -> dict[str, Any]:
    """Push the chunk unless it is done already; return its counts."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return push_chunk(delivery, chunk)


def push_chunk(delivery: Delivery, chunk: int) -> dict[str, Any]:
    """Push one chunk; return its counts.

    Raises: GateError if another worker took the chunk over, or the ledger is older than the provider's state.
    """
    reader = ChunkReader(delivery, chunk)
    claim = take_chunk(delivery, chunk, reader.read_ahead)
    if not claim.is_done:
        try:
            claim = _push(delivery, claim, reader)
        except Exception:
            delivery.ledger.release(delivery.run, claim)
            raise
    return {"chunk": chunk, "rows": claim.plan.users, "state": claim.state, **claim.counts}


def take_chunk(delivery: Delivery, chunk: int, meanwhile: Callable[[], None] = lambda: None) -> Claim:
    """Claim a chunk as soon as no living worker has it; what is to be done while it waits is done once, `meanwhile`.

    A worker lives as long as its signs of life go on, whatever any clock says: five seconds without one, and it is
    replaced. Should it wake up, it finds its epoch gone.
    """
    ledger, run_, timing = delivery.ledger, delivery.run, delivery.timing
    waits = iter([meanwhile])
    while True:
        seen, since = ledger.holder(run_, chunk), timing.monotonic()
        # However long this takes, the chunk is claimed only as it was seen before it.
        if seen.state == "in_flight" and (work := next(waits, None)):
            work()
        while seen.state == "in_flight" and timing.monotonic() - since < LEASE_SECONDS:
            timing.sleep(_LOOK_SECONDS)
            now = ledger.holder(run_, chunk)
            if now != seen:
                seen, since = now, timing.monotonic()
        claim = ledger.claim(run_, chunk, seen)
        if claim is not None:
            return claim


def _push(delivery: Delivery, claim: Claim, reader: ChunkReader) -> Claim:
    """Push a claimed chunk to its end and close it."""
    reading = reader.read(claim)
    calls = delivery.calls(claim)
    files = ReceiptFiles(receipts_attempt(delivery.lake, delivery.run, reading.plan_digest), claim.plan)
    push = push_mails if delivery.ledger.method(delivery.run) == "mail_send" else _push_contacts
    is_done, counts = push(delivery, claim, reading, calls, files)
    outcomes = (*RECEIPT_OUTCOMES, *MAIL_OUTCOMES)
    counts["expired"] = claim.plan.users - sum(counts.get(outcome, 0) for outcome in dict.fromkeys(outcomes))
    counts[LAG] = round((reading.read_at - reading.known_until).total_seconds())
    state = "confirmed" if is_done else "expired"
    delivery.ledger.close_chunk(delivery.run, claim, state, counts)
    return Claim(claim.plan, claim.epoch, state, counts)


def _push_contacts(
    delivery: Delivery, claim: Claim, reading: Reading, calls: ProviderCalls, files: ReceiptFiles
) -> tuple[bool, dict[str, int]]:
    """Write what is open of a chunk into contacts; say whether all of it is confirmed, and count users by outcome."""
    method = delivery.ledger.method(delivery.run)
    fields = _provider_fields(delivery, calls, is_by_file=method == "csv_import")
    sheet = make_sheet(delivery, claim, reading, fields, ensure_run_list(delivery))
    pusher = Pusher(
        delivery.provider,
        delivery.book,
        claim,
        calls,
        files,
        delivery.campaign.push.requests_per_second,
        method,
    )
    return pusher.push(sheet), pusher.counts()


def _provider_fields(delivery: Delivery, calls: ProviderCalls, *, is_by_file: bool) -> ProviderFields:
    """Ask for the ids of the campaign's fields; what is missing is made."""
    slots, prefix = delivery.campaign.slots, delivery.campaign.mail.field_prefix
    own_names = {name: own_field(name, prefix) for name in all_fields(slots)}
    ids = calls.repeat(lambda: delivery.provider.ensure_fields(list(own_names.values())))
    email_id = calls.repeat(delivery.provider.email_field) if is_by_file else None
    return ProviderFields({name: ids[own_name] for name, own_name in own_names.items()}, own_names, email_id)


if __name__ == "__main__":
    run(main, arg_parser())
