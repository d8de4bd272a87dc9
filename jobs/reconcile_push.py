"""Close the books on a push: every chunk confirmed, every user accounted for, the provider's list as long as ours.

Of a campaign of Mail Send there is no list and no mirror: every user is in one outcome, and the batch is on hold.

Reads:  the ledger, the chunks' receipts, the mirror before the date, the provider's list
Writes: receipts and mirror of the campaign and date; opens the barrier in the ledger
Run:    python -m jobs.reconcile_push --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.chunk_push import LAG
from jobs.delivery.ledger import ChunkPlan
from jobs.delivery.people_book import withdrawn
from jobs.delivery.read_back import check_sample
from jobs.delivery.receipt_files import receipts_attempt
from jobs.delivery.reconcile_mails import reconcile_mails
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.delivery.run_list import ensure_run_list
from jobs.lake.lake import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.plan_push import MIRROR_DAYS
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import MIRROR, RECEIPT_OUTCOMES

# The provider's counts are eventually consistent; how long that takes is not documented.
_LIST_WAIT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return delivery_parser(__doc__)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress
) -> dict[str, Any]:
    """Reconcile; return users by what became of them and the number of requests.

    Raises: GateError if a chunk is open, the counts do not balance, or the provider's list differs.
    """
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return reconcile(delivery)


def reconcile(delivery: Delivery) -> dict[str, Any]:
    """Balance the books of a push, publish receipts and mirror, and open the barrier; return the counts."""
    lake, run_ = delivery.lake, delivery.run
    digest, _, _ = delivery.ledger.plan(run_)
    if delivery.ledger.method(delivery.run) == "mail_send":
        return reconcile_mails(delivery, exclusion_lag(delivery.ledger.chunk_counts(run_)))
    files: list[FileEntry] = []
    counts: Counter[str] = Counter(dict.fromkeys((*RECEIPT_OUTCOMES, "expired", "requests"), 0))
    for chunk, state, receipts, chunk_counts in delivery.ledger.receipts(run_):
        _check_chunk(chunk, state, chunk_counts)
        files += [FileEntry(**receipt) for receipt in receipts]
        counts.update(chunk_counts)
        counts["expired"] += chunk.users - sum(chunk_counts.get(outcome, 0) for outcome in RECEIPT_OUTCOMES)
    planned = delivery.ledger.plan_counts(run_)
    _check_balance(planned, counts)
    _check_list(delivery, counts["delivered"])

    plan = lake.manifest(Partition("chunks", run_.send_date, run_.campaign))
    lag = exclusion_lag(delivery.ledger.chunk_counts(run_))
    manifest = receipts_attempt(lake, run_, digest).publish(
        files, inputs=[plan], parameters={}, metrics={**counts, **lag}
    )
    # Once the books were closed the contacts may hold what a later date wrote; the barrier needs the look but once.
    looked_at = 0 if delivery.ledger.is_reconciled(run_) else check_sample(delivery, manifest)
    mirror = publish_mirror(lake, plan, manifest, delivery.run_id)
    delivery.ledger.mark_reconciled(run_)
    return {
        "partition": str(manifest.partition),
        "rows": manifest.rows,
        **counts,
        **lag,
        "unchanged": planned["unchanged"],
        "withheld": planned["withheld"],
        "contacts_held": mirror.rows,
        "contacts_read_back": looked_at,
    }


def exclusion_lag(chunks: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Say how old the knowledge was that items were ruled out by, when the lists were rendered.

    Median and 99th percentile over those who get items; nothing if nobody does.

    What a user did in the last so many seconds before the push is not known to their list.
    """
    lags = np.array([counts[LAG] for counts in chunks if LAG in counts], np.int64)
    users = np.array([counts["delivered"] for counts in chunks if LAG in counts], np.int64)
    order = np.argsort(lags)
    reached = np.cumsum(users[order])
    if not len(reached) or not reached[-1]:
        return {}
    places = {name: np.searchsorted(reached, share * reached[-1]) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {f"exclusion_lag_{name}_seconds": int(lags[order][place]) for name, place in places.items()}


def publish_mirror(lake: Lake, plan: Manifest, receipts: Manifest, run_id: str) -> Manifest:
    """Carry the confirmed receipts into what the provider is known to hold, and leave out who was erased.

    Raises: GateError if a user has two receipts.
    """
    date, campaign = receipts.partition.date, receipts.partition.campaign
    before = lake.latest("mirror", up_to=date - dt.timedelta(days=1), campaign=campaign, days=MIRROR_DAYS)
    attempt = lake.attempt(Partition("mirror", date, campaign), run_id)
    files = []
    for bucket in range(lake.buckets):
        held = lake.read(before, bucket=bucket) if before else MIRROR.schema.empty_table()
        written = lake.read(receipts, bucket=bucket)
        if pc.count_distinct(written["user_id"]).as_py() != len(written):
            raise GateError(
                f"{receipts.partition} bucket {bucket} has two receipts for a user; nothing is sent. See its requests"
            )
        planned = lake.read(plan, bucket=bucket, columns=["user_id", "part", "reason"])
        gone = planned.filter(pc.equal(planned["reason"], "erased"))["user_id"].combine_chunks()
        held = held.filter(pc.invert(pc.is_in(held["user_id"], value_set=gone)))
        pushed = planned.filter(pc.greater_equal(planned["part"], 0))["user_id"]
        files.append(attempt.write(mirror_bucket(held, written, pushed, date), bucket=bucket))
    inputs: Iterable[Manifest] = [receipts, *([before] if before else [])]
    return attempt.publish(files, inputs=inputs, parameters={})


def mirror_bucket(held: pa.Table, receipts: pa.Table, pushed: pa.ChunkedArray, date: dt.date) -> pa.Table:
    """Replace what receipts say was written, and keep the rest.

    Of users who were pushed without a receipt, or refused, it is not known what they hold: their content is forgotten,
    so that the next push writes it whole.
    Grain: one row per user, in byte order of the user id.
    """
    written = receipts.filter(pc.not_equal(receipts["outcome"], "quarantined"))
    stays = held.filter(pc.invert(pc.is_in(held["user_id"], value_set=written["user_id"].combine_chunks())))
    is_unsure = pc.is_in(stays["user_id"], value_set=pushed.combine_chunks())
    content = pc.if_else(is_unsure, pa.scalar(None, pa.int64()), stays["content"])
    stays = stays.set_column(stays.schema.get_field_index("content"), MIRROR.schema.field("content"), content)
    new = pa.table(
        {
            "user_id": written["user_id"],
            "item": written["item"],
            "send_date": pa.array(np.full(len(written), date), pa.date32()),
            "content": written["content"],
        },
        schema=MIRROR.schema,
    )
    return pa.concat_tables([stays, new]).sort_by("user_id")


def _check_chunk(chunk: ChunkPlan, state: str, counts: Mapping[str, int]) -> None:
    """A confirmed chunk has a receipt for each of its rows, an expired one for no more than these."""
    done = sum(counts.get(outcome, 0) for outcome in RECEIPT_OUTCOMES)
    if done > chunk.users or (state == "confirmed" and done < chunk.users):
        raise GateError(
            f"chunk {chunk.chunk} is {state} and has {chunk.users} users, its receipts say {done}; nothing is sent. "
            "Compare its receipts with the plan"
        )


def _check_balance(planned: dict[str, int], counts: Counter[str]) -> None:
    """Every planned upsert or clear was delivered, cleared, quarantined or expired: nobody was lost or added."""
    pushed = planned["upsert"] + planned["clear"]
    done = sum(counts[outcome] for outcome in (*RECEIPT_OUTCOMES, "expired"))
    if pushed != done:
        raise GateError(
            f"the plan pushes {pushed} users, the receipts say {done} ({dict(counts)}); nothing is sent. "
            "Compare the chunks' receipts with the plan"
        )


def _check_list(delivery: Delivery, delivered: int) -> None:
    """The list that will be mailed holds exactly those who were delivered.

    Requests that never got an answer, in a push that its deadline ended, may have brought more: these have their own
    items of this date as well. Run again after the send was scheduled, it lacks those who were taken off right before.
    """
    left = sum(withdrawn(delivery.ledger, delivery.run).values())
    list_id, unheard = ensure_run_list(delivery), delivery.book.unknown_contacts()
    calls, size = delivery.calls(), -1
    for wait_seconds in (0.0, *_LIST_WAIT_SECONDS):
        calls.wait(wait_seconds)
        size = calls.repeat(lambda: delivery.provider.list_size(list_id))
        if delivered - left <= size <= delivered + unheard:
            return
    raise GateError(
        f"the provider's list for {delivery.run.send_date} holds {size} contacts, {delivered} were delivered; nothing "
        "is sent. Look at the list at the provider, then run reconcile_push again"
    )


if __name__ == "__main__":
    run(main, arg_parser())
