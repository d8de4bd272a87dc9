"""Reasons that people give and that are kept: they must tell whoever reads them in a year something."""

import re
from typing import Final

from schemas.errors import ConfigError

MIN_REASON_CHARACTERS: Final = 10
# Words that say nothing; a reason of these alone is none.
_PLACEHOLDERS: Final = frozenset({
    "a", "again", "and", "asdf", "backfill", "because", "catalog", "default", "dummy", "example", "fix", "for", "just",
    "new", "none", "override", "placeholder", "qwerty", "reason", "rerun", "run", "some", "test", "testing", "the",
    "this", "todo", "update",
})  # fmt: skip


def refuse_empty_reason(reason: str, about: str) -> None:
    """Refuse a reason that says nothing.

    Raises: ConfigError.
    """
    words = re.findall(r"\w+", reason.lower())
    if len(reason.strip()) < MIN_REASON_CHARACTERS or all(
        word in _PLACEHOLDERS or len(set(word)) < 3 for word in words
    ):
        raise ConfigError(
            f"reason {reason!r} says nothing; expected {MIN_REASON_CHARACTERS} characters or more that tell whoever "
            f"reads the lake's history in a year {about}"
        )
