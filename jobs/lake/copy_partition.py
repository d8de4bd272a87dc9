"""Carry a published partition from one lake to another, every file checked on the way."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterable

from jobs.lake.lake import Lake
from jobs.lake.manifest import FileEntry, Manifest, Window
from schemas.errors import StorageError
from schemas.layout import CHECKS_NAME, REPORT_NAME, Partition


def mirror_partition(source: Lake, target: Lake, partition: Partition) -> Manifest:
    """Copy a partition with its manifest, both to the byte. The target must have no other writer.

    Raises: EmptyPartitionError if the source has none; StorageError if a file is not the one that its manifest names.
    """
    manifest = source.manifest(partition)
    before = target.find(partition)
    if before != manifest:
        # What a copy that was killed left would otherwise be in the way.
        target.storage.delete_folder(manifest.folder)
        for entry in manifest.files:
            _copy_file(source, manifest, entry, target, manifest.folder)
        _copy_checks(source, manifest, target, manifest.folder)
        held = before.to_bytes() if before else None
        target.storage.replace_if(partition.manifest_path, manifest.to_bytes(), held)
    return manifest


def republish_partition(
    source: Lake,
    manifest: Manifest,
    target: Lake,
    *,
    inputs: Iterable[Manifest],
    run_id: str,
    replaces: Manifest | None,
) -> Manifest:
    """Copy a partition's files into a new attempt of the target and publish that in the place of `replaces`.

    Raises: PublishConflictError if the target holds something else than `replaces`.
    """
    attempt = target.attempt(manifest.partition, run_id)
    for entry in manifest.files:
        _copy_file(source, manifest, entry, target, attempt.folder)
    _copy_checks(source, manifest, target, attempt.folder)
    window = manifest.window
    instants = [dt.datetime.fromisoformat(window[name]) for name in ("start_at", "end_at")] if window else None
    return attempt.publish(
        manifest.files,
        inputs=inputs,
        parameters=manifest.parameters,
        window=Window(*instants) if instants else None,
        metrics=manifest.metrics,
        replaces=replaces,
    )


def _copy_file(source: Lake, manifest: Manifest, entry: FileEntry, target: Lake, folder: str) -> None:
    path = f"{manifest.folder}/{entry.name}"
    data = source.storage.read(path)
    if data is None or len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StorageError(
            f"{source.uri}/{path} is missing or not the file its manifest names; rebuild {manifest.partition}"
        )
    _write(target, f"{folder}/{entry.name}", data)


def _copy_checks(source: Lake, manifest: Manifest, target: Lake, folder: str) -> None:
    """Copy what the gate found, and the report, for tables that have one."""
    for name in (CHECKS_NAME, REPORT_NAME):
        data = source.storage.read(f"{manifest.folder}/{name}")
        if data is not None:
            _write(target, f"{folder}/{name}", data)


def _write(target: Lake, path: str, data: bytes) -> None:
    with contextlib.closing(target.storage.create(path)) as file:
        file.write(data)
