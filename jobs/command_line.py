"""How every job is run from a shell: options in, one JSON line out, one paragraph when something is wrong."""

import argparse
import datetime as dt
import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from schemas.errors import RymlError


def job_parser(doc: str | None, *, campaign: bool = False) -> argparse.ArgumentParser:
    """Start a job's options with those that every job has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the lake: a folder or s3://bucket/prefix")
    parser.add_argument("--date", required=True, type=dt.date.fromisoformat, help="UTC day of the events, YYYY-MM-DD")
    parser.add_argument("--run-id", required=True, help="names this run in the lake's paths")
    if campaign:
        parser.add_argument("--campaign", required=True, help="the campaign's settings file (TOML)")
    return parser


def run(main: Callable[..., Mapping[str, Any]], parser: argparse.ArgumentParser) -> NoReturn:
    """Run a job's main with the options given and leave with its exit status.

    What ryml foresaw ends with its message and its exit status; anything else keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        result = main(**vars(parser.parse_args()))
    except RymlError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_status)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0)
