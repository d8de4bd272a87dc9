"""What a promotion replaces: which partitions, in which order, and how it knows that nobody changed them meanwhile."""

import datetime as dt
import hashlib
from typing import Final

import pyarrow as pa

from jobs.backfill.request import Backfill
from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from schemas.errors import PublishConflictError
from schemas.layout import UNDATED, Partition
from schemas.tables import ITEM_INDEX

COMPARISON_PATH: Final = "_comparison.json"


def replaced_partitions(backfill: Backfill, date: dt.date) -> list[Partition]:
    """Name what is replaced for a date, inputs before what is made from them.

    A date that is not trained for, or whose model was refused, has no correlations of its own.
    """
    shared = [Partition(table, date) for table in ("quarantine_catalog", "catalog")]
    trained = ("backtests", "correlations", "product_correlations")
    own = [Partition(table, date, backfill.settings.name) for table in trained]
    made = [partition for partition in own if backfill.staged.find(partition) is not None]
    return [*shared, *made, Partition("recommendations", date, backfill.settings.name)]


def named(lake: Lake, name: str) -> Manifest:
    """Return the manifest of a partition by its name, as TABLE/date=2026-11-02 or with a campaign between.

    Raises: EmptyPartitionError if it was never published.
    """
    table, *parts = name.split("/")
    values = dict(part.split("=", 1) for part in parts)
    return lake.manifest(Partition(table, dt.date.fromisoformat(values["date"]), values.get("campaign")))


def seen_in(lake: Lake, backfill: Backfill) -> dict[str, str | None]:
    """Digest the manifest of everything that a promotion replaces or builds on; None where there is none."""
    seen = {}
    for date in backfill.request.dates:
        for partition in (Partition("profiles", date), *replaced_partitions(backfill, date)):
            seen[str(partition)] = digest(lake.find(partition))
    return seen


def digest(manifest: Manifest | None) -> str | None:
    """Digest a manifest: two are equal exactly if nothing was published between them."""
    return hashlib.sha256(manifest.to_bytes()).hexdigest() if manifest else None


def is_promoted(live: Manifest | None, staged: Manifest) -> bool:
    """Tell whether the live partition is the staged one already: an earlier try came this far."""
    return (
        live is not None
        and live.content_sha256 == staged.content_sha256
        and live.made_from(
            inputs=staged.inputs,
            window=staged.window,
            parameters=staged.parameters,
            code_version=staged.code_version,
        )
        and dict(live.metrics) == dict(staged.metrics)
    )


def check_index(backfill: Backfill) -> None:
    """See that every item of the staged index is the same item in the live one, or new to it.

    Raises: PublishConflictError if the live index grew in another way.
    """
    live, staged = read_index(backfill.live), read_index(backfill.staged)
    shared = min(len(live), len(staged))
    if not live.slice(0, shared).equals(staged.slice(0, shared)):
        raise PublishConflictError(
            f"the live item index has {len(live)} items now, and some stand where the backfill's {len(staged)} "
            "have others; nothing was promoted. Run the backfill again from its start, while no build is running"
        )


def promote_index(backfill: Backfill, run_id: str) -> int:
    """Append the staged index's new items to the live one; return how many.

    Raises: PublishConflictError as check_index, or if the index is published at the same moment.
    """
    current = backfill.live.find(Partition("item_index", UNDATED))
    check_index(backfill)
    staged = read_index(backfill.staged)
    new = len(staged) - (current.rows if current else 0)
    if new <= 0:
        return 0
    rows = pa.table({"item": pa.array(range(len(staged)), pa.int32()), "item_id": staged}, schema=ITEM_INDEX.schema)
    attempt = backfill.live.attempt(Partition("item_index", UNDATED), run_id)
    attempt.publish([attempt.write(rows)], inputs=[], parameters={}, metrics={"new": new}, replaces=current)
    return new
