"""Hold published partitions against their expectation suites, and stop the night if one does not fit.

Reads:  the partitions named
Writes: nothing
Run:    python -m jobs.check_tables --lake LAKE --date 2026-11-02 --run-id by-hand --tables events catalog users
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from jobs.command_line import job_parser, run
from jobs.lake.lake import Lake
from schemas.campaign import load_campaign
from schemas.layout import Partition
from schemas.tables import TABLES

CHECKED = ("events", "catalog", "users", "correlations", "recommendations")


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__)
    parser.add_argument("--tables", nargs="+", required=True, choices=CHECKED, help="tables to check")
    parser.add_argument("--campaign", type=Path, help="the campaign's settings file, for tables kept by campaign")
    return parser


def main(*, lake: str, date: dt.date, run_id: str, tables: list[str], campaign: Path | None = None) -> dict[str, Any]:
    """Check each table; return the number of expectations held and of rows looked at.

    Raises: GateError at the first table that does not fit.
    """
    # Imported late: Great Expectations takes seconds.
    from jobs.quality.gates import validate

    opened = Lake.open(lake)
    name = load_campaign(campaign).name if campaign else None
    rows = expectations = 0
    for table in tables:
        partition = Partition(table, date, name if TABLES[table].per_campaign else None)
        content = opened.read(opened.manifest(partition))
        expectations += validate(table, content)["expectations"]
        rows += len(content)
    return {"rows": rows, "expectations": expectations, "tables": ", ".join(tables)}


if __name__ == "__main__":
    run(main, arg_parser())
