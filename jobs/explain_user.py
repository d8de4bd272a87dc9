"""Explain one user's list: what brought each item, and what kept every other candidate out.

It reads what the run itself was made from, with the settings that it was made with, so it is true for past days too; an
input that has expired or was made again is named.

Reads:  recommendations of the campaign and date, and the partitions that they were made from
Writes: nothing
Run:    python -m jobs.explain_user --lake LAKE --date 2026-11-02 --campaign resources_you_may_like --user 42
"""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Mapping
from typing import Any

from jobs.explain.explain import Explainer
from jobs.explain.explanation import Explanation
from jobs.lake.lake import Lake
from schemas.errors import RymlError


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the lake: a folder or s3://bucket/prefix")
    parser.add_argument("--date", required=True, type=dt.date.fromisoformat, help="UTC day of the events, YYYY-MM-DD")
    parser.add_argument("--campaign", required=True, help="the campaign's name")
    parser.add_argument("--user", required=True, help="the user's id in the shop")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of text")
    return parser


def main(*, lake: str, date: dt.date, campaign: str, user: str) -> Explanation:
    """Explain.

    Raises: EmptyPartitionError if there is no such list; StorageError if an input is not there as it was.
    """
    return Explainer.open(Lake.open(lake), campaign, date, user).explain(user)


def run(options: Mapping[str, Any]) -> int:
    """Write the explanation to the standard output, or why there is none to the standard error."""
    as_json = options["json"]
    try:
        found = main(**{name: value for name, value in options.items() if name != "json"})
    except RymlError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_status
    sys.stdout.write(json.dumps(found.as_json()) + "\n" if as_json else "".join(f"{line}\n" for line in found.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(run(vars(arg_parser().parse_args())))
