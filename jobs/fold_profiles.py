"""Fold the date's events into the profiles of the newest earlier date.

Reads:  events of the date, item_index, the newest profiles before the date
Writes: profiles of the date
Run:    python -m jobs.fold_profiles --lake LAKE --date 2026-11-02 --run-id by-hand
"""

import argparse
import datetime as dt
import functools
from typing import Any

from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index
from jobs.lake.lake import Attempt, Lake
from jobs.lake.manifest import FileEntry, Manifest, Window
from jobs.lake.summary import summarise
from jobs.profiles.fold import fold
from schemas.errors import StorageError
from schemas.layout import Partition

HISTORY_CAP = 100  # viewed items kept per user: the architecture's figure for the training matrix
STATE_CAP = 400  # carts, wishes, purchases and refunds kept per user; bounds what a bot can make a profile weigh
GAP_DAYS = 31  # how far back the newest earlier profiles are looked for; export_table uses the same number


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__)
    parser.add_argument("--history-cap", type=int, default=HISTORY_CAP, help="viewed items kept per user")
    return parser


def main(*, lake: str, date: dt.date, run_id: str, history_cap: int = HISTORY_CAP) -> dict[str, Any]:
    """Publish the date's profiles; return how many users they hold.

    Raises: StorageError if the events do not start where the earlier profiles end.
    """
    opened = Lake.open(lake)
    partition = Partition("profiles", date)
    events = opened.manifest(Partition("events", date))
    before = opened.latest("profiles", up_to=date - dt.timedelta(days=1), days=GAP_DAYS)
    inputs = [events, *([before] if before else [])]
    parameters = {"history_cap": history_cap, "state_cap": STATE_CAP}
    _check_windows_meet(before, events)
    if found := opened.reusable(partition, inputs=inputs, parameters=parameters):
        return summarise(found)

    # Spark is imported late: a date that is done already costs no JVM.
    from jobs.spark_session import map_parts, open_session

    attempt = opened.attempt(partition, run_id)
    work = functools.partial(_fold_bucket, attempt, before, events, history_cap)
    files = map_parts(open_session("fold_profiles"), work, range(opened.buckets), "fold user buckets")
    return summarise(attempt.publish(files, inputs=inputs, parameters=parameters))


def _fold_bucket(
    attempt: Attempt, before: Manifest | None, events: Manifest, history_cap: int, bucket: int
) -> FileEntry:
    lake = attempt.lake
    profiles = lake.read(before, bucket=bucket) if before else None
    folded = fold(profiles, lake.read(events, bucket=bucket), read_index(lake), cap=history_cap, state_cap=STATE_CAP)
    return attempt.write(folded, bucket=bucket)


def _check_windows_meet(before: Manifest | None, events: Manifest) -> None:
    """Every event belongs to exactly one fold: a gap would lose a day, an overlap would count one twice."""
    if before is None or events.window is None:
        return
    expected = Window.of_days(before.partition.date, before.partition.date).end_at
    start = dt.datetime.fromisoformat(events.window["start_at"])
    if start != expected:
        raise StorageError(
            f"{events.partition} starts at {start.isoformat()}, the profiles before it end at {expected.isoformat()}; "
            f"export the events of {events.partition.date} again"
        )


if __name__ == "__main__":
    run(main, arg_parser())
