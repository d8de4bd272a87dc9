"""Render Mail Send requests: a personalization per user, with what a contact would hold, cut by count and bytes.

What a mail carries of its reader is the address. `custom_args` come back with every event of a mail, and the provider
keeps them without treating them as personal: they hold keyed hashes alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery import mail_sender
from jobs.delivery.addresses import MAIL_KEY
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.payload import Body, address_texts, field_pieces, join_texts, uid_texts
from jobs.lake.buckets import keyed_hash

RUN_ARGUMENT: Final = "ryml_run"
REQUEST_ARGUMENT: Final = "ryml_request"
UID_ARGUMENT: Final = "ryml_uid"
_HEADROOM: Final = 0.95  # of the provider's 30 MB, whose headers and parts count as well


@dataclass(frozen=True)
class Envelope:
    """What all mails of a run have in common. `send_at` is in Unix seconds: milliseconds are refused."""

    from_email: str
    from_name: str | None
    template_id: str
    batch_id: str
    send_at: int
    group_id: int
    category: str
    run_token: str

    def head(self) -> bytes:
        """Write everything up to the first personalization."""
        sender = {"email": self.from_email} | ({"name": self.from_name} if self.from_name else {})
        fields: dict[str, Any] = {
            "from": sender,
            "template_id": self.template_id,
            "batch_id": self.batch_id,
            "send_at": self.send_at,
            "asm": {"group_id": self.group_id},
            "categories": [self.category],
        }
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return f'{text[:-1]},"personalizations":['.encode()

    def tail(self, request_token: str) -> bytes:
        """Write the end of each personalization: by the contract those of a whole request would be a text."""
        return f',"{RUN_ARGUMENT}":"{self.run_token}","{REQUEST_ARGUMENT}":"{request_token}"}}}}'.encode()


@dataclass(frozen=True)
class MailTokens:
    """Names of a run and its requests, 16 hex digits each, that say something only to who has the ledger's key."""

    key: str
    run: Run

    @classmethod
    def of(cls, ledger: Ledger, run: Run) -> Self:
        """Take the key from the ledger."""
        return cls(ledger.key(MAIL_KEY), run)

    @property
    def run_token(self) -> str:
        """Name the run."""
        return self._hashed("")

    def request(self, chunk: int, epoch: int, request: int) -> str:
        """Name one of its requests."""
        return self._hashed(f"{chunk}/{epoch}/{request}")

    def _hashed(self, what: str) -> str:
        texts = pa.array([f"{self.run.campaign}\n{self.run.send_date.isoformat()}\n{what}"])
        return f"{int(keyed_hash(texts, self.key)[0]):016x}"


def render_personalizations(
    *,
    emails: pa.StringArray,
    uids: npt.NDArray[np.uint64],
    slot_rows: Sequence[npt.NDArray[np.int64]],
    counts: npt.NDArray[np.int64],
    contents: npt.NDArray[np.uint64],
    fragments: Sequence[pa.StringArray],
    names: Mapping[str, str],
    run: str,
) -> pa.StringArray:
    """Render one JSON object a user, up to the arguments that name its request (`Envelope.tail`).

    `names` are the fields' own, which the template asks for.

    Shapes: as of `payload.render_contacts`.
    """
    fields = field_pieces(
        uids=uids, slot_rows=slot_rows, counts=counts, contents=contents, fragments=fragments, field_ids=names, run=run
    )
    return join_texts(
        [
            '{"to":[{"email":"',
            address_texts(emails),
            '"}],"dynamic_template_data":{',
            *fields,
            f'}},"custom_args":{{"{UID_ARGUMENT}":"',
            uid_texts(uids),
            '"',
        ]
    )


def first_message(personalizations: pa.StringArray, head: bytes, tail: bytes) -> Body:
    """Make a request of as many personalizations, each with the tail, as fit into one, from the first on.

    Raises: ValueError if one alone is too large (the limits of its texts make that impossible).
    """
    room = int(_HEADROOM * mail_sender.MESSAGE_BYTES) - len(head) - 2
    ends = np.cumsum(pc.binary_length(personalizations).to_numpy() + len(tail) + 1)  # 1: the comma
    stop = min(int(np.searchsorted(ends, room, side="right")), mail_sender.MAILS_PER_REQUEST)
    if stop == 0:
        raise ValueError(f"one mail takes more than {room} bytes; expected the limits of its texts to prevent that")
    some = personalizations[:stop].cast(pa.binary())
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(some)], pa.int32()), some), tail + b",")
    return Body.of(head + joined[0].as_py() + tail + b"]}", 0, stop)
