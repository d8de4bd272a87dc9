"""The provider's events as they were posted: files with the body of one post each, or with one event a line.

Who receives the posts verifies their signature and writes each body into a file; ryml opens no port of its own. Events
come twice, late and in any order: what is read here is only which tokens occur.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.delivery.mail_bodies import REQUEST_ARGUMENT, RUN_ARGUMENT
from schemas.errors import ConfigError

# A post has 768 kB at most (SendGrid); a file of many lines is read line by line, and a body is one line.
LINE_BYTES: Final = 16_000_000
# Each says that the mail was taken over. Opens and clicks do so as well, but a machine's may come from anywhere.
_TAKEN: Final = frozenset({"processed", "dropped", "deferred", "delivered", "bounce"})


@dataclass
class Heard:
    """What events say of one run: the tokens of the requests that they name, and how much could not be read."""

    requests: set[str] = field(default_factory=set)
    events: int = 0
    unreadable: int = 0


def read_events(paths: Iterable[Path], run_token: str) -> Heard:
    """Go through event files (folders: all files in them) and note which requests of the run they name.

    Memory: one line, and a token for each request.
    Raises: ConfigError if a path is not there.
    """
    heard = Heard()
    for path in _files(paths):
        for entries in _entries(path):
            if entries is None:
                heard.unreadable += 1
                continue
            for event in entries:
                if not isinstance(event, dict):
                    heard.unreadable += 1
                elif event.get(RUN_ARGUMENT) == run_token and event.get("event") in _TAKEN:
                    heard.events += 1
                    heard.requests.add(str(event.get(REQUEST_ARGUMENT)))
    return heard


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"events {path}: expected a file or a folder of the provider's posts; give its path")


def _entries(path: Path) -> Iterator[list[Any] | None]:
    """Give the events of a file in lists; None for what cannot be read."""
    with path.open("rb") as file:
        whole = file.read(LINE_BYTES)
        if len(whole) < LINE_BYTES and whole.lstrip()[:1] == b"[":  # a post's body: lines of an array
            yield _parsed(whole)
            return
        file.seek(0)
        while line := file.readline(LINE_BYTES):
            if line.strip():
                yield _parsed(line)


def _parsed(text: bytes) -> list[Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else [found]
