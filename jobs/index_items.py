"""Give every item of the day a place in the item index.

Reads:  events and catalog of the date, item_index
Writes: item_index
Run:    python -m jobs.index_items --lake LAKE --date 2026-11-02 --run-id by-hand
"""

import argparse
import datetime as dt
from typing import Any

from jobs.command_line import job_parser, run
from jobs.lake.item_index import append_items
from jobs.lake.lake import Lake
from jobs.lake.summary import summarise
from schemas.layout import Partition


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__)


def main(*, lake: str, date: dt.date, run_id: str) -> dict[str, Any]:
    """Append the date's unknown items; return the index's size and how many were new."""
    opened = Lake.open(lake)
    tables = (opened.manifest(Partition(name, date)) for name in ("events", "catalog"))
    ids = [opened.read(manifest, columns=["item_id"])["item_id"] for manifest in tables]
    return summarise(append_items(opened, ids, run_id))


if __name__ == "__main__":
    run(main, arg_parser())
