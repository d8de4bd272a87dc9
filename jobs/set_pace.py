"""Let a push go on at another rate, while it is under way: its workers take it up at their next request.

Reads:  the ledger
Writes: the ledger
Run:    python -m jobs.set_pace --lake LAKE --date 2026-11-02 --run-id by-hand --requests-per-second 0.5 \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any, Final

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery import shared_pace
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.timing import utc_now
from schemas.campaign import load_campaign

AS_CAMPAIGN: Final = "campaign"
# One request in 100 s is far below the five minutes that a reservation may lie ahead; less is a case for cancel_send.
BOUNDS: Final = (0.01, 10_000.0)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    parser.add_argument(
        "--requests-per-second",
        required=True,
        type=rate,
        metavar="RATE",
        help=f"from {BOUNDS[0]} to {BOUNDS[1]:,.0f}, for all workers together; {AS_CAMPAIGN}: the campaign's own",
    )
    return parser


def rate(text: str) -> float | None:
    """Read the option; None is the campaign's own rate."""
    if text == AS_CAMPAIGN:
        return None
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not BOUNDS[0] <= found <= BOUNDS[1]:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected a number from {BOUNDS[0]} to {BOUNDS[1]:,.0f}, or {AS_CAMPAIGN}"
        )
    return found


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, ledger: str, requests_per_second: float | None
) -> dict[str, Any]:
    """Set the rate; return how the pace stands."""
    settings = load_campaign(campaign)
    return set_pace(Ledger(ledger, utc_now), Run(settings.name, date), requests_per_second)


def set_pace(ledger: Ledger, run_: Run, requests_per_second: float | None) -> dict[str, Any]:
    """Set a run's rate. The provider's own limit is kept whatever it is.

    Raises: GateError if the run was never planned.
    """
    ledger.plan(run_)
    with ledger.writing() as connection:
        shared_pace.set_rate(connection, ledger, run_, requests_per_second)
        return {"rows": 0, **shared_pace.describe(connection, run_)}


if __name__ == "__main__":
    run(main, arg_parser())
