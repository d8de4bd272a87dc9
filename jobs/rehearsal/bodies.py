"""Request bodies as contacts' content: kept whole and compressed, read again when somebody looks.

A push gives every contact the same custom fields and nothing else besides an address. Such a plain body is checked in
one typed decode and stored as it came, compressed; each of its contacts then is a row of (body, position), and a mail
is a copy of these two numbers. A body that writes only some of a contact's fields lies over the one before.
"""

import functools
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from jobs.rehearsal import limits
from jobs.rehearsal.behaviour import Clearing
from jobs.rehearsal.database import Database

ADDRESS: Final = r"[^\s@<>()\[\]\\,;:\"]{1,64}@(?:[^\s@.,;:<>()\[\]\\\"]{1,63}\.)+[^\s@.,;:<>()\[\]\\\"]{2,63}"
_ADDRESSES: Final = re.compile(rf"(?:{ADDRESS}\n)+")
_DECODERS: Final = 64  # sets of fields in use at one time; a push has one
_OPEN_BODIES: Final = 8  # of 6 MB each
_Text = Annotated[str, msgspec.Meta(max_length=limits.TEXT_CHARACTERS)]
_Email = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.IDENTIFIER_CHARACTERS["email"])]


class _Sliced(msgspec.Struct, gc=False):
    custom_fields: msgspec.Raw = msgspec.Raw(b"{}")


class _SlicedBody(msgspec.Struct):
    contacts: list[_Sliced]


_SLICES: Final = msgspec.json.Decoder(_SlicedBody)


@dataclass(frozen=True)
class PlainIntake:
    """An accepted request whose contacts all have an address, the same custom fields, and nothing else."""

    list_ids: tuple[str, ...]
    emails: Sequence[str]  # in lower case, in the body's order
    keys: tuple[str, ...]  # ids of the custom fields, sorted
    body: bytes

    @property
    def requested(self) -> int:
        """Count the contacts of the request."""
        return len(self.emails)


class PlainReader:
    """Recognises plain bodies; remembers the fields of the last one, as the next one has the same."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, str], ...] = ()

    def read(self, body: bytes, field_types: Mapping[str, str], clearing: Clearing) -> PlainIntake | None:
        """Read a body that is plain and without any mistake; None: it is for read_upsert to say what it is."""
        if clearing == "empty_ignored" and b'""' in body:
            return None
        decoded = self._decode(self._last, body) if self._still_known(field_types) else None
        if decoded is None:
            self._last = _first_fields(body, field_types)
            decoded = self._decode(self._last, body)
        if decoded is None or not 1 <= len(decoded.contacts) <= limits.CONTACTS_PER_REQUEST:
            return None
        lines = "\n".join([contact.email for contact in decoded.contacts]).lower() + "\n"
        if not _ADDRESSES.fullmatch(lines):
            return None
        emails = lines.split("\n")[:-1]
        if len(emails) != len(decoded.contacts):
            return None
        keys = tuple(sorted(field for field, _ in self._last))
        return PlainIntake(tuple(dict.fromkeys(decoded.list_ids)), emails, keys, body)

    def _still_known(self, field_types: Mapping[str, str]) -> bool:
        return bool(self._last) and all(field_types.get(field) == kind for field, kind in self._last)

    @staticmethod
    def _decode(fields: tuple[tuple[str, str], ...], body: bytes) -> Any:
        if not fields:
            return None
        try:
            return _decoder(fields).decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


def _first_fields(body: bytes, field_types: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Give the custom fields of the first contact with their types; () if a plain body can not have them."""
    try:
        first = _SLICES.decode(body).contacts[:1]
        custom = msgspec.json.decode(first[0].custom_fields) if first else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    if not isinstance(custom, dict) or not all(field_types.get(field) == "Text" for field in custom):
        return ()
    return tuple((field, field_types[field]) for field in custom)


@functools.lru_cache(maxsize=_DECODERS)
def _decoder(fields: tuple[tuple[str, str], ...]) -> msgspec.json.Decoder[Any]:
    """Decode bodies in which each contact has an address and exactly these text fields."""
    # Field ids are no Python names; `rename` gives each attribute its key in the JSON.
    names = {f"f{number}": field for number, (field, _) in enumerate(fields)}
    custom = msgspec.defstruct(
        "Custom", [(name, _Text) for name in names], rename=names, gc=False, forbid_unknown_fields=True
    )
    contact = msgspec.defstruct(
        "Contact", [("email", _Email), ("custom_fields", custom)], gc=False, forbid_unknown_fields=True
    )
    body = msgspec.defstruct(
        "Body",
        [("contacts", list[contact]), ("list_ids", list[str], msgspec.field(default_factory=list))],  # type: ignore[valid-type]
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(body)


class Bodies:
    """The stored bodies of one rehearsal provider."""

    def __init__(self, database: Database) -> None:
        """Keep bodies in `database`."""
        self._database = database
        self._open = functools.lru_cache(maxsize=_OPEN_BODIES)(self._contacts)

    def fields(self, body: int, position: int) -> dict[str, Any]:
        """Give the custom fields (id -> value) of one contact of a body."""
        found: dict[str, Any] = msgspec.json.decode(self._open(body)[position].custom_fields)
        return found

    def fields_of(self, row: sqlite3.Row | Mapping[str, Any]) -> dict[str, Any]:
        """Give the custom fields of a contact or a mail, whose columns say where they are."""
        if row["body"] is not None:
            found = self.fields(row["body"], row["position"])
        else:
            stored = json.loads(row["fields"] or "{}")
            found = {field: value for field, value in stored.items() if value is not None}
        if row["over_body"] is not None:
            found |= self.fields(row["over_body"], row["over_position"])
        return found

    def _contacts(self, body: int) -> list[_Sliced]:
        row = self._database.row("SELECT size, content FROM bodies WHERE body = ?", (body,))
        if row is None:
            raise KeyError(f"body {body} is not stored")
        return _SLICES.decode(unpack(row["content"], row["size"])).contacts


def pack(body: bytes) -> bytes:
    """Compress a body for storage."""
    packed: bytes = pa.Codec("zstd", compression_level=1).compress(body, asbytes=True)
    return packed


def unpack(content: bytes, size: int) -> bytes:
    """Give the stored body back."""
    body: bytes = pa.Codec("zstd").decompress(content, decompressed_size=size, asbytes=True)
    return body
