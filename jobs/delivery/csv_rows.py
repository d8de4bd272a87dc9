"""Render contacts as rows of a CSV file: the fields that `payload` writes as JSON, with the same values, by position.

Every cell is in quotes, so that commas, line ends and what a spreadsheet takes for a formula are text. As with JSON,
each item's cells are made once per slot and joined in Arrow; the same rows give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.delivery.payload import digest_texts, uid_texts
from schemas.mail_fields import CONTENT, COUNT, EXPECTED, NEUTRAL, RUN, SLOT_PARTS, UID, slot_field

Rows = npt.NDArray[np.int64]

ADDRESS: Final = "email"  # the first column's name; which field it is, the import's request says
STAMP_FIELDS: Final = (RUN, EXPECTED)


def content_fields(slots: int) -> tuple[str, ...]:
    """Name the fields behind the address in the rows of `csv_contacts`, in order."""
    parts = (slot_field(slot, part) for slot in range(1, slots + 1) for part in SLOT_PARTS)
    return (RUN, COUNT, UID, CONTENT, EXPECTED, *parts)


def csv_cells(texts: pa.StringArray) -> pa.StringArray:
    """Turn JSON strings into CSV cells; null stays null.

    Without a backslash they are the same: JSON escapes every quote, and a comma or letter of any alphabet in neither.
    """
    is_escaped = pc.fill_null(pc.match_substring(texts, "\\"), False)
    written = [_cell(json.loads(text)) for text in texts.filter(is_escaped).to_pylist()]
    return pc.replace_with_mask(texts, is_escaped, pa.array(written, pa.string())) if written else texts


def csv_fragments(
    values: Mapping[str, pa.StringArray],
    slot_rows: Sequence[Rows],
    *,
    blank: str = NEUTRAL,
    urls: Sequence[pa.StringArray] | None = None,
) -> list[pa.StringArray]:
    """Render the cells of some items for each slot; the last entry of each array is the empty slot.

    What goes in is what `payload.slot_fragments` takes, and so are the shapes.
    """
    nothing = _cell(blank)
    cells = {part: csv_cells(pc.if_else(pc.equal(values[part], '""'), nothing, values[part])) for part in SLOT_PARTS}
    fragments = []
    for slot, rows in enumerate(map(pa.array, slot_rows), 1):
        pieces: list[pa.Array | str] = []
        for part in SLOT_PARTS:
            texts = cells[part].take(rows)
            if part == "url" and urls is not None:
                texts = pc.coalesce(csv_cells(urls[slot - 1]), texts)
            pieces += [",", pa.concat_arrays([texts, pa.array([nothing])])]
        fragments.append(_join(pieces))
    return fragments


def csv_contacts(
    *,
    emails: pa.StringArray,
    uids: npt.NDArray[np.uint64],
    slot_rows: Sequence[Rows],
    counts: Rows,
    contents: npt.NDArray[np.uint64],
    fragments: Sequence[pa.StringArray],
    run: str,
) -> pa.StringArray:
    """Render one line per contact, with its line end: the address and `content_fields`, empty slots neutral.

    Shapes: slot_rows has one array (contacts,) per slot: rows of `fragments`, -1 for an empty slot.
    """
    pieces: list[pa.Array | str] = [
        *_addressed(emails, run),
        '","',
        pa.array(counts).cast(pa.string()),
        '","',
        uid_texts(uids),
        '","',
        digests := digest_texts(contents),
        '","',
        digests,
        '"',
        *(
            fragment.take(pa.array(np.where(rows < 0, len(fragment) - 1, rows)))
            for fragment, rows in zip(fragments, slot_rows, strict=True)
        ),
        "\n",
    ]
    return _join(pieces)


def csv_stamps(*, emails: pa.StringArray, contents: npt.NDArray[np.uint64], run: str) -> pa.StringArray:
    """Render one line per contact whose content stays: the address and `STAMP_FIELDS`."""
    return _join([*_addressed(emails, run), '","', digest_texts(contents), '"\n'])


def csv_header(names: Sequence[str]) -> bytes:
    """Render the first line. Names are letters, digits and underscores, which is what SendGrid takes."""
    return (",".join(names) + "\n").encode()


def _addressed(emails: pa.StringArray, run: str) -> list[pa.Array | str]:
    return ['"', pc.replace_substring(emails, '"', '""'), f'","{run}']


def _join(pieces: Sequence[pa.Array | str]) -> pa.StringArray:
    return pc.binary_join_element_wise(*pieces, "")


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
