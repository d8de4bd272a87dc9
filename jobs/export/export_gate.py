"""The gate of an export: the figures of what was written, and of what the source gave, against the table's contract."""

import datetime as dt
from collections.abc import Iterable

import numpy as np

from jobs.export.account import Account
from jobs.lake.lake import Attempt
from jobs.lake.manifest import FileEntry, Window
from jobs.quality.checked_publish import Passed, check
from jobs.quality.figures import (
    NO_TIME_OF_DAY,
    Figures,
    Observed,
    hashed,
    hours_before,
    hours_with_events,
    observe_files,
)
from jobs.quality.history import last_good
from jobs.quality.override import GateOverride
from schemas.contracts import CONTRACTS
from schemas.tables import CATALOG, EVENTS


def check_export(
    attempt: Attempt, files: Iterable[FileEntry], account: Account, window: Window, override: GateOverride | None
) -> Passed:
    """Judge an export before it is published, from its files as they lie in the lake.

    Raises: GateError with every check that does not hold; StorageError if a file is not what was written.
    """
    table = attempt.partition.table
    observed = observe_files(CONTRACTS[table], attempt, files)
    figures: Figures = {"used_share": account.rows / max(1, account.rows + account.quarantined.total())}
    if table == EVENTS.name:
        figures |= {
            "rows_of_last_day": account.on_last_day,
            "hours_of_last_day": hours_with_events(window.end_at - dt.timedelta(days=1), observed),
            **hours_before(window.end_at, observed),
        }
    if table == CATALOG.name:
        figures |= _ids_kept(attempt, observed)
    missing = {"ids_kept_share": "no catalog was published before", **NO_TIME_OF_DAY}
    return check(attempt, observed, figures=figures, missing=missing, override=override)


def _ids_kept(attempt: Attempt, observed: Observed) -> Figures:
    """Which share of the last good catalog's ids is still there; nothing if there is no such catalog."""
    before, ids = last_good(attempt.lake, CONTRACTS[CATALOG.name], attempt.partition), observed.column("item_id")
    if before is None or ids is None:
        return {}
    known = hashed(attempt.lake.read(before, columns=["item_id"])["item_id"])
    return {"ids_kept_share": float(np.isin(known, ids).mean())}
