"""The manifest: the one file that publishes a partition and says how it came about."""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from schemas.errors import StorageError
from schemas.layout import Partition

FORMAT = 1

Json = Mapping[str, Any]


@dataclass(frozen=True)
class FileEntry:
    """One data file: its name inside the attempt's folder and what must be found in it."""

    name: str
    bucket: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Window:
    """A half-open span of UTC instants."""

    start_at: dt.datetime
    end_at: dt.datetime

    def __post_init__(self) -> None:
        """Refuse a window that is empty or not in UTC: a zero-length one would export nothing, silently."""
        if self.start_at.utcoffset() != dt.timedelta(0) or self.end_at.utcoffset() != dt.timedelta(0):
            raise StorageError(f"window {self.start_at} to {self.end_at} is not in UTC; pass UTC instants")
        if not self.start_at < self.end_at:
            raise StorageError(f"window {self.start_at} to {self.end_at} is empty; expected its end after its start")

    @classmethod
    def of_days(cls, first: dt.date, last: dt.date) -> Self:
        """Span whole UTC days, both included."""
        start = dt.datetime.combine(first, dt.time(), dt.UTC)
        return cls(start, dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC))

    def as_json(self) -> Json:
        """Write both instants in ISO 8601."""
        return {"start_at": self.start_at.isoformat(), "end_at": self.end_at.isoformat()}


@dataclass(frozen=True)
class Manifest:
    """What a partition holds and what it was made from.

    `inputs` maps each input partition to the content digest it had; `content_sha256` covers the schema version and
    the data files alone, so that two runs that made the same bytes have the same one whatever their ids.
    """

    partition: Partition
    schema_version: int
    buckets: int
    run_id: str
    attempt: str
    folder: str
    inputs: Mapping[str, str]
    window: Json | None
    parameters: Json
    code_version: str
    files: tuple[FileEntry, ...]
    sequence: int = 1
    metrics: Json = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(entry.rows for entry in self.files)

    @property
    def content_sha256(self) -> str:
        """Digest of what the partition holds, whoever wrote it and when."""
        digest = hashlib.sha256(f"{self.partition.table} v{self.schema_version} b{self.buckets}".encode())
        for entry in self.files:
            digest.update(f"{entry.name}:{entry.sha256}\n".encode())
        return digest.hexdigest()

    def made_from(self, *, inputs: Mapping[str, str], window: Json | None, parameters: Json, code_version: str) -> bool:
        """Tell whether these inputs, settings and code are those that made this partition."""
        return (
            dict(self.inputs) == dict(inputs)
            and self.window == window
            and dict(self.parameters) == dict(parameters)
            and self.code_version == code_version
        )

    def to_bytes(self) -> bytes:
        """Serialise, keys in a fixed order, with the digests a reader checks first."""
        body = {
            "format": FORMAT,
            "table": self.partition.table,
            "date": self.partition.date.isoformat(),
            "campaign": self.partition.campaign,
            "schema_version": self.schema_version,
            "buckets": self.buckets,
            "sequence": self.sequence,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "folder": self.folder,
            "inputs": dict(sorted(self.inputs.items())),
            "window": self.window,
            "parameters": dict(self.parameters),
            "code_version": self.code_version,
            "rows": self.rows,
            "content_sha256": self.content_sha256,
            "metrics": dict(self.metrics),
            "files": [asdict(entry) for entry in self.files],
        }
        return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse and check a manifest.

        Raises: StorageError if it is torn, of another format, or its own digest does not fit its files.
        """
        try:
            body = json.loads(data)
            if body["format"] != FORMAT:
                raise StorageError(
                    f"{where} has format {body['format']}, this code reads {FORMAT}; use the release that wrote it"
                )
            manifest = cls(
                partition=Partition(body["table"], dt.date.fromisoformat(body["date"]), body["campaign"]),
                schema_version=body["schema_version"],
                buckets=body["buckets"],
                sequence=body["sequence"],
                run_id=body["run_id"],
                attempt=body["attempt"],
                folder=body["folder"],
                inputs=body["inputs"],
                window=body["window"],
                parameters=body["parameters"],
                code_version=body["code_version"],
                files=tuple(FileEntry(**entry) for entry in body["files"]),
                metrics=body["metrics"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{where} is not a whole manifest ({type(error).__name__}); rebuild the partition"
            ) from error
        if manifest.rows != body["rows"] or manifest.content_sha256 != body["content_sha256"]:
            raise StorageError(f"{where} does not fit its own digest; it was edited or torn: rebuild the partition")
        return manifest
