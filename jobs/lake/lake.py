"""Writing and reading partitions: files into a fresh attempt, one manifest to publish, verified reads.

Nobody lists a folder to find data: a reader takes a manifest, and every file is checked against it (size and SHA-256
of the whole file, page checksums while decoding) before a row is used.
"""

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.code_version import code_version
from jobs.lake.hashing_file import HashingFile
from jobs.lake.manifest import FileEntry, Json, Manifest, Window
from jobs.lake.storage import Storage, open_storage
from schemas.errors import ConfigError, EmptyPartitionError, PublishConflictError, SchemaError, StorageError
from schemas.layout import Partition, data_file_name, safe_name
from schemas.tables import INSTANT, TABLES, Table

DEFAULT_BUCKETS: Final = 64
_SETTINGS_PATH: Final = "_lake.json"

# Without page checksums 76 to 275 of 300 flipped bits went unseen in a reader; with them, none.
_WRITE_OPTIONS: Final[Mapping[str, Any]] = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}


@dataclass(frozen=True)
class Lake:
    """A lake and the one number that all its per-user tables share."""

    uri: str
    buckets: int

    @classmethod
    def open(cls, uri: str, *, buckets: int | None = None) -> Self:
        """Open a lake; the first one to open it settles the number of user buckets for good.

        Raises: ConfigError if `buckets` differs from what the lake was made with.
        """
        storage = open_storage(uri)
        data = storage.read(_SETTINGS_PATH)
        if data is None:
            settings = json.dumps({"buckets": buckets or DEFAULT_BUCKETS}).encode()
            try:
                storage.replace_if(_SETTINGS_PATH, settings, None)
            except PublishConflictError:  # another job opened the new lake at the same moment
                settings = storage.read(_SETTINGS_PATH) or settings
            data = settings
        found = int(json.loads(data)["buckets"])
        if buckets is not None and buckets != found:
            raise ConfigError(
                f"lake {uri} has {found} user buckets, asked for {buckets}; the number is settled when a lake is made: "
                f"leave the setting at {found} or start a new lake"
            )
        return cls(uri, found)

    @property
    def storage(self) -> Storage:
        """The files (made anew at each use, so that a Lake can be sent to a Spark worker)."""
        return open_storage(self.uri)

    def find(self, partition: Partition) -> Manifest | None:
        """Return the partition's manifest, or None where it was never published."""
        data = self.storage.read(partition.manifest_path)
        if data is None:
            return None
        manifest = Manifest.from_bytes(data, f"{self.uri}/{partition.manifest_path}")
        expected = TABLES[partition.table].version
        if manifest.schema_version != expected:
            raise SchemaError(
                f"{partition} has schema version {manifest.schema_version}, this code reads {expected}; rebuild it"
            )
        return manifest

    def manifest(self, partition: Partition) -> Manifest:
        """Return the partition's manifest.

        Raises: EmptyPartitionError if it was never published.
        """
        manifest = self.find(partition)
        if manifest is None:
            raise EmptyPartitionError(
                f"{partition} was never published in {self.uri}; run build_recommendations for {partition.date} first"
            )
        return manifest

    def latest(self, table: str, *, up_to: dt.date, campaign: str | None = None, days: int) -> Manifest | None:
        """Return the newest published partition of the last `days` days up to and including a date."""
        for back in range(days + 1):
            manifest = self.find(Partition(table, up_to - dt.timedelta(days=back), campaign))
            if manifest is not None:
                return manifest
        return None

    def read_file(self, manifest: Manifest, entry: FileEntry, columns: list[str] | None = None) -> pa.Table:
        """Read one file of a partition and check it.

        Raises: StorageError if it is missing or not the file that the manifest names.
        """
        return self._read_entry(manifest.partition, manifest.folder, entry, columns)

    def _read_entry(
        self, partition: Partition, folder: str, entry: FileEntry, columns: list[str] | None = None
    ) -> pa.Table:
        path = f"{folder}/{entry.name}"
        data = self.storage.read(path)
        if data is None:
            raise StorageError(f"{self.uri}/{path} is named by its manifest but missing; rebuild {partition}")
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StorageError(f"{self.uri}/{path} is not the file its manifest names; rebuild {partition}")
        schema = TABLES[partition.table].schema
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        reader = pa.BufferReader(data)
        # `cast` restores nullability inside lists, which Parquet does not keep to the letter.
        return pq.read_table(reader, columns=columns, page_checksum_verification=True).cast(wanted)

    def read(self, manifest: Manifest, *, columns: list[str] | None = None, bucket: int | None = None) -> pa.Table:
        """Read a partition (or one user bucket of it), checked."""
        files = [entry for entry in manifest.files if bucket is None or entry.bucket == bucket]
        schema = TABLES[manifest.partition.table].schema
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables([wanted.empty_table(), *(self.read_file(manifest, entry, columns) for entry in files)])

    def attempt(self, partition: Partition, run_id: str) -> "Attempt":
        """Start writing a partition into a folder of its own, which nobody reads until it is published."""
        return Attempt(self, partition, safe_name(run_id), uuid.uuid4().hex)

    def reusable(
        self, partition: Partition, *, inputs: Iterable[Manifest], window: Window | None = None, parameters: Json
    ) -> Manifest | None:
        """Return the published partition if the same inputs, settings and code made it: nothing to do then."""
        found = self.find(partition)
        if found is not None and found.made_from(
            inputs=input_digests(inputs),
            window=window.as_json() if window else None,
            parameters=parameters,
            code_version=code_version(),
        ):
            return found
        return None


def input_digests(inputs: Iterable[Manifest]) -> dict[str, str]:
    """Name each input partition with the digest of what it holds now."""
    return {str(manifest.partition): manifest.content_sha256 for manifest in inputs}


@dataclass(frozen=True)
class Attempt:
    """One try at writing a partition. Picklable: Spark workers write their files through it."""

    lake: Lake
    partition: Partition
    run_id: str
    name: str

    @property
    def folder(self) -> str:
        """Where the files go, relative to the lake's root."""
        return f"{self.partition.path}/run={self.run_id}/attempt={self.name}"

    def write(self, rows: pa.Table, *, bucket: int = 0) -> FileEntry:
        """Write one file in one go; the table must have the schema's columns in its order."""
        with self.writer(bucket=bucket) as writer:
            writer.write(rows)
        return writer.entry

    def writer(self, *, bucket: int = 0, name: str | None = None) -> "FileWriter":
        """Open one file for writing batch by batch; `name` is for tables whose files are not one a bucket."""
        return FileWriter(self, bucket, name or data_file_name(bucket))

    def read(self, entry: FileEntry) -> pa.Table:
        """Read back a file of this attempt before it is published, checked.

        Raises: StorageError if it is missing or not the one that was written.
        """
        return self.lake._read_entry(self.partition, self.folder, entry)

    def publish(
        self,
        files: Iterable[FileEntry],
        *,
        inputs: Iterable[Manifest],
        parameters: Json,
        window: Window | None = None,
        metrics: Json | None = None,
        replaces: Manifest | EllipsisType | None = ...,
    ) -> Manifest:
        """Publish the files as the partition, whole, replacing what was published before.

        What was made from the same inputs with the same result stays as it is, and this attempt is dropped.
        A job whose rows build on what the partition holds passes that as `replaces`, and loses to whoever was faster.
        Raises: PublishConflictError if somebody else publishes the same partition at the same time.
        """
        storage = self.lake.storage
        before = storage.read(self.partition.manifest_path)
        current = Manifest.from_bytes(before, self.partition.manifest_path) if before is not None else None
        if replaces is not ... and replaces != current:
            raise PublishConflictError(
                f"{self.partition} changed since it was read; run the job again on what is there"
            )
        manifest = Manifest(
            partition=self.partition,
            schema_version=TABLES[self.partition.table].version,
            buckets=self.lake.buckets if TABLES[self.partition.table].bucketed else 1,
            run_id=self.run_id,
            attempt=self.name,
            folder=self.folder,
            inputs=input_digests(inputs),
            window=window.as_json() if window else None,
            parameters=parameters,
            code_version=code_version(),
            files=tuple(sorted(files, key=lambda entry: entry.bucket)),
            metrics=metrics or {},
        )
        if current is not None:
            same = current.content_sha256 == manifest.content_sha256 and current.made_from(
                inputs=manifest.inputs,
                window=manifest.window,
                parameters=parameters,
                code_version=manifest.code_version,
            )
            if same and dict(current.metrics) == dict(manifest.metrics):
                if current.folder != self.folder:  # an attempt may be published again from where it lies
                    self.discard()
                return current
            manifest = replace(manifest, sequence=current.sequence + 1)
        storage.replace_if(self.partition.manifest_path, manifest.to_bytes(), before)
        return manifest

    def discard(self) -> None:
        """Delete what this attempt wrote."""
        self.lake.storage.delete_folder(self.folder)


def _encodings(table: Table) -> dict[str, Any]:
    """Choose encodings: dictionaries for the columns that repeat, as the table says, or as its lists do.

    Keys, items, scores and instants of lists hardly repeat: without dictionaries of them profiles are written in half
    the time. Tables that say nothing and hold no lists keep the defaults.
    """
    if table.repeating is not None:
        return {"use_dictionary": list(table.repeating)}
    lists = [field for field in table.schema if pa.types.is_list(field.type)]
    if not lists:
        return {}
    elements = {f"{field.name}.list.element": field.type.value_type for field in lists}
    repeat = [name for name, kind in elements.items() if kind not in (pa.int32(), pa.float32(), INSTANT)]
    plain = [field.name for field in table.schema if field not in lists and field.name not in table.key]
    # Of the encodings that Spark reads as well, the one in which instants take 0.85 of the bytes.
    instants = {name: "DELTA_BINARY_PACKED" for name, kind in elements.items() if kind == INSTANT}
    return {"use_dictionary": [*plain, *repeat], "column_encoding": instants or None}


class FileWriter:
    """One Parquet file of an attempt, hashed while it is written. A context manager; `entry` is there after it."""

    def __init__(self, attempt: Attempt, bucket: int, name: str) -> None:
        table = TABLES[attempt.partition.table]
        self._schema = table.schema
        self._bucket = bucket
        self._name = name
        self._rows = 0
        self._file = HashingFile(attempt.lake.storage.create(f"{attempt.folder}/{name}"))
        self._writer = pq.ParquetWriter(self._file.as_arrow(), self._schema, **_WRITE_OPTIONS, **_encodings(table))

    def write(self, rows: pa.Table) -> None:
        """Append rows as one row group.

        Raises: SchemaError if columns or types are not the table's.
        """
        if rows.schema.names != self._schema.names:
            raise SchemaError(f"columns {rows.schema.names} were written, expected {self._schema.names}")
        self._writer.write_table(rows.cast(self._schema))
        self._rows += rows.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()  # also where the disk is full and the writer's last bytes are refused

    @property
    def entry(self) -> FileEntry:
        """What the manifest has to say about the file."""
        return FileEntry(self._name, self._bucket, self._rows, self._file.bytes_written, self._file.sha256)
