"""Run: python -m ryml_airflow.stack up|preview|down (see `make run`, `make preview` and `make stop`)."""

import argparse
import datetime as dt
import os
import sys
from pathlib import Path
from typing import get_args

from ryml_airflow.stack.down import down
from ryml_airflow.stack.interruption import InterruptedBySignalError
from ryml_airflow.stack.preview import PreviewOptions, preview
from ryml_airflow.stack.terminal import Terminal
from ryml_airflow.stack.up import UpOptions, up
from schemas.errors import RymlError
from schemas.push_method import PushMethod

_METHODS: tuple[PushMethod, ...] = get_args(PushMethod)
_ROOT = Path(__file__).resolve().parents[3]


def arg_parser() -> argparse.ArgumentParser:
    """Describe both commands; an empty value counts as not given, which is what an unset make variable becomes."""
    parser = argparse.ArgumentParser(prog="ryml_airflow.stack", description=__doc__)
    parser.add_argument("--root", type=_folder, default=_ROOT, help="the checkout (default: the one that this is in)")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start everything, run the dates, stay up")
    start.add_argument("--source", default="", help="settings file of the source (default: the demo shop's)")
    start.add_argument("--data", default="", help="where the data is (default: what the settings file says)")
    start.add_argument("--users", type=_count, default=5000, help="size of the demo shop")
    start.add_argument("--date", type=_date, default=None, help="first date, YYYY-MM-DD (default: the source's)")
    start.add_argument("--days", type=_count, default=1, help="how many dates, one after the other")
    start.add_argument("--lake", default="", help="the lake: a folder or s3://bucket/prefix (default: a folder here)")
    start.add_argument("--api-port", type=int, default=8080, help="port of Airflow's UI and API (API_PORT)")
    start.add_argument("--rehearsal-port", type=int, default=8085, help="port of the provider (REHEARSAL_PORT)")
    start.add_argument(
        "--faults",
        type=_seed,
        default=None,
        help="seed of what goes wrong at the rehearsal provider (default: nothing)",
    )
    start.add_argument(
        "--method",
        type=_method,
        default=None,
        help=f"how all campaigns are pushed: {', '.join(_METHODS)} (default: as their files say)",
    )
    start.add_argument("--exit", action="store_true", help="leave after the batch, with status 0 if it succeeded")
    look = commands.add_parser("preview", help="write one user's mail into files")
    look.add_argument("--source", default="", help="settings file of the source (default: the demo shop's)")
    look.add_argument("--users", type=_count, default=5000, help="size of the demo shop")
    look.add_argument("--date", type=_date, default=None, help="date, YYYY-MM-DD (default: the source's)")
    look.add_argument("--lake", default="", help="the lake: a folder or s3://bucket/prefix (default: a folder here)")
    look.add_argument("--user", required=True, help="the user's id")
    look.add_argument("--out", type=Path, required=True, help="where the files go, without .html and .txt")
    commands.add_parser("down", help="stop what runs, or what a lost terminal left")
    return parser


def main(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Carry the command out; give the exit status."""
    root: Path = arguments.root
    try:
        if arguments.command == "down":
            terminal.line(down(root))
            return 0
        source = Path(arguments.source).absolute() if arguments.source else root / "docs/examples/demo_shop.toml"
        if arguments.command == "preview":
            options_of_preview = PreviewOptions(
                root=root,
                source=source,
                users=arguments.users,
                date=arguments.date,
                lake=_lake(arguments.lake),
                user=arguments.user,
                out=arguments.out.absolute(),
            )
            terminal.line(preview(options_of_preview))
            return 0
        options = UpOptions(
            root=root,
            source=source,
            data=arguments.data or None,
            users=arguments.users,
            date=arguments.date,
            days=arguments.days,
            api_port=arguments.api_port,
            rehearsal_port=arguments.rehearsal_port,
            leaves_after_batch=arguments.exit,
            lake=_lake(arguments.lake),
            fault_seed=arguments.faults,
            method=arguments.method,
        )
        return up(options, terminal=terminal, environ=os.environ)
    except RymlError as error:
        terminal.failure(str(error))
        return error.exit_status
    except OSError as error:
        terminal.failure(
            f"{error}; expected to read and write below {root / '.airflow'}. Check the free disk space and permissions."
        )
        return 1
    except InterruptedBySignalError as error:
        return error.exit_status


def _lake(text: str) -> str | None:
    if not text or "://" in text:
        return text or None
    return str(Path(text).expanduser().resolve())


def _folder(text: str) -> Path:
    return Path(text).resolve()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} given; expected a whole number, of which each is another bad night")
    return int(text)


def _method(text: str) -> PushMethod | None:
    for method in _METHODS:
        if text == method:
            return method
    if text:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected one of {', '.join(_METHODS)}")
    return None


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected a date like 2026-11-02") from error


if __name__ == "__main__":
    sys.exit(main(arg_parser().parse_args(), Terminal()))
