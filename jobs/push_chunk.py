"""Push one chunk: render its contacts with the catalog as it is now, send them, wait until the provider has them.

Of a campaign of Mail Send (`push.method`): render its mails, and hand them over to the run's batch, which waits.

Reads:  chunks and users of the date, the newest catalog, recent_events if the campaign asks for them, the ledger
Writes: contacts, or mails that wait, at the provider; the chunk's receipts (published by reconcile_push); the ledger
Run:    python -m jobs.push_chunk --lake LAKE --date 2026-11-02 --run-id by-hand --chunk 0 \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import run
from jobs.delivery.chunk_lease import first_sight
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.provider_address import ProviderAddress, delivery_parser
from jobs.delivery.timing import REAL_TIME, utc_now


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = delivery_parser(__doc__)
    parser.add_argument("--chunk", required=True, type=int, help="the chunk's number in the plan")
    return parser


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, provider: ProviderAddress, chunk: int
) -> dict[str, Any]:
    """Push the chunk unless it is done already; return its counts."""
    # A campaign is named by its file. What reads, renders and sends takes seconds to load: the lease of a worker that
    # died is counted from before that.
    seen = first_sight(Ledger(ledger, utc_now), Run(campaign.stem, date), chunk, REAL_TIME)
    from jobs.delivery.chunk_push import push_chunk
    from jobs.delivery.run_context import Delivery

    delivery = Delivery.open(lake=lake, date=date, run_id=run_id, campaign=campaign, ledger=ledger, provider=provider)
    return push_chunk(delivery, chunk, seen)


if __name__ == "__main__":
    run(main, arg_parser())
