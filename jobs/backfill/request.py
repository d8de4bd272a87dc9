"""What somebody asked a backfill for, and the staged lake that it works in."""

import argparse
import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from jobs.lake.lake import Lake
from jobs.quality.reasons import refuse_empty_reason
from schemas.campaign import Campaign, load_campaign
from schemas.errors import ConfigError, EmptyPartitionError
from schemas.layout import Partition, safe_name

STAGING: Final = "staging"
MAX_DATES: Final = 31  # each takes a copy of the profiles and a training
_REQUEST_PATH: Final = "_backfill.json"


@dataclass(frozen=True)
class BackfillRequest:
    """Which dates of which campaign are to be built again with the catalog as the source has it now, and why."""

    campaign: str
    first_date: dt.date
    last_date: dt.date
    reason: str

    def __post_init__(self) -> None:
        """Refuse what nobody can have meant.

        Raises: ConfigError.
        """
        days = (self.last_date - self.first_date).days + 1
        if not 1 <= days <= MAX_DATES:
            raise ConfigError(
                f"first_date {self.first_date} to last_date {self.last_date} are {days} dates; expected 1 to "
                f"{MAX_DATES}, the first not after the last. Split a longer span into several backfills"
            )
        refuse_empty_reason(self.reason, "what was wrong with the old catalog")

    @property
    def dates(self) -> list[dt.date]:
        """Every date asked for, in order."""
        return [self.first_date + dt.timedelta(days=day) for day in range((self.last_date - self.first_date).days + 1)]

    def to_bytes(self) -> bytes:
        """Serialise."""
        body = {**vars(self), "first_date": self.first_date.isoformat(), "last_date": self.last_date.isoformat()}
        return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse what `to_bytes` wrote."""
        body = json.loads(data)
        dates = {name: dt.date.fromisoformat(body[name]) for name in ("first_date", "last_date")}
        return cls(campaign=body["campaign"], reason=body["reason"], **dates)


@dataclass(frozen=True)
class Backfill:
    """A backfill under way: the live lake, the staged one, and what was asked for."""

    id: str
    live: Lake
    staged: Lake
    request: BackfillRequest
    settings: Campaign

    @classmethod
    def begin(cls, *, lake: str, run_id: str, campaign: Path, request: BackfillRequest) -> Self:
        """Make the staged lake, or go on in it.

        Raises: ConfigError if a backfill of this name was asked for something else.
        """
        live, staged_uri = Lake.open(lake), _staged_uri(lake, run_id)
        staged = Lake.open(staged_uri, buckets=live.buckets)
        held = staged.storage.read(_REQUEST_PATH)
        if held is None:
            staged.storage.replace_if(_REQUEST_PATH, request.to_bytes(), None)
        elif held != request.to_bytes():
            raise ConfigError(f"{staged_uri} was begun for another request; start a new run for other dates or reasons")
        return cls(safe_name(run_id), live, staged, request, load_campaign(campaign))

    @classmethod
    def open(cls, *, lake: str, run_id: str, campaign: Path) -> Self:
        """Open a backfill that was staged.

        Raises: EmptyPartitionError if it was not; ConfigError if it is another campaign's.
        """
        live, staged_uri = Lake.open(lake), _staged_uri(lake, run_id)
        held = live.storage.read(f"{STAGING}/{safe_name(run_id)}/{_REQUEST_PATH}")
        if held is None:
            raise EmptyPartitionError(f"{staged_uri} holds no backfill; run stage_backfill with this run id first")
        request, settings = BackfillRequest.from_bytes(held), load_campaign(campaign)
        if request.campaign != settings.name:
            raise ConfigError(f"{staged_uri} is a backfill of {request.campaign}, got campaign {settings.name}")
        return cls(safe_name(run_id), live, Lake.open(staged_uri), request, settings)


def planned_dates(live: Lake, request: BackfillRequest) -> list[dt.date]:
    """Name the dates whose push was planned: their mails are made from the recommendations there are."""
    return [date for date in request.dates if live.find(Partition("chunks", date, request.campaign))]


def _staged_uri(lake: str, run_id: str) -> str:
    return f"{lake.rstrip('/')}/{STAGING}/{safe_name(run_id)}"


def backfill_parser(doc: str | None) -> argparse.ArgumentParser:
    """Start the options of a backfill's jobs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the live lake: a folder or s3://bucket/prefix")
    parser.add_argument("--run-id", required=True, help="names the backfill; the same in all its steps")
    parser.add_argument("--campaign", required=True, type=Path, help="the campaign's settings file (TOML)")
    return parser
