"""Write one exported partition and the quarantine beside it; publish both, or neither."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from jobs.export.account import Account
from jobs.export.bucket_files import BucketFiles
from jobs.export.export_gate import check_export
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import Window
from jobs.lake.summary import summarise
from jobs.quality.override import GateOverride
from jobs.quality.row_rules import Checked, check_rows
from jobs.quality.snapshot_rules import Snapshot
from jobs.sources.protocol import Source
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.source import SourceSettings
from schemas.tables import EVENTS, Table


def write_partition(
    lake: Lake,
    table: Table,
    date: dt.date,
    window: Window,
    source: Source,
    *,
    settings: SourceSettings,
    run_id: str,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Stream the source into a new attempt and publish it if its gate lets it; return what became of every row."""
    data = lake.attempt(Partition(table.name, date), run_id)
    aside = lake.attempt(Partition(f"quarantine_{table.name}", date), run_id)
    parameters = {"source": source.name, "settings_sha256": settings_digest(settings)}
    with _explained(lake):
        with _dropped_on_failure(data, aside), BucketFiles(data) as good_files, BucketFiles(aside) as aside_files:
            account = _stream(table, window, source, good_files, aside_files)
            account.check(table, date, window, source.name)
            files, aside_entries = good_files.finish(), aside_files.finish()
            account.check_written(sum(entry.rows for entry in files), sum(entry.rows for entry in aside_entries))
            passed = check_export(data, files, account, window, override)
        # The data's manifest comes last: it is what the next stage starts from.
        aside_manifest = aside.publish(aside_entries, inputs=[], parameters=parameters, window=window)
        metrics = account.as_json() | {"quarantine_sha256": aside_manifest.content_sha256} | dict(passed.metrics)
        manifest = data.publish(files, inputs=[], parameters=parameters, window=window, metrics=metrics)
        passed.settle()
    return {
        "table": table.name,
        "date": date.isoformat(),
        "manifest": manifest.partition.manifest_path,
        **summarise(manifest),
    }


def settings_digest(settings: SourceSettings) -> str:
    """Digest what the settings say, so that other settings never pass for the same making."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


def _stream(table: Table, window: Window, source: Source, good_files: BucketFiles, aside_files: BucketFiles) -> Account:
    account = Account()

    def checked() -> Iterator[Checked]:
        batches = source.batches(table, window)
        with contextlib.closing(batches):  # type: ignore[type-var]  # sources are generators
            for rows in batches:
                result = check_rows(table, rows, window, holds_all_days=source.holds_all_days)
                account.add_read(result)
                aside_files.write(result.quarantined)
                yield result

    def use(good: pa.Table) -> None:
        account.rows += good.num_rows
        good_files.write(good)

    if table is EVENTS:
        for result in checked():
            use(result.good)
        return account
    with Snapshot(table) as snapshot:
        for result in checked():
            snapshot.add(result)
        for settled in snapshot.settle():
            use(settled.good)
            account.add_quarantined(settled.quarantined)
            account.add_addresses(settled.addresses)
            aside_files.write(settled.quarantined)
            aside_files.write(settled.addresses)
    return account


@contextlib.contextmanager
def _dropped_on_failure(*attempts: Attempt) -> Iterator[None]:
    """Delete what was written, unless publishing had begun: then a manifest may name it, whatever the error said."""
    try:
        yield
    except BaseException:
        for attempt in attempts:
            with contextlib.suppress(Exception):  # the first error is the one that says why
                attempt.discard()
        raise


@contextlib.contextmanager
def _explained(lake: Lake) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the lake {lake.uri} or the temporary folder could not be written ({error.strerror or error}); "
            f"nothing was published: make room or check the rights, and run the export again"
        ) from error
