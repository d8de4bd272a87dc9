"""Delete what is past its keeping time and reachable from nothing live, in two steps: list, then delete that list.

`--step list` looks through the lake, deletes nothing and writes down what may go. `--step delete` deletes exactly
that, after checking that each entry still may go; if one may not, nothing is deleted. Ages count from --date.
Keeping times are in schemas/retention.py, the rule of what is reachable in jobs/expire/reachable.py.

Reads:  every manifest of the lake, the names of its files
Writes: expired/RUN_ID.json (the list); deletes partitions, attempts that no manifest names, staged backfills, and
        what the gate said of runs that it stopped.
        item_index is never touched, not even its former attempts: without it no other table can be read
Run:    python -m jobs.expire_data --lake LAKE --date 2026-11-02 --run-id by-hand --step list
"""

import argparse
import datetime as dt
import hashlib
import logging
from typing import Any, Literal

from jobs.command_line import job_parser, run
from jobs.expire.expiry_list import FOLDER, ExpiredFolder, ExpiredPartition, ExpiryList
from jobs.expire.inventory import Inventory, take_inventory
from jobs.expire.reachable import expired
from jobs.lake.lake import Lake
from jobs.lake.manifest import Window
from schemas.errors import EmptyPartitionError, GateError
from schemas.layout import safe_name
from schemas.retention import ATTEMPT_DAYS, STAGING_DAYS, attempt_days, keep_days
from schemas.tables import TABLES

_log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__)
    parser.add_argument("--step", required=True, choices=["list", "delete"], help="list first, then delete that list")
    return parser


def main(*, lake: str, date: dt.date, run_id: str, step: Literal["list", "delete"]) -> dict[str, Any]:
    """List or delete; return how many partitions, attempts, staged backfills and stopped checks, and their bytes.

    Raises: EmptyPartitionError if the run listed nothing before; GateError if the list does not hold any more.
    """
    opened = Lake.open(lake)
    path = f"{FOLDER}/{safe_name(run_id)}.json"
    inventory = take_inventory(opened)
    now = choose(inventory, date)
    before = opened.storage.read(path)
    if step == "list":
        # If an earlier list was half deleted, files without a manifest are on this one as attempts that nobody names.
        opened.storage.replace_if(path, now.to_bytes(), before)
        _log.info("%s: %d of %d partitions may go", path, len(now.partitions), len(inventory.published))
        return {"list": path, **now.counts()}
    if before is None:
        raise EmptyPartitionError(f"{lake}/{path} does not exist; run expire_data --step list with this run id first")
    listed = ExpiryList.from_bytes(before, f"{lake}/{path}")
    if changed := listed.changed_since(now, inventory):
        raise GateError(
            f"{len(changed)} entries of {path} may not be deleted any more, e.g. {changed[0]}: they were published, "
            "named or written to since they were listed. Nothing was deleted; run --step list again"
        )
    delete(opened, inventory, listed, date)
    return {"list": path, **listed.counts()}


def choose(inventory: Inventory, as_of: dt.date) -> ExpiryList:
    """Choose what may go as of the end of a date."""
    end_at = Window.of_days(as_of, as_of).end_at
    inputs = {partition: list(found.manifest.inputs) for partition, found in inventory.published.items()}
    chosen = [inventory.published[partition] for partition in expired(inputs, as_of=as_of, keep_days=keep_days())]
    orphans = [
        folder
        for folder in inventory.attempts
        if TABLES[folder.table].dated
        and folder.path not in inventory.named
        and folder.modified_at < end_at - dt.timedelta(days=attempt_days(folder.table))
    ]
    # Kept as long as the partition would have been, had it passed: somebody may still look into the night.
    stopped = [
        file
        for file in inventory.stopped
        if TABLES[file.table].dated and file.modified_at < end_at - dt.timedelta(days=keep_days()[file.table])
    ]
    stale = [folder for folder in inventory.staged if folder.modified_at < end_at - dt.timedelta(days=STAGING_DAYS)]
    return ExpiryList(
        as_of=as_of.isoformat(),
        partitions=tuple(
            ExpiredPartition(
                str(found.manifest.partition),
                found.manifest.folder,
                hashlib.sha256(found.data).hexdigest(),
                found.size_bytes,
            )
            for found in chosen
        ),
        attempts=tuple(ExpiredFolder(folder.path, folder.size_bytes) for folder in orphans),
        staged=tuple(ExpiredFolder(folder.path, folder.size_bytes) for folder in stale),
        stopped=tuple(ExpiredFolder(file.path, file.size_bytes) for file in stopped),
    )


def delete(lake: Lake, inventory: Inventory, listed: ExpiryList, as_of: dt.date) -> None:
    """Delete what is listed: each manifest first, then its files, so that no reader finds one without the other.

    Killed half-way, it goes on where it was: what is gone is passed over, and the list names the files that are left.
    """
    storage = lake.storage
    published = {str(partition): found for partition, found in inventory.published.items()}
    for entry in listed.partitions:
        if (found := published.get(entry.partition)) is not None:
            storage.delete_if(found.manifest.partition.manifest_path, found.data)
        storage.delete_folder(entry.folder)
    for folder in (*listed.attempts, *listed.staged):
        storage.delete_folder(folder.path)
    for file in listed.stopped:
        if (held := storage.read(file.path)) is not None:
            storage.delete_if(file.path, held)
    # An upload that old is of an attempt that is nobody's any more.
    end_at = Window.of_days(as_of, as_of).end_at
    storage.drop_unfinished_uploads(end_at - dt.timedelta(days=ATTEMPT_DAYS))


if __name__ == "__main__":
    run(main, arg_parser())
