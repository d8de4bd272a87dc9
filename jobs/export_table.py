"""Export one table of one day from the shop's source into the lake, every row accounted for.

Reads:  the source that the settings file describes; the newest profiles before the date (their date alone)
Writes: events, catalog or users of the date, and what was set aside as quarantine_events, …_catalog or …_users
Run:    python -m jobs.export_table --lake LAKE --table events --date 2011-11-30
            --source docs/examples/online_retail.toml --run-id by-hand
"""

import argparse
import datetime as dt
import functools
import logging
import os
from pathlib import Path
from typing import Any, Final

from jobs.command_line import job_parser, run
from jobs.export.partition_writer import write_partition
from jobs.lake.lake import Lake
from jobs.lake.manifest import Window
from jobs.quality.override import GateOverride
from jobs.sources.open_source import open_source
from schemas.contracts import PROFILES_MAX_GAP_DAYS
from schemas.errors import ConfigError
from schemas.source import EXPORTED, load_source
from schemas.tables import EVENTS, TABLES, Table

log = logging.getLogger(__name__)

# How the URI of a source's connection comes in when the job runs as a process: it may hold a password, and arguments
# can be read by everybody on the machine.
SOURCE_URI_VARIABLE: Final = "RYML_SOURCE_URI"


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__)
    parser.add_argument("--table", required=True, choices=[table.name for table in EXPORTED])
    parser.add_argument("--source", required=True, type=Path, help="the source's settings file (TOML)")
    parser.add_argument("--data", help="where the data is, instead of the place that the settings name")
    parser.add_argument("--buckets", type=int, help="user buckets, if this makes the lake; else must fit it")
    return parser


def main(
    *,
    lake: str,
    table: str,
    date: dt.date,
    source: Path,
    data: str | None,
    run_id: str,
    buckets: int | None = None,
    source_uri: str | None = None,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Publish the table's partition of the date; return what became of every row.

    `source_uri` stands for the settings' `connection`. `read` = `rows` + `quarantined` +
    `outside_window` + `already_exported`.
    Raises: ConfigError or SchemaError if settings, source and table do not fit; EmptyPartitionError if there is
    nothing for the date; GateError if the table's contract does not hold; StorageError if the lake cannot be written.
    Nothing is published then.
    """
    target = TABLES.get(table)
    if target not in EXPORTED:
        raise ConfigError(f"table {table!r} is not exported; expected {', '.join(known.name for known in EXPORTED)}")
    settings = load_source(source)
    shop = open_source(settings, settings_path=source, data=data, source_uri=source_uri)
    opened = Lake.open(lake, buckets=buckets)
    window = export_window(opened, target, date, settings.history_days)
    log.info("exporting %s from %s, %s to %s", table, shop.name, window.start_at.date(), date)
    return write_partition(opened, target, date, window, shop, settings=settings, run_id=run_id, override=override)


def export_window(lake: Lake, table: Table, date: dt.date, history_days: int) -> Window:
    """Span the days whose events no profiles have yet, up to and including the date; at first the whole history.

    Catalog and users are snapshots as of the end of the date.
    """
    if table is not EVENTS:
        return Window.of_days(date, date)
    day_before = date - dt.timedelta(days=1)
    # The fold looks back as far as this, and refuses events that leave a gap to the profiles it finds.
    newest = lake.latest("profiles", up_to=day_before, days=PROFILES_MAX_GAP_DAYS)
    if newest is not None:
        return Window.of_days(newest.partition.date + dt.timedelta(days=1), date)
    return Window.of_days(date - dt.timedelta(days=history_days - 1), date)


if __name__ == "__main__":
    source_uri, override = os.environ.get(SOURCE_URI_VARIABLE), GateOverride.from_environment(os.environ)
    run(functools.partial(main, source_uri=source_uri, override=override), arg_parser())
