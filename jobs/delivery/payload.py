"""Render request bodies: contacts with every field set, cut by bytes and count.

Each item's part of a contact is rendered once per slot and joined in Arrow; a dict per user was measured at a fifth
of the speed. The same rows give the same bytes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.link_tokens import PARAMETER, TOKEN_CHARACTERS, LinkTokens
from schemas.mail_fields import CONTENT, COUNT, EXPECTED, NEUTRAL, RUN, SLOT_PARTS, TEXT_LIMIT, UID, slot_field

# SendGrid: 30,000 contacts or 6 MB a request, whichever is lower; whether its MB is 10^6 or 2^20 is not said.
MAX_CONTACTS: Final = 30_000
MAX_BYTES: Final = 5_500_000
_SYMBOLS: Final = {"EUR": "€", "GBP": "£", "USD": "$"}

# Visible in any version of Unicode, and neither escaped by JSON nor a brace: Latin, Greek, Cyrillic, dashes and quotes,
# currencies, kana, Han, Hangul. Any other text is looked at by itself.
_PLAIN: Final = (
    r"^[ !#-\[\]-z|~\x{A1}-\x{AC}\x{AE}-\x{24F}\x{391}-\x{3A1}\x{3A3}-\x{3FF}\x{400}-\x{52F}\x{2010}-\x{2027}"
    r"\x{20A0}-\x{20BF}\x{3041}-\x{3096}\x{30A1}-\x{30FA}\x{4E00}-\x{9FA5}\x{AC00}-\x{D7A3}]*$"
)

# Of one byte of UTF-8, what is none of these: what a text has to be looked at for.
_PLAIN_BYTES: Final = bytes(0x20 <= n < 0x7F and chr(n) not in '"\\{}' for n in range(256))

# Between two braces of a kind: a template engine must not find its own marks in a title.
_BRACES: Final = re.compile(r"(?<=\{)(?=\{)|(?<=\})(?=\})")


Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Body:
    """One request: its bytes and the rows (start, stop) of the rendered table that it carries."""

    content: bytes
    start: int
    stop: int
    sha256: str

    @classmethod
    def of(cls, content: bytes, start: int, stop: int) -> Self:
        """Hash the content once."""
        return cls(content, start, stop, hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    def close(self) -> None:
        """Nothing is to be given back."""


def item_values(catalog: pa.Table) -> dict[str, pa.StringArray]:
    """The text of each part of each catalog row, as JSON strings.

    Braces that a template engine would take for its own are parted, control characters go, and text is cut to the
    provider's 1,000 characters.
    """
    texts = {"title": catalog["title"], "url": catalog["url"], "image": catalog["image_url"], "price": _prices(catalog)}
    return {part: _json_texts(column) for part, column in texts.items()}


def _prices(catalog: pa.Table) -> pa.StringArray:
    """Write prices; a shop has far fewer different ones than items."""
    keys = pc.binary_join_element_wise(catalog["price"].cast(pa.string()), catalog["currency"], " ")
    found = pc.dictionary_encode(keys.combine_chunks())
    shown = [_price_text(*key.split(" ", 1)) for key in found.dictionary.to_pylist()]
    return pa.array(shown, pa.string()).take(found.indices)


def linked_urls(catalog: pa.Table, slot_rows: Sequence[Rows], tokens: LinkTokens) -> list[pa.StringArray]:
    """Give the links of some rows for each slot, as JSON text with their tokens; null where a link stays as it is.

    The same as `around_token`, for all links at once: the token is the last parameter, before a fragment.
    """
    url = pc.fill_null(catalog["url"], "").combine_chunks()
    # Few shops' links have a fragment, and to look for one costs far less than to cut it off.
    if pc.any(pc.match_substring(url, "#")).as_py():
        address = pc.replace_substring_regex(url, "(?s)#.*", "")
        after = pc.replace_substring_regex(url, "(?s)^[^#]*", "")
    else:
        address, after = url, pa.repeat("", len(url))
    mark = pc.if_else(pc.match_substring(address, "?"), "&", "?")
    before = join_texts([address, mark, f"{PARAMETER}="])
    length = pc.add(pc.add(pc.utf8_length(before), pc.utf8_length(after)), TOKEN_CHARACTERS)
    is_linked = pc.and_(pc.not_equal(url, ""), pc.less_equal(length, TEXT_LIMIT))
    # Nothing joined with a text is nothing.
    opening = pc.if_else(is_linked, pc.utf8_slice_codeunits(_json_texts(before), 0, -1), pa.scalar(None, pa.string()))
    closing = pc.utf8_slice_codeunits(_json_texts(after), 1)
    item_ids = catalog["item_id"].combine_chunks()
    return [
        join_texts([opening.take(rows), tokens.of(item_ids.take(rows), slot), closing.take(rows)])
        for slot, rows in enumerate(map(pa.array, slot_rows), 1)
    ]


def slot_fragments(
    values: Mapping[str, pa.StringArray],
    slot_rows: Sequence[Rows],
    field_ids: Mapping[str, str],
    *,
    blank: str | None = NEUTRAL,
    urls: Sequence[pa.StringArray] | None = None,
) -> list[pa.StringArray]:
    """Render the fields (`item_values`) of some items for each slot; the last entry of each array is the empty slot.

    `blank` stands for whatever is empty (None: a null, which clears the value where the provider takes one). `urls`
    are `linked_urls` of the same rows, if links carry tokens.

    Shapes: slot_rows has an array of catalog rows for each slot: an item is rendered for the slots it stands in, no
            more. The answer's arrays are one longer each.
    """
    nothing = json.dumps(blank)
    filled = {part: pc.if_else(pc.equal(values[part], '""'), nothing, values[part]) for part in SLOT_PARTS}
    fragments = []
    for slot, rows in enumerate(map(pa.array, slot_rows), 1):
        pieces: list[pa.Array | str] = []
        for part in SLOT_PARTS:
            texts = filled[part].take(rows)
            if part == "url" and urls is not None:
                texts = pc.coalesce(urls[slot - 1], texts)
            pieces += [f',"{field_ids[slot_field(slot, part)]}":', pa.concat_arrays([texts, pa.array([nothing])])]
        fragments.append(join_texts(pieces))
    return fragments


def render_contacts(
    *,
    emails: pa.StringArray,
    uids: npt.NDArray[np.uint64],
    slot_rows: Sequence[npt.NDArray[np.int64]],
    counts: npt.NDArray[np.int64],
    contents: npt.NDArray[np.uint64],
    fragments: Sequence[pa.StringArray],
    field_ids: Mapping[str, str],
    run: str,
) -> pa.StringArray:
    """Render one JSON object per contact, all slots written, empty ones with the neutral value.

    Shapes: slot_rows has one array (contacts,) per slot: rows of `fragments`, -1 for an empty slot.
    """
    fields = field_pieces(
        uids=uids,
        slot_rows=slot_rows,
        counts=counts,
        contents=contents,
        fragments=fragments,
        field_ids=field_ids,
        run=run,
    )
    return join_texts(['{"email":"', address_texts(emails), '","custom_fields":{', *fields, "}}"])


def field_pieces(
    *,
    uids: npt.NDArray[np.uint64],
    slot_rows: Sequence[npt.NDArray[np.int64]],
    counts: npt.NDArray[np.int64],
    contents: npt.NDArray[np.uint64],
    fragments: Sequence[pa.StringArray],
    field_ids: Mapping[str, str],
    run: str,
) -> list[pa.Array | str]:
    """Give what stands between the braces of each user's fields, in pieces to be joined.

    Shapes: as of `render_contacts`.
    """
    return [
        f'"{field_ids[RUN]}":{json.dumps(run)},"{field_ids[COUNT]}":"',
        pa.array(counts).cast(pa.string()),
        f'","{field_ids[UID]}":"',
        uid_texts(uids),
        f'","{field_ids[CONTENT]}":"',
        digests := digest_texts(contents),
        f'","{field_ids[EXPECTED]}":"',
        digests,
        '"',
        *(
            fragment.take(pa.array(np.where(rows < 0, len(fragment) - 1, rows)))
            for fragment, rows in zip(fragments, slot_rows, strict=True)
        ),
    ]


def render_stamps(
    *, emails: pa.StringArray, contents: npt.NDArray[np.uint64], field_ids: Mapping[str, str], run: str
) -> pa.StringArray:
    """Render contacts whose content stays: the send's date, and the content that it expects them to hold."""
    return join_texts(
        [
            '{"email":"',
            address_texts(emails),
            f'","custom_fields":{{"{field_ids[RUN]}":{json.dumps(run)},"{field_ids[EXPECTED]}":"',
            digest_texts(contents),
            '"}}',
        ]
    )


def digest_texts(contents: npt.NDArray[np.uint64]) -> pa.StringArray:
    """Write 48 bits of each digest as eight characters of base64: they are in every contact of every night."""
    raw = np.ascontiguousarray(contents.astype(">u8").view(np.uint8).reshape(-1, 8)[:, :6]).tobytes()
    return pa.array(np.frombuffer(base64.urlsafe_b64encode(raw), "S8"), pa.binary()).cast(pa.string())


def uid_texts(uids: npt.NDArray[np.uint64]) -> pa.StringArray:
    """Write 64-bit hashes as 16 hex digits each."""
    digits = np.frombuffer(uids.astype(">u8").tobytes().hex().encode(), "S16")
    return pa.array(digits, pa.binary()).cast(pa.string())


def cut_bodies(contacts: pa.StringArray, list_ids: Sequence[str]) -> Iterator[Body]:
    """Cut rendered contacts into request bodies within both limits, in order.

    Raises: ValueError if one contact alone is over the limit (the field limits make that impossible).
    """
    lists = f'"list_ids":{json.dumps(list(list_ids))},' if list_ids else ""
    head, tail = f'{{{lists}"contacts":['.encode(), b"]}"
    room = MAX_BYTES - len(head) - len(tail)
    ends = np.cumsum(pc.binary_length(contacts).to_numpy() + 1)  # 1: the comma
    start, total = 0, len(contacts)
    while start < total:
        before = int(ends[start - 1]) if start else 0
        stop = min(int(np.searchsorted(ends, before + room, side="right")), start + MAX_CONTACTS)
        if stop == start:
            raise ValueError(f"one contact takes more than {room} bytes; expected the field limits to prevent that")
        # A comma behind each, and the bytes are taken as they lie one behind the other.
        rows = pc.binary_join_element_wise(contacts[start:stop], "", ",")
        _, offsets, data = rows.buffers()
        size = int(np.frombuffer(offsets, np.int32)[len(rows)])
        yield Body.of(b"".join([head, memoryview(data)[: size - 1], tail]), start, stop)
        start = stop


def join_texts(pieces: Sequence[pa.Array | str]) -> pa.StringArray:
    """Join texts row by row; a plain one stands in every row."""
    return pc.binary_join_element_wise(*pieces, "")


def _price_text(price: str, currency: str) -> str:
    return f"{_SYMBOLS.get(currency, currency + ' ')}{Decimal(price):,.2f}"


def _json_texts(texts: pa.StringArray | pa.ChunkedArray) -> pa.StringArray:
    """Write each text as a JSON string. Nearly all need nothing but quotes, which Arrow puts around them at once."""
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    quoted = join_texts(['"', column, '"'])
    suspects = _suspects(column)
    if not len(suspects):
        return quoted
    looked_at = column.take(pa.array(suspects))
    is_plain = pc.and_(
        pc.match_substring_regex(looked_at, _PLAIN),
        pc.less_equal(pc.utf8_length(looked_at), pa.scalar(TEXT_LIMIT, pa.int32())),
    )
    special = suspects[pc.invert(is_plain).to_numpy(zero_copy_only=False)]
    if not len(special):
        return quoted
    is_special = np.zeros(len(column), bool)
    is_special[special] = True
    written = pa.array([_json_text(text) for text in column.take(pa.array(special)).to_pylist()], pa.string())
    return pc.replace_with_mask(quoted, pa.array(is_special), written)


def _suspects(texts: pa.StringArray) -> Rows:
    """Give the rows that are not plain ASCII within the limit; all bytes are looked at in one go."""
    size = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    is_suspect = size > TEXT_LIMIT
    _, offsets, data = texts.buffers()
    if len(texts) and data is not None:
        ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        held = data.slice(int(ends[0]), int(ends[-1] - ends[0])).to_pybytes()
        is_plain = np.frombuffer(held.translate(_PLAIN_BYTES), np.bool_)
        if not is_plain.all():
            plain_before = np.concatenate(([0], np.cumsum(is_plain, dtype=np.int32)))
            is_suspect |= np.diff(plain_before[ends - ends[0]]) < np.diff(ends)
    found: Rows = np.flatnonzero(is_suspect & pc.is_valid(texts).to_numpy(zero_copy_only=False))
    return found


def _json_text(text: str) -> str:
    clean = "".join(character for character in text if character.isprintable())
    return json.dumps(_BRACES.sub(" ", clean)[:TEXT_LIMIT], ensure_ascii=False)


def address_texts(texts: pa.StringArray) -> pa.StringArray:
    """Escape what JSON needs in an address; control characters cannot stand in one that the export let through."""
    return pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
