"""What the parts of the SendGrid client have in common: the wire that `sendgrid_client` gives them, and its JSON."""

import json
from collections.abc import Iterator
from typing import Any, Final, Protocol

from schemas.errors import RetryableMailError

PAGES: Final = 100_000  # a paging that never ends is a fault: 50 million suppressions are 100,000 pages


class Wire(Protocol):
    """Makes requests; see `sendgrid_client`."""

    def _call(self, method: str, *path: str, query: dict[str, Any] | None = None, body: bytes | None = None) -> Any: ...

    def _get(self, *path: str) -> Any: ...

    def _post(self, content: Any, *path: str) -> Any: ...

    def _pages(self, method: str, content: Any, size: int, *path: str) -> Iterator[dict[str, Any]]: ...


def given(answer: Any, name: str) -> Any:
    """Read what a successful answer has to hold."""
    if not isinstance(answer, dict) or name not in answer:
        raise RetryableMailError(
            f"the provider answered without {name}; whether it acted on the request is unknown. Look at its status"
        )
    return answer[name]


def as_json(content: Any) -> bytes:
    """Write JSON as it goes out: compact, in UTF-8."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
