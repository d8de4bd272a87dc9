"""How ryml speaks HTTP to an e-mail provider: where to, through which opener, and what the failures are called.

No message made here holds an address or a key.
"""

import http.client
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from jobs.delivery.client import RateLimit
from schemas.errors import (
    BadContentMailError,
    MailAuthError,
    MailError,
    NotFoundMailError,
    RejectedMailError,
    RetryableMailError,
    TooLargeMailError,
)

Clock = Callable[[], float]
"""Gives Unix time."""

MESSAGE_CHARACTERS: Final = 500  # of what the provider said about a refusal
_REFUSALS: Final[dict[int, type[RejectedMailError]]] = {
    400: BadContentMailError, 404: NotFoundMailError, 413: TooLargeMailError,
}  # fmt: skip
_ADDRESS: Final = re.compile(r"[^\s\"'<>(),;:]+@[^\s\"'<>(),;:]+")
_KEY: Final = re.compile(r"SG\.[A-Za-z0-9._-]{8,}")  # every SendGrid key begins so


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: following it would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def make_opener(host: str) -> urllib.request.OpenerDirector:
    """Make an opener for a host name: no redirects, and for this machine no proxy of the environment."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(host):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine."""
    return host.lower() == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def is_ip_address(host: str) -> bool:
    """Say whether a host is written as an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def checked_host(url: str, api_host: str, what: str) -> str:
    """Give the host of an address that an answer names: the API's own, or by https one that has a name.

    An answer must not be able to make ryml speak to a machine of the inner network.
    Raises: RejectedMailError for any other.
    """
    parts, api = urlsplit(url), urlsplit(api_host)
    host = parts.hostname or ""
    if parts.scheme in ("http", "https") and (parts.scheme, parts.netloc) == (api.scheme, api.netloc):
        return host
    if parts.scheme != "https" or "." not in host or is_ip_address(host) or is_loopback(host):
        raise RejectedMailError(
            f"{what} at {parts.scheme}://{host}: expected https and a host with a name, or the API's own host; look at "
            "the job at the provider"
        )
    return host


@contextmanager
def wire_errors(operation: str, clock: Clock) -> Iterator[None]:
    """Turn what goes wrong on the wire into MailErrors; `operation` begins their messages."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            raise answer_error(operation, error.code, error.read(65536), error.headers, clock) from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise RejectedMailError(
                f"{operation}: the provider's certificate does not verify ({cause.verify_message}); "
                "check the host and this machine's certificates"
            ) from error
        raise RetryableMailError(
            f"{operation}: no answer ({type(cause).__name__}); whether the provider acted on it is unknown"
        ) from error


def answer_error(operation: str, status: int, body: bytes, headers: Mapping[str, str] | Any, clock: Clock) -> MailError:
    """Name an answer other than 2xx."""
    said = _said(body)
    shown = f"{operation}: the provider answered {status}{f' ({said})' if said else ''}"
    if status == 401 and "credit" in said.lower():
        return MailAuthError(f"{shown}; the account has no credits left. Add credits, or wait for the next period")
    if status == 401:
        return MailAuthError(f"{shown}; the API key is not accepted. Put a valid key into the connection")
    if status == 403:
        return MailAuthError(f"{shown}; the API key or the account lacks the right. Give the key that scope")
    if status in (408, 429) or status >= 500:
        wait = _retry_after(headers, clock)
        # A request that was over the limit was not looked at; any other of these may have been acted upon.
        return RetryableMailError(f"{shown}; try again later", retry_after_seconds=wait, may_have_acted=status != 429)
    kind = _REFUSALS.get(status, RejectedMailError)
    return kind(f"{shown}; the same request will be refused again. Look at what was sent")


def rate_limit(headers: Mapping[str, str] | Any) -> RateLimit | None:
    """Read the three X-RateLimit headers of an answer; None unless all are there and whole numbers."""
    found = (
        [str(headers.get(f"X-RateLimit-{name}") or "") for name in ("Limit", "Remaining", "Reset")] if headers else []
    )
    if not found or not all(re.fullmatch(r"[0-9]{1,12}", text) for text in found):
        return None
    limit, remaining, reset_at = map(int, found)
    return RateLimit(limit, remaining, float(reset_at))


def _said(body: bytes) -> str:
    """Give the provider's own messages, with addresses and keys blotted out: they go into logs."""
    try:
        errors = json.loads(body).get("errors") or []
        messages = [
            f"{entry['field']}: {entry['message']}" if entry.get("field") else str(entry["message"]) for entry in errors
        ]
    except (ValueError, TypeError, AttributeError, KeyError):
        return ""
    # Cut first: the pattern looks at each character at most twice, but bodies may be megabytes. A cut address keeps its
    # beginning only if the cut is before the @, so that beginning goes too.
    shown = "; ".join(messages)
    if len(shown) > MESSAGE_CHARACTERS:
        shown = shown[:MESSAGE_CHARACTERS].rsplit(None, 1)[0] + " ..."
    return _KEY.sub("<key>", _ADDRESS.sub("<address>", shown))


def _retry_after(headers: Mapping[str, str] | Any, clock: Clock) -> float | None:
    """Read Retry-After (seconds or a date), else X-RateLimit-Reset (Unix time); None if the provider gave neither."""
    wait = str(headers.get("Retry-After") or "").strip() if headers else ""
    if re.fullmatch(r"[0-9]{1,9}", wait):
        return float(wait)
    if wait:
        try:
            return max(0.0, parsedate_to_datetime(wait).timestamp() - clock())
        except ValueError:
            pass  # not a date either: the next header may help
    reset = str(headers.get("X-RateLimit-Reset") or "").strip() if headers else ""
    return max(0.0, float(reset) - clock()) if re.fullmatch(r"[0-9]{1,12}", reset) else None
