"""Where a table's partition lies in the lake, and what may stand in a path."""

import datetime as dt
import re
from dataclasses import dataclass

from schemas.errors import ConfigError
from schemas.tables import TABLES

MANIFEST_NAME = "_manifest.json"
CHECKS_NAME = "_checks.json"  # what a partition's gate found, beside the files that it judged
STOPPED_NAME = "_stopped_checks.json"  # what it found in files that it did not let through, until others pass
REPORT_NAME = "report.html"  # for people, beside the data files of a partition that has one
UNDATED = dt.date.min  # the date of a table that has one partition in all

# Run ids come from Airflow and hold `:` and `+`, which object stores and shells treat in ways of their own.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, order=True)
class Partition:
    """One table of one UTC day (and of one campaign, where the table is kept apart by campaign)."""

    table: str
    date: dt.date
    campaign: str | None = None

    def __post_init__(self) -> None:
        """Refuse a partition that the table cannot have."""
        table = TABLES.get(self.table)
        if table is None:
            raise ConfigError(f"no table is called {self.table!r}; the tables are {', '.join(TABLES)}")
        if table.dated == (self.date == UNDATED):
            need = "is kept by day" if table.dated else "has one partition in all"
            raise ConfigError(f"{self.table} {need}, got date={self.date}")
        if table.per_campaign != (self.campaign is not None):
            need = "needs a campaign" if table.per_campaign else "is not kept by campaign"
            raise ConfigError(f"{self.table} {need}, got campaign={self.campaign!r}")
        if self.campaign is not None and self.campaign != safe_name(self.campaign):
            raise ConfigError(f"campaign {self.campaign!r} has characters that cannot stand in a path")

    @property
    def path(self) -> str:
        """The partition's folder, relative to the lake's root."""
        parts = [self.table]
        if self.campaign:
            parts.append(f"campaign={self.campaign}")
        if self.date != UNDATED:
            parts.append(f"date={self.date.isoformat()}")
        return "/".join(parts)

    @property
    def manifest_path(self) -> str:
        """The one file that readers start from."""
        return f"{self.path}/{MANIFEST_NAME}"

    @property
    def stopped_path(self) -> str:
        """What the gate found the last time that it stopped; not there once it let something through."""
        return f"{self.path}/{STOPPED_NAME}"

    def __str__(self) -> str:
        return self.path


def safe_name(text: str) -> str:
    """Replace every run of characters outside A-Z a-z 0-9 . _ - by one hyphen."""
    return _UNSAFE.sub("-", text)


def data_file_name(bucket: int) -> str:
    """Name the file of one user bucket (or of one part, in tables without buckets)."""
    return f"part-{bucket:05d}.parquet"
