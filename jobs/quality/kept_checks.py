"""What a gate found, as it is kept: every figure with its bounds and verdict. Numbers and a decision, no values.

What passed lies beside its data files (and is deleted with them); what was stopped lies in the partition's folder,
because its files are gone, until something passes.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import Manifest
from schemas.errors import PublishConflictError
from schemas.layout import CHECKS_NAME, Partition

Verdict = Literal["passed", "failed", "error", "overridden", "skipped"]
STOPS: Final = frozenset({"failed", "error"})


@dataclass(frozen=True)
class CheckResult:
    """One check: the figure, what it was, what was expected, and why it was skipped where it was."""

    figure: str
    observed: float | None
    expected: str
    verdict: Verdict
    why: str
    skipped_because: str | None = None


@dataclass(frozen=True)
class KeptChecks:
    """All checks of one attempt at a partition. `message` is what the run stopped with, if it did."""

    partition: str
    run_id: str
    verdict: Literal["passed", "overridden", "stopped"]
    override: Mapping[str, str] | None
    message: str | None
    checks: tuple[CheckResult, ...]

    def to_bytes(self) -> bytes:
        """Serialise."""
        body = asdict(self) | {"checks": [asdict(check) for check in self.checks]}
        return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse what `to_bytes` wrote."""
        body: dict[str, Any] = json.loads(data)
        return cls(**{**body, "checks": tuple(CheckResult(**check) for check in body["checks"])})


def keep_passed(attempt: Attempt, checks: KeptChecks) -> None:
    """Put the checks beside the files that they are about, before these are published."""
    with contextlib.closing(attempt.lake.storage.create(f"{attempt.folder}/{CHECKS_NAME}")) as file:
        file.write(checks.to_bytes())


def keep_stopped(attempt: Attempt, checks: KeptChecks) -> None:
    """Keep why nothing was published; another run that stopped at the same moment may have the last word."""
    storage, path = attempt.lake.storage, attempt.partition.stopped_path
    with contextlib.suppress(PublishConflictError):
        storage.replace_if(path, checks.to_bytes(), storage.read(path))


def forget_stopped(lake: Lake, partition: Partition) -> None:
    """Drop what was stopped before: by now something passed."""
    held = lake.storage.read(partition.stopped_path)
    if held is not None:
        with contextlib.suppress(PublishConflictError):
            lake.storage.delete_if(partition.stopped_path, held)


def read_passed(lake: Lake, manifest: Manifest) -> KeptChecks | None:
    """Return the checks of a published partition; None for one that has no gate."""
    data = lake.storage.read(f"{manifest.folder}/{CHECKS_NAME}")
    return None if data is None else KeptChecks.from_bytes(data)


def read_stopped(lake: Lake, partition: Partition) -> KeptChecks | None:
    """Return why the partition's last run was stopped, if nothing passed since."""
    data = lake.storage.read(partition.stopped_path)
    return None if data is None else KeptChecks.from_bytes(data)
