"""How fast contacts are pushed, with what, and what a night costs on which little changed.

Everything goes over HTTP to a rehearsal provider without limits, which runs on this machine too: its CPU seconds are
counted apart. Contacts have six items of four fields. Four pushes: the first night (everything is new) as JSON, by one
process and in two slots as in Airflow's pool (their CPU seconds and peaks are added up), and by file (`csv_import`);
and the second night (3 % of the users have other items). Bytes are those of the bodies, and of the packed files; each
push waits until the provider has stored everything. Beside them a straightforward loop over the SDK: a dict per user,
`json`, as many contacts a request; it writes neither receipts nor a ledger, and its catalog is in memory before it
starts.

Run: python -m bench.push [--users 1000000] [--loop-users 100000]
"""

import argparse
import contextlib
import datetime as dt
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sendgrid

from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.run_context import Delivery
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import REAL_TIME, utc_now
from jobs.lake.buckets import bucket_of
from jobs.lake.lake import Lake
from jobs.lake.list_columns import list_column
from jobs.lake.manifest import Manifest
from jobs.reconcile_push import reconcile
from schemas.campaign import Campaign
from schemas.errors import RetryableMailError
from schemas.layout import UNDATED, Partition
from schemas.mail_fields import all_fields
from schemas.push_method import PushMethod
from schemas.tables import CATALOG, CHUNKS, ITEM_INDEX, TABLES, USERS

ROOT = Path(__file__).resolve().parents[1]
DATE = dt.date(2026, 11, 2)
# As large a shop sets its chunks: the most that the settings allow.
ITEMS, SLOTS, BUCKETS, CHUNK_USERS, CHANGED_SHARE = 200_000, 6, 8, 200_000, 0.03
LOOP_CONTACTS = 4_000
PROCESSES = 2
_CARRYING = ("upsert", "request_import", "upload_import")
CAMPAIGN = Campaign(
    name="bench", title="Bench", slots=SLOTS, min_items=3, mail={"subject": "Hi", "suppression_group": "Bench"},
    push={"requests_per_second": 10_000},
)  # fmt: skip


def write(lake: Lake, partition: Partition, rows: pa.Table) -> Manifest:
    """Publish a table of the lake."""
    attempt = lake.attempt(partition, "bench")
    if not TABLES[partition.table].bucketed:
        return attempt.publish([attempt.write(rows)], inputs=[], parameters={})
    bucket = bucket_of(rows["user_id"], lake.buckets)
    files = [attempt.write(rows.filter(pa.array(bucket == n)), bucket=n) for n in range(lake.buckets)]
    return attempt.publish(files, inputs=[], parameters={})


def write_inputs(lake: Lake, users: int) -> None:
    """Users, items and the catalog of two nights."""
    numbers = [f"{n:09}" for n in range(ITEMS)]
    write(lake, Partition("item_index", UNDATED), pa.table({"item": range(ITEMS), "item_id": numbers},
                                                           schema=ITEM_INDEX.schema))  # fmt: skip
    names = pa.array([f"user{n:08}" for n in range(users)])
    for date in (DATE, DATE + dt.timedelta(days=1)):
        columns: dict[str, Any] = {name: [None] * ITEMS for name in CATALOG.schema.names}
        columns |= {
            "item_id": numbers,
            "title": [f"Linen shirt, regular fit, no. {n}" for n in numbers],
            "url": [f"https://shop.example.com/item/{n}?utm_campaign=daily" for n in numbers],
            "image_url": [f"https://images.example.com/{n}/medium/front.jpg" for n in numbers],
            "price": [Decimal(n % 900 + 5) for n in range(ITEMS)], "currency": ["EUR"] * ITEMS, "stock": [5] * ITEMS,
        }  # fmt: skip
        write(lake, Partition("catalog", date), pa.table(columns, schema=CATALOG.schema))
        people: dict[str, Any] = {name: pa.nulls(users, USERS.schema.field(name).type) for name in USERS.schema.names}
        people |= {
            "user_id": names,
            "email": pc.binary_join_element_wise(names, "example.com", "@"),
            "is_subscribed": pa.array(np.ones(users, bool)),
        }
        write(lake, Partition("users", date), pa.table(people, schema=USERS.schema))


def write_plan(
    lake: Lake, ledger: Ledger, run: Run, *, changed: float, is_full: bool, method: PushMethod
) -> list[ChunkPlan]:
    """Plan everybody: lists by a seed of each user, of which a share is changed since the night before."""
    users = lake.manifest(Partition("users", run.send_date))
    mirror = lake.latest("mirror", up_to=run.send_date - dt.timedelta(days=1), campaign=run.campaign, days=2)
    attempt = lake.attempt(Partition("chunks", run.send_date, run.campaign), "bench")
    files, chunks, total = [], [], 0
    for bucket in range(lake.buckets):
        names = lake.read(users, bucket=bucket, columns=["user_id"])["user_id"]
        rows = len(names)
        draw = np.random.default_rng(bucket)
        first = popular(draw, rows)
        first = np.where(draw.random(rows) < changed, (first + 7) % (ITEMS - SLOTS), first)
        held = pa.nulls(rows, pa.int64())
        if mirror is not None and not is_full:
            known = lake.read(mirror, bucket=bucket)
            held = (
                known["content"].combine_chunks().take(pc.index_in(names, value_set=known["user_id"].combine_chunks()))
            )
        part = np.arange(rows) // CHUNK_USERS
        items = (first[:, None] + np.arange(SLOTS)).ravel()
        columns: dict[str, Any] = {
            "user_id": names, "action": ["upsert"] * rows, "reason": ["has_recommendations"] * rows,
            "item": list_column(CHUNKS, "item", items, np.full(rows, SLOTS)), "held": held,
            "part": pa.array(part, pa.int32()), "variant": [""] * rows,
        }  # fmt: skip
        files.append(attempt.write(pa.table(columns, schema=CHUNKS.schema), bucket=bucket))
        for number, count in enumerate(np.bincount(part).tolist()):
            chunks.append(ChunkPlan(len(chunks), bucket, number, count, 0.0))
        total += rows
    manifest = attempt.publish(files, inputs=[], parameters={})
    counts = {"upsert": total, "clear": 0, "unchanged": 0, "withheld": 0}
    ledger.freeze_plan(run, manifest.content_sha256, counts, chunks, method=method)
    return chunks


def popular(draw: np.random.Generator, users: int) -> npt.NDArray[np.int64]:
    """Draw each list's first item, the popular ones more often: a tenth of the items starts 46 % of the lists."""
    return ((ITEMS - SLOTS) * draw.random(users) ** 3).astype(np.int64)


def usage() -> tuple[float, float]:
    """CPU seconds and peak megabytes of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def push_night(
    folder: str,
    host: str,
    date: dt.date,
    campaign: str,
    changed: float,
    is_full: bool,
    method: PushMethod,
    results: Any,
) -> None:
    """One push in a process of its own, so that its peak is its own."""
    lake, run = Lake.open(f"{folder}/lake"), Run(campaign, date)
    ledger = Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
    chunks = write_plan(lake, ledger, run, changed=changed, is_full=is_full, method=method)
    delivery = open_delivery(folder, host, date, campaign)
    started, (cpu_before, _) = time.perf_counter(), usage()
    for chunk in chunks:
        push_chunk(delivery, chunk.chunk)
    seconds, (cpu, peak) = time.perf_counter() - started, usage()
    results.put(result(delivery, seconds, cpu - cpu_before, peak))


def open_delivery(folder: str, host: str, date: dt.date, campaign: str) -> Delivery:
    """Open a night's push, as each of its processes does."""
    lake, ledger = Lake.open(f"{folder}/lake"), Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
    settings, provider = (
        CAMPAIGN.model_copy(update={"name": campaign}),
        SendGridProvider("SG.bench", host, timeout_seconds=120),
    )
    return Delivery(lake, settings, Run(campaign, date), ledger, provider, "bench", REAL_TIME)


def result(delivery: Delivery, seconds: float, cpu: float, peak: float) -> dict[str, float]:
    """Say what a push took, once nothing is missing."""
    counts, run = reconcile(delivery), delivery.run
    with delivery.ledger.reading() as connection:
        sizes = connection.exec_driver_sql(
            f"SELECT count(*), sum(bytes) FROM requests WHERE send_date = '{run.send_date}' "  # noqa: S608
            f"AND campaign = '{run.campaign}'"
        ).one()
    changing = [call for call in delivery.book.history() if call["operation"] in _CARRYING]
    return {"users": counts["delivered"], "seconds": seconds, "cpu": cpu, "peak": peak,
            "requests": len(changing), "bytes": sizes[1]}  # fmt: skip


def push_night_in_slots(folder: str, host: str, date: dt.date, campaign: str, results: Any) -> None:
    """The full push in two slots, each a process of its own with every second chunk, as Airflow's pool lets them."""
    lake, run = Lake.open(f"{folder}/lake"), Run(campaign, date)
    ledger = Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
    write_plan(lake, ledger, run, changed=0.0, is_full=True, method="contacts")
    context = multiprocessing.get_context("spawn")
    ready, used = context.Barrier(PROCESSES + 1), context.Queue()
    slots = [
        context.Process(target=push_slot, args=(folder, host, date, campaign, slot, ready, used))
        for slot in range(PROCESSES)
    ]
    for slot in slots:
        slot.start()
    ready.wait()
    started = time.perf_counter()
    cpu, peak = (sum(figures) for figures in zip(*(used.get() for _ in slots), strict=True))
    seconds = time.perf_counter() - started
    for slot in slots:
        slot.join()
    results.put(result(open_delivery(folder, host, date, campaign), seconds, cpu, peak))


def push_slot(folder: str, host: str, date: dt.date, campaign: str, slot: int, ready: Any, used: Any) -> None:
    """Push every second chunk; say what CPU seconds and memory that took."""
    delivery = open_delivery(folder, host, date, campaign)
    _, chunks, _ = delivery.ledger.plan(delivery.run)
    ready.wait()
    cpu_before, _ = usage()
    for chunk in chunks[slot::PROCESSES]:
        push_chunk(delivery, chunk.chunk)
    cpu, peak = usage()
    used.put((cpu - cpu_before, peak))


def sdk_loop(folder: str, host: str, users: int, results: Any) -> None:
    """The straightforward loop: a dict per user, a request per 4,000, the SDK's own json."""
    provider = SendGridProvider("SG.bench", host, timeout_seconds=120)
    ids = provider.ensure_fields(all_fields(SLOTS))
    list_id = provider.ensure_list("loop")
    lake = Lake.open(f"{folder}/lake")
    catalog = lake.read(lake.manifest(Partition("catalog", DATE))).to_pylist()
    first = popular(np.random.default_rng(1), users).tolist()
    client = sendgrid.SendGridAPIClient(api_key="SG.bench", host=host).client
    started, (cpu_before, _) = time.perf_counter(), usage()
    requests, size = 0, 0
    for start in range(0, users, LOOP_CONTACTS):
        contacts = []
        for number in range(start, min(start + LOOP_CONTACTS, users)):
            fields = {ids["ryml_run"]: str(DATE), ids["ryml_count"]: str(SLOTS), ids["ryml_uid"]: f"{number:016x}"}
            for slot in range(SLOTS):
                item = catalog[first[number] + slot]
                fields[ids[f"ryml_{slot + 1}_title"]] = item["title"]
                fields[ids[f"ryml_{slot + 1}_url"]] = item["url"]
                fields[ids[f"ryml_{slot + 1}_image"]] = item["image_url"]
                fields[ids[f"ryml_{slot + 1}_price"]] = f"€{item['price']:,.2f}"
            contacts.append({"email": f"loop{number:08}@example.com", "custom_fields": fields})
        answer = client.marketing.contacts.put(request_body={"list_ids": [list_id], "contacts": contacts})
        job = json.loads(answer.body)["job_id"]
        while provider.import_job(job).status == "pending":
            time.sleep(0.1)
        requests += 1
    seconds, (cpu, peak) = time.perf_counter() - started, usage()
    results.put({"users": users, "seconds": seconds, "cpu": cpu - cpu_before, "peak": peak, "requests": requests,
                 "bytes": size})  # fmt: skip


def cpu_of(pid: int) -> float:
    """CPU seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """Run a rehearsal provider without limits; give an empty folder that holds its state, its host and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "key").write_text("SG.bench")
        command = [sys.executable, "-m", "jobs.serve_rehearsal", "--port", str(port), "--key-file", f"{folder}/key"]
        command += ["--state", f"{folder}/s.sqlite", "--job-lag-seconds", "0"]
        server = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))
        try:
            wait_for(host)
            yield folder, host, server
        finally:
            server.terminate()
            server.wait(timeout=30)


def main(users: int, loop_users: int) -> None:
    """Print one line a push."""
    context = multiprocessing.get_context("spawn")
    with serving() as (folder, host, server):
        write_inputs(Lake.open(f"{folder}/lake", buckets=BUCKETS), users)
        tomorrow = DATE + dt.timedelta(days=1)
        pushes = [
            ("sdk loop", sdk_loop, (folder, host, loop_users)),
            ("full", push_night, (folder, host, DATE, "bench", 0.0, True, "contacts")),
            ("full, 2 slots", push_night_in_slots, (folder, host, DATE, "bench_slots")),
            ("full, csv", push_night, (folder, host, DATE, "bench_csv", 0.0, True, "csv_import")),
            ("3 % changed", push_night, (folder, host, tomorrow, "bench", CHANGED_SHARE, False, "contacts")),
        ]
        found = {}
        print(f"load {os.getloadavg()[0]:.1f}, {users:,} users, {SLOTS} items x 4 fields")
        for name, work, arguments in pushes:
            results, before = context.Queue(), cpu_of(server.pid)
            process = context.Process(target=work, args=(*arguments, results))
            process.start()
            found[name] = one = results.get()
            process.join()
            print(line(name, one), f"provider CPU {cpu_of(server.pid) - before:.1f} s", flush=True)
    loop, full, slots, file, delta = (found[name] for name, _, _ in pushes)
    for what, one in (("full", full), ("full in 2 slots", slots)):
        by_cpu, by_clock = (
            (one["users"] / one[measure]) / (loop["users"] / loop[measure]) for measure in ("cpu", "seconds")
        )
        print(f"{what} against the loop: {by_clock:.1f}x by the clock, {by_cpu:.1f}x by CPU")
    print(f"load {os.getloadavg()[0]:.1f}")
    for what in ("bytes", "requests", "cpu", "seconds"):
        print(f"full by file against full, {what}: {100 * file[what] / full[what]:.1f} %")
    for what in ("bytes", "requests", "cpu", "seconds"):
        print(f"3 % changed against full, {what}: {100 * delta[what] / full[what]:.1f} %")


def line(name: str, one: dict[str, float]) -> str:
    """Say what one push took."""
    return (
        f"{name:>14}: {one['users'] / one['seconds']:9,.0f} users/s, {one['users'] / one['cpu']:9,.0f} users a CPU "
        f"second, {one['requests']:,} requests, {one['bytes'] / 1e6:,.0f} MB, {one['seconds']:.1f} s, CPU "
        f"{one['cpu']:.1f} s, peak {one['peak']:,.0f} MB;"
    )


def wait_for(host: str) -> None:
    """Return as soon as the server answers."""
    provider, deadline = SendGridProvider("SG.bench", host), time.monotonic() + 30
    while True:
        try:
            provider.ensure_fields(all_fields(SLOTS))
        except RetryableMailError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--loop-users", type=int, default=100_000)
    main(**vars(parser.parse_args()))
