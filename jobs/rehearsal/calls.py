"""What a handler of the rehearsal provider's API is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.rehearsal.intake import parse_json


@dataclass(frozen=True)
class Call:
    """One request: what a handler may know of it."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    url: str
    host: str  # scheme and host that the client used
    now: datetime
    digest: str  # of the body

    def json(self) -> Any:
        """Read the body; raises ApiError 400 if it is not JSON in UTF-8."""
        return parse_json(self.body)


@dataclass(frozen=True)
class Answer:
    """A status and a JSON body (None: no body)."""

    status: int
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Answer]
