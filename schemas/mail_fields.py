"""The contact fields that carry a user's recommendations at the e-mail provider.

One flat field per slot and part, because a contact's custom fields are scalars (no list for a template to walk).
The names here are those of the prefix `ryml`. Each campaign has a prefix of its own, put in its place where names meet
the provider (`own_field`) and in the template (`own_fields`): contacts are shared, so two campaigns of one day would
otherwise replace each other's items before they are mailed. See docs/decisions/025-a-field-prefix-per-campaign.md.

All are of the provider's type Text; an unused slot holds the neutral value, never nothing: the provider keeps
whatever an upsert omits, and yesterday's item would be mailed.
"""

import re
from typing import Final

SLOT_PARTS: Final = ("title", "url", "image", "price")
NEUTRAL: Final = ""
# The neutral value at a provider that ignores empty text, and would keep yesterday's; the template shows neither.
BLANK: Final = "-"
DEFAULT_PREFIX: Final = "ryml"
COUNT: Final = "ryml_count"  # how many slots are filled, as decimal digits: "0" to "6"
RUN: Final = "ryml_run"  # the campaign date, YYYY-MM-DD; the template shows items only if it is the date of the send
# Digest of the content, written with it, and the one that this send expects: the template shows items only if they are
# the same. A user whose content did not change gets RUN and EXPECTED alone, and is shown nothing else by mistake.
CONTENT: Final = "ryml_content"
EXPECTED: Final = "ryml_expected"
UID: Final = "ryml_uid"  # short keyed hash of user and address, to tell whose content this is
TEXT_LIMIT: Final = 1000  # characters per text field (SendGrid's custom field limit)


def slot_field(slot: int, part: str) -> str:
    """Name the field of one part of one slot; slots count from 1."""
    return f"ryml_{slot}_{part}"


def all_fields(slots: int) -> tuple[str, ...]:
    """Name every custom field that a push of this many slots writes."""
    return (
        COUNT,
        RUN,
        CONTENT,
        EXPECTED,
        UID,
        *(slot_field(slot, part) for slot in range(1, slots + 1) for part in SLOT_PARTS),
    )


def own_field(name: str, prefix: str) -> str:
    """Name a field for the campaign that has this prefix."""
    return prefix + name.removeprefix(DEFAULT_PREFIX)


def own_fields(template: str, prefix: str) -> str:
    """Put a campaign's prefix into the place of `ryml` in every field that a template names."""
    return _NAMED.sub(f"{prefix}_", template)


_NAMED: Final = re.compile(rf"\b{DEFAULT_PREFIX}_(?=count\b|run\b|uid\b|content\b|expected\b|\d+_)")
