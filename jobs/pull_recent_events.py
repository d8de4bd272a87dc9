"""Read once more what happened since the build: the events from the end of the date up to now, for the last look.

They are read with the rules of the export, but only to rule items out: tomorrow's export reads, counts and quarantines
them again, and nothing else starts from here.

Reads:  the source that the settings file describes
Writes: recent_events of the campaign and date
Run:    python -m jobs.pull_recent_events --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --source docs/examples/demo_shop.toml
"""

import argparse
import contextlib
import datetime as dt
import functools
import os
from pathlib import Path
from typing import Any

from jobs.command_line import job_parser, run
from jobs.delivery.timing import utc_now
from jobs.export.bucket_files import BucketFiles
from jobs.export_table import SOURCE_URI_VARIABLE
from jobs.lake.lake import Lake
from jobs.lake.manifest import Window
from jobs.lake.summary import summarise
from jobs.quality.row_rules import check_rows
from jobs.sources.open_source import open_source
from schemas.campaign import MailSettings, load_campaign
from schemas.errors import ConfigError
from schemas.layout import Partition
from schemas.source import load_source
from schemas.tables import EVENTS, RECENT_EVENTS


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    parser.add_argument("--source", required=True, type=Path, help="the source's settings file (TOML)")
    parser.add_argument("--data", help="where the data is, instead of the place that the settings name")
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    source: Path,
    data: str | None = None,
    source_uri: str | None = None,
) -> dict[str, Any]:
    """Publish the events since the build; return how many there are. None is fine.

    Raises: ConfigError if the date is not over yet, or settings and source do not fit.
    """
    opened, mail, settings = Lake.open(lake), load_campaign(campaign).mail, load_source(source)
    read_at = utc_now()
    window = recent_window(date, mail, read_at)
    shop = open_source(settings, settings_path=source, data=data, source_uri=source_uri)
    attempt = opened.attempt(Partition(RECENT_EVENTS.name, date, campaign.stem), run_id)
    read = rows = 0
    with BucketFiles(attempt) as files:
        with (
            shop.reading(EVENTS, window) as reading,
            contextlib.closing(reading.batches),  # type: ignore[type-var]  # sources are generators
        ):
            for batch in reading.batches:
                checked = check_rows(
                    EVENTS, batch, window, holds_all_days=reading.holds_all_days, zone=settings.events.timezone
                )
                files.write(checked.good)
                read, rows = read + checked.read, rows + checked.good.num_rows
        entries = files.finish()
    manifest = attempt.publish(
        entries,
        inputs=[],
        parameters={"source": shop.name},
        window=window,
        metrics={"read": read, "unused": read - rows, "read_at": read_at.isoformat(timespec="seconds")},
    )
    return summarise(manifest)


def recent_window(date: dt.date, mail: MailSettings, now: dt.datetime) -> Window:
    """Span what no build has seen yet: from the end of the date to now.

    A rehearsal of a past date looks up to when its mail was due: what came later it could not have known.
    Raises: ConfigError if the date is not over.
    """
    start_at = Window.of_days(date, date).end_at
    due_at = mail.send_time.due_at(date)
    end_at = now if now <= due_at + dt.timedelta(minutes=mail.max_lateness_minutes) else due_at
    if end_at <= start_at:
        raise ConfigError(f"{date} is not over at {now.isoformat(timespec='seconds')}; expected a date in the past")
    return Window(start_at, end_at)


if __name__ == "__main__":
    run(functools.partial(main, source_uri=os.environ.get(SOURCE_URI_VARIABLE)), arg_parser())
