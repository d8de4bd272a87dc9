"""Whether a source still has the columns that it had: what the newest earlier export with the same settings found."""

import datetime as dt
import hashlib
from typing import Any, Final

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.sources.column_kinds import UNKNOWN
from jobs.sources.protocol import Reading
from schemas.errors import SchemaError
from schemas.source import SourceSettings
from schemas.tables import Table

_MEMORY_DAYS: Final = 31  # as long as the export looks back for profiles


def table_digest(settings: SourceSettings, table: Table) -> str:
    """Digest what the settings say of one table."""
    said = f"{settings.kind} {settings.name} {getattr(settings, table.name).model_dump_json()}"
    return hashlib.sha256(said.encode()).hexdigest()


def remembered(lake: Lake, table: Table, date: dt.date, digest: str) -> Manifest | None:
    """Find the newest export before the date, if it was made with these settings of the table."""
    found = lake.latest(table.name, up_to=date - dt.timedelta(days=1), days=_MEMORY_DAYS)
    return found if found is not None and found.metrics.get("source_settings_sha256") == digest else None


def known_columns(before: Manifest | None) -> frozenset[str] | None:
    """Name all columns that the earlier export found, used or not."""
    if before is None:
        return None
    return frozenset([*before.metrics["source_columns"], *before.metrics["unused_source_columns"]])


def column_metrics(table: Table, reading: Reading, before: Manifest | None, digest: str) -> dict[str, Any]:
    """Say which columns the source has now, for the manifest; those that are new are a warning there.

    Raises: SchemaError with every column that is gone or has become of another kind.
    """
    now = dict(reading.columns)
    before_kinds = {} if before is None else before.metrics["source_columns"]
    if now:  # a source without even a header holds nothing, which the export says in its own words
        _check(table, now, before_kinds, before)
    known = known_columns(before)
    used = {name: kind for name, kind in now.items() if name in reading.used}
    return {
        "source_settings_sha256": digest,
        "source_columns": {
            name: before_kinds.get(name, kind) if kind == UNKNOWN else kind for name, kind in sorted(used.items())
        },
        "unused_source_columns": sorted(set(now) - set(used)),
        "new_source_columns": sorted(set(now) - known) if known is not None else [],
    }


def _check(table: Table, now: dict[str, str], before_kinds: dict[str, str], before: Manifest | None) -> None:
    problems = [
        f"{name} is missing" if name not in now else f"{name} is {now[name]}, it was {kind}"
        for name, kind in sorted(before_kinds.items())
        if name not in now or (now[name] != kind and UNKNOWN not in (now[name], kind))
    ]
    if problems and before is not None:
        plural = "difference" if len(problems) == 1 else "differences"
        raise SchemaError(
            f"{table.name}: the source differs from what {before.partition} was made from, {len(problems)} {plural}: "
            f"{'; '.join(problems)}. Nothing was exported: have the source put right, or accept what it has become by "
            f"raising version under [{table.name}] in the source settings"
        )
