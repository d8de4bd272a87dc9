"""How every job is run from a shell: options in, one JSON line out, one paragraph when something is wrong."""

import argparse
import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from schemas.errors import ConfigError, RymlError


def job_parser(doc: str | None, *, campaign: bool = False) -> argparse.ArgumentParser:
    """Start a job's options with those that every job has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the lake: a folder or s3://bucket/prefix")
    parser.add_argument("--date", required=True, type=dt.date.fromisoformat, help="UTC day of the events, YYYY-MM-DD")
    parser.add_argument("--run-id", required=True, help="names this run in the lake's paths")
    if campaign:
        parser.add_argument("--campaign", required=True, type=Path, help="the campaign's settings file (TOML)")
    return parser


def ledger_url(text: str) -> str:
    """Take a database URL, or `env:NAME` for one that holds a password: arguments are visible to everybody."""
    kind, _, name = text.partition(":")
    if kind != "env":
        return text
    try:
        return os.environ[name]
    except KeyError as error:
        raise ConfigError(f"environment variable {name} is not set; put the ledger's URL there") from error


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the delivery ledger."""
    text = "database URL of the ledger, e.g. sqlite:////var/ryml/ledger.db, or env:NAME of a variable that holds it"
    parser.add_argument("--ledger", required=True, type=ledger_url, help=text)


def run(main: Callable[..., Mapping[str, Any]], parser: argparse.ArgumentParser) -> NoReturn:
    """Run a job's main with the options given and leave with its exit status.

    What ryml foresaw ends with its message and its exit status; anything else keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        result = main(**vars(parser.parse_args()))  # an option's own ConfigError is raised in here as well
    except RymlError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_status)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0)
