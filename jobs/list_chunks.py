"""List the chunks of the frozen plan, for whoever starts their pushes.

Reads:  the ledger
Writes: nothing
Run:    python -m jobs.list_chunks --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.timing import utc_now
from schemas.campaign import load_campaign


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    return parser


def main(*, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str) -> dict[str, Any]:
    """Return each chunk's number, users and the instant before which it must not start."""
    settings = load_campaign(campaign)
    _, chunks, start_at = Ledger(ledger, utc_now).plan(Run(settings.name, date))
    return {
        "rows": len(chunks),
        "chunks": [
            {
                "chunk": chunk.chunk,
                "users": chunk.users,
                "not_before": (start_at + dt.timedelta(seconds=chunk.offset_seconds)).isoformat(),
            }
            for chunk in chunks
        ],
    }


if __name__ == "__main__":
    run(main, arg_parser())
