"""What the SDK's HTTP client is made to do: an opener of ours, and bodies that go out as they are and into no log."""

import urllib.request
from typing import Any

import python_http_client


class Transport(python_http_client.Client):  # type: ignore[misc]
    """The SDK's HTTP client with an opener of ours."""

    opener: urllib.request.OpenerDirector

    def _build_client(self, name: str | None = None) -> "Transport":
        client = Transport(
            host=self.host,
            version=self._version,
            request_headers=self.request_headers,
            url_path=[*self._url_path, name] if name else self._url_path,
            timeout=self.timeout,
        )
        client.opener = self.opener
        return client

    def _make_request(self, opener: Any, request: Any, timeout: float | None = None) -> Any:
        return super()._make_request(self.opener, request, timeout=timeout)


class RequestBytes:
    """A request's bytes, for an SDK that encodes a text, and formats it for its log whether that is written or not."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def encode(self, _encoding: str) -> "_Hidden":
        """Give the bytes themselves."""
        return _Hidden(self._content)


class _Hidden(bytes):
    """Bytes that no log shows: they hold addresses, and writing out 5 MB takes as long as sending them."""

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"({len(self)} bytes)"

    __str__ = __repr__
