"""Fold the date's events, and the mails confirmed since, into the profiles of the newest earlier date.

Reads:  events of the date, item_index, the newest profiles before the date; the campaigns' receipts of earlier dates
        that those profiles do not hold yet; catalog and users of the date (their ids, for the gate); the ledger's
        tombstones
Writes: profiles of the date
Run:    python -m jobs.fold_profiles --lake LAKE --date 2026-11-02 --run-id by-hand --mailed-by resources_you_may_like
"""

import argparse
import dataclasses
import datetime as dt
import functools
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.command_line import job_parser, ledger_url, run
from jobs.delivery.ledger import Ledger
from jobs.delivery.people_book import Erased, erased
from jobs.delivery.timing import utc_now
from jobs.lake.item_index import read_index
from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import FileEntry, Manifest, Window
from jobs.lake.read_once import read_once
from jobs.lake.summary import summarise
from jobs.profiles.fold import Caps, MailedLists, fold
from jobs.profiles.mails import LATE_DAYS
from jobs.quality import gates
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import NO_TIME_OF_DAY, Figures, Observed, hours_before, observe
from jobs.quality.override import GateOverride
from schemas.contracts import CONTRACTS, PROFILES_MAX_GAP_DAYS
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.tables import MAILED_OUTCOMES, PROFILES

HISTORY_CAP = 100  # viewed items kept per user: the architecture's figure for the training matrix
STATE_CAP = 400  # carts, wishes, purchases and refunds kept per user; bounds what a bot can make a profile weigh


# Which events refer to something that is there: the figure, the other table, and the id that both have.
_REFERENCES = {
    "event_items_in_catalog_share": ("catalog", "item_id"),
    "event_users_in_users_share": ("users", "user_id"),
}


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__)
    parser.add_argument("--history-cap", type=int, default=HISTORY_CAP, help="viewed items kept per user")
    parser.add_argument(
        "--mailed-by",
        default="",
        help="campaigns whose receipts count as mailed, with commas between; none: nobody was mailed anything",
    )
    parser.add_argument(
        "--ledger", type=ledger_url, help="database URL of the ledger, or env:NAME: whom it has as erased"
    )
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    history_cap: int = HISTORY_CAP,
    mailed_by: str = "",
    ledger: str | None = None,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Publish the date's profiles, without the people whom the ledger has as erased; return how many users they hold.

    Raises: StorageError if the events do not start where the earlier profiles end; GateError if the contract of the
    profiles does not hold.
    """
    opened = Lake.open(lake)
    partition = Partition("profiles", date)
    events = opened.manifest(Partition("events", date))
    before = opened.latest("profiles", up_to=date - dt.timedelta(days=1), days=PROFILES_MAX_GAP_DAYS)
    folded_before = {str(name): str(digest) for name, digest in before.metrics["receipts"].items()} if before else {}
    receipts = _receipts(opened, date, [name for name in mailed_by.split(",") if name])
    new = [manifest for manifest in receipts if folded_before.get(str(manifest.partition)) != manifest.content_sha256]
    inputs = [events, *([before] if before else []), *new]
    caps = Caps(views=history_cap, states=STATE_CAP)
    gone = erased(Ledger(ledger, utc_now)) if ledger else None
    parameters = dataclasses.asdict(caps) | ({"erased": len(gone)} if gone else {})
    _check_windows_meet(before, events)
    if found := opened.reusable(partition, inputs=inputs, parameters=parameters):
        return summarise(found)

    # Spark is imported late: a date that is done already costs no JVM.
    from jobs.spark_session import map_parts, opening_session

    attempt = opened.attempt(partition, run_id)
    work = functools.partial(_fold_bucket, attempt, before, events, new, caps, gone)
    with opening_session("fold_profiles") as session:
        gates.load()
        results = map_parts(session.result(), work, range(opened.buckets), "fold user buckets")
    observed = Observed.total(counted for _, counted in results)
    manifest = publish_checked(
        attempt,
        [entry for entry, _ in results],
        observed,
        inputs=inputs,
        parameters=parameters,
        metrics={"receipts": {str(found.partition): found.content_sha256 for found in receipts}},
        figures=_shares(observed) | hours_before(Window.of_days(date, date).end_at, observed),
        missing={
            **NO_TIME_OF_DAY,
            **{name: f"no {table} of {date} is published" for name, (table, _) in _REFERENCES.items()},
        },
        override=override,
    )
    return summarise(manifest)


def _fold_bucket(
    attempt: Attempt,
    before: Manifest | None,
    events: Manifest,
    receipts: list[Manifest],
    caps: Caps,
    gone: Erased | None,
    bucket: int,
) -> tuple[FileEntry, Observed]:
    lake = attempt.lake
    profiles, day = lake.read(before, bucket=bucket) if before else None, lake.read(events, bucket=bucket)
    index = read_index(lake)
    mailed = [_mailed_lists(lake, manifest, bucket) for manifest in receipts]
    folded = fold(profiles, day, index, caps=caps, mailed=mailed)
    if gone:
        ids = folded["user_id"].combine_chunks()
        folded = folded.filter(pa.array(~gone.has(ids, pa.nulls(len(ids), pa.string()))))
    observed = observe(CONTRACTS[PROFILES.name], folded)
    observed.sums["items_not_in_index"] = int((flat(folded["item"]) >= len(index)).sum())
    observed.sums["events"] = len(day)
    # Users lie in the bucket of their events, so each reference is a look-up within it.
    for name, (table, column) in _REFERENCES.items():
        known = lake.find(Partition(table, attempt.partition.date))
        if known is not None:
            by_user = table == "users"
            ids = lake.read(known, columns=[column], bucket=bucket) if by_user else read_once(lake, known, [column])
            observed.sums[name] = pc.sum(pc.is_in(day[column], value_set=ids[column])).as_py() or 0
    return attempt.write(folded, bucket=bucket), observed


def _receipts(lake: Lake, date: dt.date, campaigns: list[str]) -> list[Manifest]:
    """Find the receipts of the dates before a date, newest last."""
    dates = [date - dt.timedelta(days=back) for back in range(LATE_DAYS, 0, -1)]
    found = (lake.find(Partition("receipts", day, campaign)) for day in dates for campaign in campaigns)
    return [manifest for manifest in found if manifest is not None]


def _mailed_lists(lake: Lake, receipts: Manifest, bucket: int) -> MailedLists:
    """Read who of a bucket was mailed what, or may have been; what was cleared or refused was not."""
    rows = lake.read(receipts, columns=["user_id", "item", "outcome"], bucket=bucket)
    mailed = rows.filter(pc.is_in(rows["outcome"], value_set=pa.array(MAILED_OUTCOMES)))
    return MailedLists((receipts.partition.date - dt.date(1970, 1, 1)).days, mailed)


def _shares(observed: Observed) -> Figures:
    """What part of the events refers to something that is there; none where the other table is not."""
    events = observed.sums["events"]
    shares = {name: observed.sums[name] / events for name in _REFERENCES if events and name in observed.sums}
    return {"items_not_in_index": observed.sums["items_not_in_index"], **shares}


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
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
