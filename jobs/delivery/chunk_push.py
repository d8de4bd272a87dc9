"""Push one chunk of a plan, whichever way it reaches the provider: claim it, send what is open of it, close it."""

from typing import Any

from jobs.delivery.chunk_lease import Sight, take_chunk
from jobs.delivery.chunk_reader import ChunkReader, Reading
from jobs.delivery.chunk_sheet import ProviderFields, make_sheet
from jobs.delivery.engine import Pusher
from jobs.delivery.ledger import Claim
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.push_mails import push_mails
from jobs.delivery.receipt_files import ReceiptFiles, receipts_attempt
from jobs.delivery.run_context import Delivery
from jobs.delivery.run_list import ensure_run_list
from schemas.mail_fields import all_fields, own_field
from schemas.tables import MAIL_OUTCOMES, RECEIPT_OUTCOMES

LAG = "exclusion_lag_seconds"  # from when the lists knew what users did to when they were rendered


def push_chunk(delivery: Delivery, chunk: int, seen: Sight | None = None) -> dict[str, Any]:
    """Push one chunk; return its counts. `seen` is what this process saw of it earlier.

    Raises: GateError if another worker took the chunk over, or the ledger is older than the provider's state.
    """
    reader = ChunkReader(delivery, chunk)
    claim = take_chunk(delivery.ledger, delivery.run, chunk, delivery.timing, meanwhile=reader.read_ahead, seen=seen)
    if not claim.is_done:
        try:
            claim = _push(delivery, claim, reader)
        except Exception:
            delivery.ledger.release(delivery.run, claim)
            raise
    return {"chunk": chunk, "rows": claim.plan.users, "state": claim.state, **claim.counts}


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
