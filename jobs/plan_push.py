"""Decide for every user what is pushed, cut it into chunks with a start each, and freeze that in the ledger.

Reads:  recommendations, suppressions and users of the date, the newest mirror before it
Writes: chunks of the campaign and date; the plan in the ledger
Run:    python -m jobs.plan_push --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml --ledger sqlite:///LEDGER
"""

import argparse
import datetime as dt
import functools
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from jobs.command_line import add_ledger, job_parser, run
from jobs.delivery.addresses import ADDRESS_KEY
from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.mail_sender import MAILS_PER_REQUEST
from jobs.delivery.override_book import note_override
from jobs.delivery.people_book import Erased, erased
from jobs.delivery.plan import plan_bucket
from jobs.delivery.plan_gates import SENDS_COMPARED, strange_in_plan
from jobs.delivery.ramp import last_end, ramp_offsets
from jobs.delivery.timing import utc_now
from jobs.finish_build import finished_recommendations
from jobs.lake.lake import Attempt, Lake
from jobs.lake.list_columns import lengths
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.summary import summarise
from jobs.quality.override import GateOverride
from schemas.campaign import Campaign, PushSettings, load_campaign
from schemas.errors import ConfigError, EmptyPartitionError, GateError
from schemas.layout import Partition
from schemas.push_method import CONTACT_METHODS, PushMethod
from schemas.tables import MIRROR, PLAN_ACTIONS

MIRROR_DAYS = 366  # a user not pushed for a year is no longer known to hold anything
CONTACTS_PER_REQUEST = 4_000  # 6 MB of contacts with six items of four fields; sets how fast the ramp rises
REQUESTS_PER_FILE = 2  # an import's request and its upload

_log = logging.getLogger(__name__)
_USER_COLUMNS = ["user_id", "email", "is_subscribed", "locale", "properties"]


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = job_parser(__doc__, campaign=True)
    add_ledger(parser)
    parser.add_argument("--full", action="store_true", help="push everybody's content, whatever the provider holds")
    parser.add_argument("--method", choices=CONTACT_METHODS, help="of contacts; instead of the campaign's push.method")
    parser.add_argument("--ramp-minutes", type=int, help="instead of the campaign's ramp_minutes")
    return parser


def main(
    *,
    lake: str,
    date: dt.date,
    run_id: str,
    campaign: Path,
    ledger: str,
    ramp_minutes: int | None = None,
    full: bool = False,
    method: PushMethod | None = None,
    override: GateOverride | None = None,
) -> dict[str, Any]:
    """Publish and freeze the plan; return users by action.

    A plan of which anything was pushed already holds: it is returned, whatever the inputs are now.
    Raises: GateError if the plan is outside its bands and nobody overrides that; EmptyPartitionError if nobody would
    get anything, and the campaign does not say that this may be.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    partition = Partition("chunks", date, settings.name)
    this_run, books = Run(settings.name, date), Ledger(ledger, utc_now)
    method_asked = method or settings.push.method
    if method and settings.push.method not in CONTACT_METHODS:
        raise ConfigError(
            f"--method {method}: {settings.name} is pushed by {settings.push.method}, which keeps no contacts; change "
            "push.method in the campaign's file instead"
        )
    if books.is_started(this_run):
        if (held := books.method(this_run)) != method_asked:
            _log.warning("the push of %s has begun, by the method %s, and ends by it: not %s", date, held, method_asked)
        return _describe(_frozen(opened, partition, books, this_run), books, this_run)

    recommendations = finished_recommendations(opened, date, settings.name)
    users = opened.manifest(Partition("users", date))
    suppressions = opened.manifest(Partition("suppressions", date, settings.name))
    yesterday = date - dt.timedelta(days=1)
    mails = method_asked == "mail_send"
    mirror = None if mails else opened.latest("mirror", up_to=yesterday, campaign=settings.name, days=MIRROR_DAYS)
    inputs = [recommendations, users, suppressions, *([mirror] if mirror else [])]
    push = settings.push if ramp_minutes is None else settings.push.model_copy(update={"ramp_minutes": ramp_minutes})
    since = mirror.partition.date if mirror else dt.date.min
    if mails:
        _log.info("by Mail Send: nothing is kept at the provider, so everybody's content is sent and nobody is cleared")
        full = True
    elif unknown := books.unreconciled_dates(this_run, since):
        _log.warning("%s were pushed and never reconciled: everybody's content is pushed", ", ".join(unknown))
        full = True
    gone = erased(books)
    chunk_users = push.users_of_chunk(method_asked)
    # The number of tombstones tells plans apart: there are only ever more of them.
    parameters = {"chunk_users": chunk_users, "full": full, "erased": len(gone), **settings.audience_parameters()}
    manifest = opened.reusable(partition, inputs=inputs, parameters=parameters)
    if manifest is None:
        from jobs.spark_session import map_parts, open_session

        attempt = opened.attempt(partition, run_id)
        suppressed = opened.read(suppressions)["address_key"].to_numpy()
        key = books.key(ADDRESS_KEY)
        work = functools.partial(
            _plan_bucket,
            attempt,
            recommendations,
            users,
            mirror,
            suppressed,
            gone,
            key,
            chunk_users,
            settings,
            full,
        )
        results = map_parts(open_session("plan_push"), work, range(opened.buckets), "plan user buckets")
        manifest = attempt.publish(
            [entry for entry, _, _ in results],
            inputs=inputs,
            parameters=parameters,
            metrics={
                **{action: sum(counts[action] for _, counts, _ in results) for action in PLAN_ACTIONS},
                "withheld_by_reason": _add(counts["withheld_by_reason"] for _, counts, _ in results),
                "upsert_by_variant": _add(counts["upsert_by_variant"] for _, counts, _ in results),
                "holders": sum(counts["holders"] for _, counts, _ in results),
                "chunks": sum(len(parts) for _, _, parts in results),
                "parts": {str(entry.bucket): parts for entry, _, parts in results if parts},
            },
        )
    if manifest.metrics["upsert"] == 0 and not settings.mail.may_be_empty:
        raise EmptyPartitionError(
            f"nobody of {manifest.rows} users would be mailed on {date}: {dict(manifest.metrics)}; check the users "
            "table's subscriptions and addresses. Nothing was pushed and nobody was cleared"
        )
    recipients_before = books.recipients_before(this_run, SENDS_COMPARED)
    _check_gates(manifest, recipients_before, settings, books, override)
    users_per_second = _users_per_second(manifest, push, method_asked)
    chunks = _chunks(manifest, push.ramp_users_per_second(users_per_second), push.ramp_minutes)
    if manifest.metrics["upsert"] == 0:
        chunks = []  # nobody is mailed, so nobody is cleared either: that waits for a night with a send
    counts = {action: int(manifest.metrics[action]) for action in PLAN_ACTIONS}
    _, _, start_at = books.freeze_plan(
        this_run,
        manifest.content_sha256,
        counts,
        chunks,
        deadline_minutes=push.deadline_minutes,
        method=method_asked,
    )
    frozen = _describe(_frozen(opened, partition, books, this_run), books, this_run)
    return {**frozen, **_forecast(chunks, start_at, users_per_second, push.deadline_minutes)}


def _plan_bucket(
    attempt: Attempt,
    recommendations: Manifest,
    users: Manifest,
    mirror: Manifest | None,
    suppressed: npt.NDArray[np.int64],
    gone: Erased,
    address_key: str,
    chunk_users: int,
    settings: Campaign,
    full: bool,
    bucket: int,
) -> tuple[FileEntry, dict[str, Any], list[int]]:
    lake = attempt.lake
    held = lake.read(mirror, bucket=bucket) if mirror else MIRROR.schema.empty_table()
    rows = plan_bucket(
        lake.read(recommendations, bucket=bucket, columns=["user_id", "item"]),
        lake.read(users, bucket=bucket, columns=_USER_COLUMNS),
        held,
        suppressed,
        erased=gone,
        address_key=address_key,
        chunk_users=chunk_users,
        audience=settings.audience,
        experiment=settings.experiment,
        is_full=full,
    )
    actions = Counter(rows["action"].to_pylist())
    withheld = Counter(rows.filter(pc.equal(rows["action"], "withheld"))["reason"].to_pylist())
    mailed = rows.filter(pc.and_(pc.equal(rows["action"], "upsert"), pc.not_equal(rows["variant"], "")))
    part = rows["part"].to_numpy()
    counts = {
        **{action: actions[action] for action in PLAN_ACTIONS},
        "withheld_by_reason": dict(withheld),
        "holders": int((lengths(held["item"]) > 0).sum()),
        "upsert_by_variant": dict(Counter(mailed["variant"].to_pylist())),
    }
    return attempt.write(rows, bucket=bucket), counts, np.bincount(part[part >= 0]).tolist()


def _users_per_second(manifest: Manifest, push: PushSettings, method: PushMethod) -> float:
    """How many users the request rate lets through: by file as many as a chunk has, for two requests."""
    if method != "csv_import":
        return push.requests_per_second * (MAILS_PER_REQUEST if method == "mail_send" else CONTACTS_PER_REQUEST)
    users = [users for counts in manifest.metrics["parts"].values() for users in counts]
    return push.requests_per_second / REQUESTS_PER_FILE * max(1.0, float(np.mean(users or [1])))


def _chunks(manifest: Manifest, ramp: tuple[float, float], ramp_minutes: int) -> list[ChunkPlan]:
    """Number the parts of all buckets, in order, and give each its start."""
    parts = [
        (int(bucket), part, users)
        for bucket, counts in sorted(manifest.metrics["parts"].items(), key=lambda pair: int(pair[0]))
        for part, users in enumerate(counts)
    ]
    start, full = ramp
    offsets = ramp_offsets([users for _, _, users in parts], start=start, full=full, ramp_minutes=ramp_minutes)
    return [
        ChunkPlan(number, bucket, part, users, offset)
        for number, ((bucket, part, users), offset) in enumerate(zip(parts, offsets, strict=True))
    ]


def _check_gates(
    manifest: Manifest, recipients_before: list[int], settings: Campaign, books: Ledger, override: GateOverride | None
) -> None:
    """Stop a plan that is not like those before, unless a named person says that it is right."""
    strange = strange_in_plan(
        manifest.metrics, holders=manifest.metrics["holders"], recipients_before=recipients_before, gates=settings.gates
    )
    if strange and override is None:
        raise GateError(
            f"{manifest.partition}: {'; '.join(strange)}. Nothing was pushed, nobody was cleared. If the data is "
            "right, give override_gates_by and override_gates_reason"
        )
    if strange and override is not None:
        _log.warning("%s, and goes on by the word of %s: %s", "; ".join(strange), override.by, override.reason)
        note_override(books, Run(settings.name, manifest.partition.date), "plan_push", "; ".join(strange), override)


def _forecast(
    chunks: list[ChunkPlan], start_at: dt.datetime, users_per_second: float, deadline_minutes: int
) -> dict[str, str]:
    """Say when the last chunk will be pushed, if all of them carry content and the provider keeps up."""
    if not chunks:
        return {}
    users, offsets = [chunk.users for chunk in chunks], [chunk.offset_seconds for chunk in chunks]
    seconds = last_end(users, offsets, users_per_second=users_per_second)
    end_at, deadline_at = (start_at + dt.timedelta(seconds=s) for s in (seconds, deadline_minutes * 60))
    text = end_at.isoformat(timespec="seconds")
    if end_at > deadline_at:
        _log.warning("the push will end at about %s, past its deadline %s: the rest expires", text, deadline_at)
    else:
        _log.info("the push will end at about %s", text)
    return {"forecast_end_at": text, "deadline_at": deadline_at.isoformat(timespec="seconds")}


def _frozen(lake: Lake, partition: Partition, books: Ledger, this_run: Run) -> Manifest:
    """Return the manifest of the plan in the ledger.

    Raises: GateError if the lake's plan is another one.
    """
    manifest, (digest, _, _) = lake.manifest(partition), books.plan(this_run)
    if manifest.content_sha256 != digest:
        raise GateError(
            f"{partition} is not the plan that the ledger froze; nothing more is pushed. Restore the lake's partition"
        )
    return manifest


def _describe(manifest: Manifest, books: Ledger, this_run: Run) -> dict[str, Any]:
    """The counts of the plan, and how it is pushed; its parts are the ledger's chunks."""
    counts = {name: value for name, value in summarise(manifest).items() if name != "parts"}
    return {**counts, "method": books.method(this_run)}


def _add(counters: Any) -> dict[str, int]:
    return dict(sum((Counter(counter) for counter in counters), Counter()))


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
