"""Close the books on a push: every chunk confirmed, every user accounted for, the provider's list as long as ours.

Reads:  the ledger, the chunks' receipts, the mirror before the date, the provider's list
Writes: receipts and mirror of the campaign and date; opens the barrier in the ledger
Run:    python -m jobs.reconcile_push --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import run
from jobs.delivery.engine import Sleep
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.lake.lake import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.plan_push import MIRROR_DAYS
from jobs.push_chunk import receipts_attempt
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import MIRROR

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
    chunks = delivery.ledger.receipts(delivery.run)
    counts: Counter[str] = Counter()
    for _, _, chunk_counts in chunks:
        counts.update(chunk_counts)
    planned = delivery.ledger.plan_counts(delivery.run)
    _check_balance(planned, counts)
    _check_list(delivery, counts["delivered"], time.sleep)

    plan = delivery.lake.manifest(Partition("chunks", date, delivery.campaign.name))
    files = [FileEntry(**receipt) for _, receipt, _ in chunks]
    receipts = receipts_attempt(delivery).publish(files, inputs=[plan], parameters={}, metrics=dict(counts))
    mirror = publish_mirror(delivery.lake, receipts, run_id)
    delivery.ledger.mark_reconciled(delivery.run)
    return {
        "partition": str(receipts.partition),
        "rows": receipts.rows,
        "delivered": counts["delivered"],
        "cleared": counts["cleared"],
        "quarantined": counts["quarantined"],
        "unchanged": planned["unchanged"],
        "withheld": planned["withheld"],
        "requests": counts["requests"],
        "contacts_held": mirror.rows,
    }


def publish_mirror(lake: Lake, receipts: Manifest, run_id: str) -> Manifest:
    """Carry the confirmed receipts into what the provider is known to hold."""
    date, campaign = receipts.partition.date, receipts.partition.campaign
    before = lake.latest("mirror", up_to=date - dt.timedelta(days=1), campaign=campaign, days=MIRROR_DAYS)
    attempt = lake.attempt(Partition("mirror", date, campaign), run_id)
    files = []
    for bucket in range(lake.buckets):
        held = lake.read(before, bucket=bucket) if before else MIRROR.schema.empty_table()
        files.append(attempt.write(mirror_bucket(held, lake.read(receipts, bucket=bucket), date), bucket=bucket))
    inputs: Iterable[Manifest] = [receipts, *([before] if before else [])]
    return attempt.publish(files, inputs=inputs, parameters={})


def mirror_bucket(held: pa.Table, receipts: pa.Table, date: dt.date) -> pa.Table:
    """Replace what receipts say was written; keep the rest. What was refused is not known to have changed.

    Grain: one row per user, in byte order of the user id.
    """
    written = receipts.filter(pc.not_equal(receipts["outcome"], "quarantined"))
    stays = pc.invert(pc.is_in(held["user_id"], value_set=written["user_id"].combine_chunks()))
    new = pa.table(
        {
            "user_id": written["user_id"],
            "item": written["item"],
            "send_date": pa.array(np.full(len(written), date), pa.date32()),
        },
        schema=MIRROR.schema,
    )
    return pa.concat_tables([held.filter(stays), new]).sort_by("user_id")


def _check_balance(planned: dict[str, int], counts: Counter[str]) -> None:
    """Every planned upsert or clear was delivered, cleared or quarantined: nobody was lost, nobody was added."""
    pushed = planned["upsert"] + planned["clear"]
    done = counts["delivered"] + counts["cleared"] + counts["quarantined"]
    if pushed != done:
        raise GateError(
            f"the plan pushes {pushed} users, the receipts say {done} ({dict(counts)}); nothing is sent. "
            "Compare the chunks' receipts with the plan"
        )


def _check_list(delivery: Delivery, expected: int, sleep: Sleep) -> None:
    """The list that will be mailed holds exactly those who were delivered."""
    list_id = delivery.provider.ensure_list(delivery.campaign.send_name(delivery.run.send_date))
    for wait_seconds in _LIST_WAIT_SECONDS:
        size = delivery.provider.list_size(list_id)
        if size == expected:
            return
        sleep(wait_seconds)
    raise GateError(
        f"the provider's list for {delivery.run.send_date} holds {size} contacts, {expected} were delivered; nothing "
        "is sent. Look at the list at the provider, then run reconcile_push again"
    )


if __name__ == "__main__":
    run(main, arg_parser())
