"""The version of the code that made a partition: a digest of the sources themselves."""

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def code_version() -> str:
    """Digest every file of `jobs/` and `schemas/` (paths and bytes); 12 hex digits.

    It stands in the manifest, and a partition made by other code is never taken for this code's.
    """
    digest = hashlib.sha256()
    for folder in ("jobs", "schemas"):
        for path in sorted((_ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".json", ".html", ".txt") and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(_ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
