"""The upload of a file of contacts to the signed address that the provider gave for it.

The address is a storage service's. It gets no key, and none of the API's headers: an address is signed together with
its headers, and one more or less is refused.
"""

import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Final

from jobs.delivery.client import ImportPlace
from jobs.delivery.wire import Clock, checked_host, make_opener, wire_errors
from schemas.errors import RejectedMailError, RetryableMailError

_WHAT: Final = "upload of an import's file"
# An address that has expired, was used, or was signed for other headers: another one is had for the asking.
_PLACE_REFUSED: Final = (401, 403)


class _Put(urllib.request.Request):
    """A PUT without a Content-Type: urllib would add a form's, which older signatures of S3 do not allow."""

    def has_header(self, header_name: str) -> bool:
        return header_name == "Content-type" or super().has_header(header_name)


def upload_file(
    place: ImportPlace, parts: Iterable[bytes], size: int, *, api_host: str, timeout_seconds: float, clock: Clock
) -> None:
    """Put `size` bytes to a place; each wait for the network, and each part, may take `timeout_seconds`.

    Raises: RejectedMailError if the place is not one that a file may be sent to, or the file is refused;
            RetryableMailError if the place is refused or there is no answer. What `parts` raises ends the upload, and
            nothing is stored of one that was cut off.
    """
    host = checked_host(place.upload_uri, api_host, _WHAT)
    headers = {**place.upload_headers, "Content-Length": str(size)}
    if not all(text.isascii() and text.isprintable() for pair in headers.items() for text in pair):
        raise RejectedMailError(f"{_WHAT}: a header that the provider asks for is no header; nothing was uploaded")
    request = _Put(place.upload_uri, parts, headers, method="PUT")
    with wire_errors(_WHAT, clock):
        try:
            with make_opener(host).open(request, timeout=timeout_seconds) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in _PLACE_REFUSED:
                raise
            with error:
                raise RetryableMailError(
                    f"{_WHAT}: the place is refused ({error.code}); it may have been used, or its time is over. Ask "
                    "for another one"
                ) from error
