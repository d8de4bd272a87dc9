"""Push one chunk: render its contacts with the catalog as it is now, send them, wait until the provider has them.

Reads:  chunks and users of the date, the newest catalog, the ledger
Writes: contacts at the provider; the chunk's receipts (published by reconcile_push); the ledger
Run:    python -m jobs.push_chunk --lake LAKE --date 2026-11-02 --run-id by-hand --chunk 0 \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import dataclasses
import datetime as dt
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.command_line import run
from jobs.delivery.addresses import UID_KEY
from jobs.delivery.chunk_rows import ChunkRows, read_chunk
from jobs.delivery.engine import Pace, Pusher, retrying
from jobs.delivery.ledger import Claim
from jobs.delivery.payload import Body, cut_bodies, render_contacts, slot_fragments
from jobs.delivery.run_context import Delivery, ProviderAddress, clock, delivery_parser
from jobs.lake.buckets import keyed_hash
from jobs.lake.lake import Attempt
from jobs.lake.list_columns import list_column
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.mail_fields import all_fields, own_field
from schemas.tables import RECEIPTS


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--chunk", required=True, type=int, help="the chunk's number in the plan")
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress, chunk: int
) -> dict[str, Any]:
    """Push the chunk unless it is confirmed already; return its counts."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    claim = delivery.ledger.claim(delivery.run, chunk)
    if claim.is_confirmed:
        return {"chunk": chunk, "rows": claim.plan.users, **claim.counts}
    plan = delivery.lake.manifest(Partition("chunks", date, delivery.campaign.name))
    digest, _, _ = delivery.ledger.plan(delivery.run)
    if plan.content_sha256 != digest:
        raise GateError(f"{plan.partition} is not the plan that the ledger froze; nothing was pushed. Restore it")
    users = delivery.lake.manifest(Partition("users", date))
    rows = read_chunk(
        delivery.lake, plan, users, claim.plan, slots=delivery.campaign.slots, min_items=delivery.campaign.min_items
    )
    refused, requests = _push(delivery, claim, rows)
    outcome = np.where(rows.is_delivered, "delivered", "cleared").astype(object)
    outcome[refused] = "quarantined"
    entry = _write_receipts(delivery, claim, rows, outcome)
    counts = {name: int((outcome == name).sum()) for name in ("delivered", "cleared", "quarantined")}
    counts["requests"] = requests
    delivery.ledger.confirm_chunk(delivery.run, claim, dataclasses.asdict(entry), counts)
    return {"chunk": chunk, "rows": claim.plan.users, **counts}


def receipts_attempt(delivery: Delivery) -> Attempt:
    """The one folder that all chunks of a plan put their receipts into; named by the plan, so any worker finds it."""
    digest, _, _ = delivery.ledger.plan(delivery.run)
    partition = Partition("receipts", delivery.run.send_date, delivery.campaign.name)
    return Attempt(delivery.lake, partition, run_id=f"plan-{digest[:12]}", name="push")


def _push(delivery: Delivery, claim: Claim, rows: ChunkRows) -> tuple[npt.NDArray[np.int64], int]:
    """Send the chunk's rows; return the positions of those that the provider refused, and the number of requests."""
    provider, settings, slots = delivery.provider, delivery.campaign, delivery.campaign.slots
    own_names = {name: own_field(name, settings.mail.field_prefix) for name in all_fields(slots)}
    for attempt in retrying(time.sleep):
        with attempt:
            ids = provider.ensure_fields(list(own_names.values()))
            list_id = provider.ensure_list(settings.send_name(delivery.run.send_date))
    field_ids = {name: ids[own_name] for name, own_name in own_names.items()}
    contacts = render_contacts(
        emails=rows.emails,
        uids=keyed_hash(_user_and_address(rows), delivery.ledger.key(UID_KEY)),
        slot_rows=rows.slot_rows,
        counts=rows.counts,
        fragments=slot_fragments(rows.catalog, slots, field_ids),
        field_ids=field_ids,
        run=delivery.run.send_date.isoformat(),
    )
    pace = Pace(settings.push.requests_per_second, clock, time.sleep)
    pusher = Pusher(provider, delivery.ledger, delivery.run, claim, pace, clock, time.sleep)
    bodies: list[Body] = []
    positions: list[npt.NDArray[np.int64]] = []
    # Only those who get items join the list that is mailed; the cleared are written without it.
    for chosen, lists in ((rows.is_delivered, [list_id]), (~rows.is_delivered, [])):
        where = np.flatnonzero(chosen)
        for body in cut_bodies(contacts.take(pa.array(where)), lists):
            bodies.append(body)
            positions.append(where[body.start : body.stop])
    refused = pusher.push(bodies)
    lost = [
        position
        for number, addresses in refused.items()
        for position in positions[number].tolist()
        if rows.emails[position].as_py() in addresses
    ]
    return np.array(lost, np.int64), len(bodies)


def _user_and_address(rows: ChunkRows) -> pa.StringArray:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(rows.user_ids, rows.emails, "\n")


def _write_receipts(delivery: Delivery, claim: Claim, rows: ChunkRows, outcome: npt.NDArray[Any]) -> Any:
    table = pa.table(
        {
            "user_id": rows.user_ids,
            "chunk": pa.array(np.full(len(outcome), claim.plan.chunk), pa.int32()),
            "item": list_column(RECEIPTS, "item", rows.items, rows.counts),
            "outcome": pa.array(outcome, pa.string()),
        },
        schema=RECEIPTS.schema,
    )
    name = f"part-{claim.plan.chunk:05d}-{claim.epoch:03d}.parquet"
    with receipts_attempt(delivery).writer(bucket=claim.plan.bucket, name=name) as writer:
        writer.write(table)
    return writer.entry


if __name__ == "__main__":
    run(main, arg_parser())
