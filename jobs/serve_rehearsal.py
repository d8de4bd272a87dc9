"""Serve the rehearsal provider: SendGrid's API for this machine alone, and a mailbox page.

Reads:  the key file (what clients send as their API key)
Writes: the state file and the history beside it
Run:    python -m jobs.serve_rehearsal --port 8085 --state rehearsal.sqlite --key-file rehearsal.key
"""

import argparse
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvicorn
from pydantic import ValidationError

from jobs.command_line import run
from jobs.rehearsal.faults import FaultSettings, rehearsed_faults
from jobs.rehearsal.server import create_app
from jobs.rehearsal.state import Rehearsal
from schemas.errors import ConfigError

HOST: Final = "127.0.0.1"  # and no option for another: the mailbox shows addresses to whoever asks
JOB_LAG_SECONDS: Final = 0.2
SHUTDOWN_SECONDS: Final = 1  # for requests under way; the worker's step is broken off


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8085, help="port on 127.0.0.1; 0 takes a free one (default 8085)")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file, made if it is not there")
    parser.add_argument("--key-file", type=Path, required=True, help="file that holds the API key to accept")
    parser.add_argument(
        "--job-lag-seconds",
        type=float,
        default=JOB_LAG_SECONDS,
        help=f"from accepting an upsert to applying it (default {JOB_LAG_SECONDS})",
    )
    parser.add_argument(
        "--requests-per-minute",
        type=int,
        default=None,
        help="limit per endpoint, answered with 429 and X-RateLimit headers (default: no limit)",
    )
    parser.add_argument(
        "--faults",
        default=None,
        help="a seed: everything that can go wrong does, as that seed decides; or JSON with rates (default: no faults)",
    )
    return parser


def main(
    *,
    port: int,
    state: Path,
    key_file: Path,
    job_lag_seconds: float,
    requests_per_minute: int | None,
    faults: str | None = None,
) -> Mapping[str, Any]:
    """Serve until SIGTERM or SIGINT; return where it was served."""
    if job_lag_seconds < 0:
        raise ConfigError(f"--job-lag-seconds {job_lag_seconds}: expected 0 or more")
    api_key = _read_key(key_file)
    with _listen(port) as listener:
        provider = Rehearsal(state, job_lag_seconds=job_lag_seconds, faults=_read_faults(faults))
        app = create_app(provider, api_key=api_key, limit_per_minute=requests_per_minute)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # query strings may hold addresses; /history says what was asked
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            http=app.state.connections.protocol(),
            ws="none",
            lifespan="on",
        )
        served_port = listener.getsockname()[1]
        uvicorn.Server(config).run(sockets=[listener])
    return {"host": f"http://{HOST}:{served_port}"}


def _read_faults(faults: str | None) -> FaultSettings:
    """Read settings: a seed stands for the faults of a bad night, anything else is JSON of FaultSettings."""
    if faults is None:
        return FaultSettings()
    if faults.isascii() and faults.isdigit():
        return rehearsed_faults(int(faults))
    try:
        return FaultSettings.model_validate_json(faults)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"--faults: {found}; expected a seed (digits), or JSON of the rates to set") from error


def _read_key(key_file: Path) -> str:
    try:
        api_key = key_file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{key_file}: the key file cannot be read ({error.strerror}); make one with any text"
        ) from error
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise ConfigError(f"{key_file}: expected one line of printable ASCII; write the key that clients will send")
    return api_key


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"port {port} of {HOST} cannot be used ({error}); stop what listens there, or choose another --port"
        ) from error
    return listener


if __name__ == "__main__":
    run(main, arg_parser())
