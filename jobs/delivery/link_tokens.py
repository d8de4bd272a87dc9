"""Opaque tokens in a mail's links: which campaign, slot and item a click was for, and nobody's name.

A token is the keyed hash of the three, 16 hex digits: the same for every reader of that item in that slot, so that it
tells nothing about people, and without the key nothing about items either. The date is not in it, because who has the
same items as yesterday keeps yesterday's links; the event knows its send. Who measures clicks hashes the catalog again
and looks tokens up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.buckets import Strings, keyed_hash
from schemas.mail_fields import TEXT_LIMIT

PARAMETER: Final = "ryml"
TOKEN_CHARACTERS: Final = 16


@dataclass(frozen=True)
class LinkTokens:
    """The tokens of one campaign; `key` has 16 bytes."""

    campaign: str
    key: str

    def of(self, items: Strings, slot: int) -> pa.StringArray:
        """Give each item's token in a slot (from 1)."""
        if len(items) == 0:
            return pa.array([], pa.string())
        # Item ids may hold anything but a line feed, which the export turns away with the other control characters.
        texts = pc.binary_join_element_wise(self.campaign, str(slot), items, "\n")
        hashed = keyed_hash(texts, self.key).astype(">u8")
        return pa.array(np.frombuffer(hashed.tobytes().hex().encode(), "S16"), pa.binary()).cast(pa.string())

    def find(self, tokens: Iterable[str], items: Strings, slots: int) -> dict[str, tuple[int, int]]:
        """Look tokens up: each that is one of these items' gives its slot and its row in `items`."""
        wanted = pa.array(sorted(set(tokens)), pa.string())
        found: dict[str, tuple[int, int]] = {}
        for slot in range(1, slots + 1):
            rows = pc.index_in(wanted, value_set=self.of(items, slot))
            known = pc.is_valid(rows)
            pairs = zip(wanted.filter(known).to_pylist(), rows.filter(known).to_pylist(), strict=True)
            found |= {token: (slot, row) for token, row in pairs}
        return found


def around_token(url: str) -> tuple[str, str] | None:
    """Give what stands before and after the token in a link: it is the last parameter, before a fragment.

    None for no link, or one that would become longer than a contact field may be.
    """
    address, mark, fragment = url.partition("#")
    before = f"{address}{'&' if '?' in address else '?'}{PARAMETER}="
    is_short = len(before) + TOKEN_CHARACTERS + len(mark + fragment) <= TEXT_LIMIT
    return (before, mark + fragment) if url and is_short else None
