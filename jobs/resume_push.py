"""Push what is open of a date's plan, each chunk at its place on the ramp, and balance the books; send nothing.

Reads:  chunks and users of the date, the newest catalog, the ledger
Writes: contacts at the provider; receipts and mirror; the ledger
Run:    python -m jobs.resume_push --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.run_context import Delivery, ProviderAddress, delivery_parser
from jobs.reconcile_push import reconcile


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return delivery_parser(__doc__)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress
) -> dict[str, Any]:
    """Push and reconcile; return the counts."""
    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return resume_push(delivery)


def resume_push(delivery: Delivery) -> dict[str, Any]:
    """Push every open chunk, then reconcile."""
    _, chunks, start_at = delivery.ledger.plan(delivery.run)
    for chunk in chunks:
        due_at = start_at + dt.timedelta(seconds=chunk.offset_seconds)
        delivery.timing.sleep(max(0.0, (due_at - delivery.timing.clock()).total_seconds()))
        push_chunk(delivery, chunk.chunk)
    return reconcile(delivery)


if __name__ == "__main__":
    run(main, arg_parser())
