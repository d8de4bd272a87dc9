"""Write one exported partition and the quarantine beside it; publish both, or neither."""

import contextlib
import datetime as dt
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from jobs.export.account import Account
from jobs.export.bucket_files import BucketFiles
from jobs.export.drift import column_metrics, known_columns, remembered, table_digest
from jobs.export.export_gate import check_export
from jobs.export.late_events import look_back
from jobs.export.read_ahead import read_ahead
from jobs.export.settle_events import EventSettler
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import Window
from jobs.lake.summary import summarise
from jobs.quality.override import GateOverride
from jobs.quality.row_rules import Checked, check_rows
from jobs.quality.snapshot_rules import Snapshot
from jobs.sources.protocol import Source
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.source import EventsFile, EventsQuery, FileTable, QueryTable, SourceSettings
from schemas.tables import EVENTS, Table

log = logging.getLogger(__name__)


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
    """Stream the source into a new attempt and publish it if its gate lets it; return what became of every row.

    Raises: SchemaError if the source has not the columns that it had at the export before.
    """
    data = lake.attempt(Partition(table.name, date), run_id)
    aside = lake.attempt(Partition(f"quarantine_{table.name}", date), run_id)
    parameters = {"source": source.name, "settings_sha256": settings_digest(settings)}
    said: FileTable | QueryTable = getattr(settings, table.name)
    digest = table_digest(settings, table)
    before = remembered(lake, table, date, digest)
    back = look_back(lake, window, said.late_days if isinstance(said, EventsFile | EventsQuery) else 0)
    with _explained(lake):
        with _dropped_on_failure(data, aside), BucketFiles(data) as good_files, BucketFiles(aside) as aside_files:
            with (
                source.reading(table, back.reach, known_columns=known_columns(before)) as reading,
                contextlib.closing(reading.batches),  # type: ignore[type-var]  # sources are generators
            ):
                columns = column_metrics(table, reading, before, digest)
                if columns["new_source_columns"]:
                    log.warning("%s has new columns: %s", table.name, ", ".join(columns["new_source_columns"]))
                files = _Files(good_files, aside_files)
                with read_ahead(reading.batches) as batches:
                    checked = _checked(table, back.reach, batches, reading.holds_all_days, said.timezone, files)
                    if table is EVENTS:
                        whole_rows = isinstance(said, EventsFile | EventsQuery) and said.duplicates == "quarantine"
                        with EventSettler(back, window, whole_rows=whole_rows) as settler:
                            _stream_events(checked, settler, files)
                    else:
                        _stream_snapshot(table, checked, files)
            account = files.account
            account.check(table, date, window, source.name)
            entries, aside_entries = good_files.finish(), aside_files.finish()
            account.check_written(sum(entry.rows for entry in entries), sum(entry.rows for entry in aside_entries))
            passed = check_export(data, entries, account, window, override)
        # The data's manifest comes last: it is what the next stage starts from.
        aside_manifest = aside.publish(aside_entries, inputs=[], parameters=parameters, window=window)
        metrics = account.as_json() | columns | {"quarantine_sha256": aside_manifest.content_sha256}
        metrics |= dict(passed.metrics)
        manifest = data.publish(entries, inputs=back.earlier, parameters=parameters, window=window, metrics=metrics)
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


class _Files:
    """Where rows go, and the count of them."""

    def __init__(self, good: BucketFiles, aside: BucketFiles) -> None:
        self._good = good
        self._aside = aside
        self.account = Account()

    def use(self, good: pa.Table) -> None:
        """Write rows that are used."""
        self.account.rows += good.num_rows
        self._good.write(good)

    def set_aside(self, quarantined: pa.Table) -> None:
        """Write rows that are not used."""
        self.account.add_quarantined(quarantined)
        self._aside.write(quarantined)

    def drop_addresses(self, addresses: pa.Table) -> None:
        """Write which users stay without their address."""
        self.account.add_addresses(addresses)
        self._aside.write(addresses)


def _checked(
    table: Table,
    window: Window,
    batches: Iterator[pa.RecordBatch],
    holds_all_days: bool,
    zone: str | None,
    files: _Files,
) -> Iterator[Checked]:
    """Hold each batch to the rules of single rows."""
    for rows in batches:
        result = check_rows(table, rows, window, holds_all_days=holds_all_days, zone=zone)
        files.account.add_read(result)
        files.set_aside(result.quarantined)
        yield result


def _stream_events(batches: Iterator[Checked], settler: EventSettler, files: _Files) -> None:
    for checked in batches:
        files.use(settler.add(checked))
    for settled in settler.settle():
        files.use(settled.good)
        files.set_aside(settled.quarantined)
        files.account.already_exported += settled.already_exported
        files.account.late.update(settled.late)


def _stream_snapshot(table: Table, batches: Iterator[Checked], files: _Files) -> None:
    with Snapshot(table) as snapshot:
        for checked in batches:
            snapshot.add(checked)
        for settled in snapshot.settle():
            files.use(settled.good)
            files.set_aside(settled.quarantined)
            files.drop_addresses(settled.addresses)


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
