"""How fast a push goes on after SIGKILL in its middle, and what it repeats.

Two slots push at once, each a process of its own that takes every second chunk, as Airflow's pool lets them; like the
job, it looks who has its chunks before it loads what pushes them. The whole
process group is killed at a random instant after half of the users are confirmed, and started again. What counts is
what the provider saw: seconds from the start of the processes to the next request, of any kind and with contacts, and
the requests with contacts whose very body had come before.

Run: python -m bench.push_resume [--users 1000000]
"""

import argparse
import contextlib
import datetime as dt
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from jobs.delivery.chunk_lease import first_sight
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.timing import REAL_TIME, utc_now

ROOT: Final = Path(__file__).resolve().parents[1]
SLOTS: Final = 2
RUN: Final = Run("bench", dt.date(2026, 11, 2))  # the date of bench.push
_LOOK_SECONDS: Final = 0.05


def push_slot(folder: str, host: str, slot: int) -> None:
    """Push every second chunk."""
    ledger = Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
    _, chunks, _ = ledger.plan(RUN)
    seen = {chunk.chunk: first_sight(ledger, RUN, chunk.chunk, REAL_TIME) for chunk in chunks[slot::SLOTS]}
    from bench.push import open_delivery
    from jobs.delivery.chunk_push import push_chunk

    delivery = open_delivery(folder, host, RUN.send_date, RUN.campaign)
    for chunk, sight in seen.items():
        push_chunk(delivery, chunk, sight)


def start(folder: str, host: str) -> list[subprocess.Popen[bytes]]:
    """Start the slots as one process group."""
    started: list[subprocess.Popen[bytes]] = []
    for slot in range(SLOTS):
        command = [sys.executable, "-m", "bench.push_resume", "--folder", folder, "--host", host, "--slot", str(slot)]
        group = started[0].pid if started else 0
        started.append(subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), process_group=group))
    return started


def confirmed(folder: str) -> int:
    """Count the users that are confirmed so far."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/ledger.db?mode=ro", uri=True)) as ledger:
        query = "SELECT coalesce(sum(contacts), 0) FROM requests WHERE state = 'confirmed'"
        return int(ledger.execute(query).fetchone()[0])


def asked(folder: str, after: dt.datetime | None = None) -> list[tuple[dt.datetime, str, str]]:
    """Give (instant, method and path, hash of the body) of the provider's requests, oldest first."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/s.sqlite-history?mode=ro", uri=True)) as history:
        query = "SELECT received_at, method || ' ' || path, body_hash FROM requests ORDER BY received_at"
        rows = [(dt.datetime.fromisoformat(at), what, body) for at, what, body in history.execute(query)]
    return [row for row in rows if after is None or row[0] > after]


def is_upsert(row: tuple[dt.datetime, str, str]) -> bool:
    """Say whether a request carries contacts."""
    return row[1] == "PUT /v3/marketing/contacts"


def kill_and_resume(folder: str, host: str, users: int) -> dict[str, Any]:
    """Push, kill, push again to the end; say what the second start cost."""
    from bench.push import open_delivery, write_plan
    from jobs.lake.lake import Lake
    from jobs.reconcile_push import reconcile

    lake, ledger = Lake.open(f"{folder}/lake"), Ledger(f"sqlite:///{folder}/ledger.db", utc_now)
    write_plan(lake, ledger, RUN, changed=0.0, is_full=True, method="contacts")
    slots = start(folder, host)
    while confirmed(folder) < users / 2:
        if any(slot.poll() is not None for slot in slots):
            raise SystemExit("a slot ended before half of the users were confirmed; expected it to be killed at work")
        time.sleep(_LOOK_SECONDS)
    time.sleep(random.Random().uniform(0, 1))
    os.killpg(slots[0].pid, signal.SIGKILL)
    for slot in slots:
        slot.wait()
    done = confirmed(folder)
    with contextlib.closing(sqlite3.connect(f"file:{folder}/ledger.db?mode=ro", uri=True)) as database:
        unheard = database.execute("SELECT count(*) FROM requests WHERE state = 'intended'").fetchone()[0]
    time.sleep(1)  # what was still on its way to the provider has been noted there
    began_at = utc_now()
    slots = start(folder, host)
    codes = [slot.wait() for slot in slots]
    if any(codes):
        raise SystemExit("a slot failed after the second start; its message is above")
    since = asked(folder, began_at)
    bodies = Counter(body for _, what, body in filter(is_upsert, asked(folder)) if body)
    counts = reconcile(open_delivery(folder, host, RUN.send_date, RUN.campaign))
    return {
        "done": done, "unheard": unheard, "delivered": counts["delivered"],
        "next": (since[0][0] - began_at).total_seconds(),
        "next_upsert": (next(filter(is_upsert, since))[0] - began_at).total_seconds(),
        "upserts": sum(bodies.values()), "repeated": sum(count - 1 for count in bodies.values()),
    }  # fmt: skip


def main(users: int) -> None:
    """Print what the second start cost."""
    from bench.push import BUCKETS, serving, write_inputs
    from jobs.lake.lake import Lake

    print(f"load {os.getloadavg()[0]:.1f}, {users:,} users, {SLOTS} slots")
    with serving() as (folder, host, _):
        write_inputs(Lake.open(f"{folder}/lake", buckets=BUCKETS), users)
        found = kill_and_resume(folder, host, users)
    print(
        f"SIGKILL with {found['done']:,} users confirmed and {found['unheard']} requests unheard: next request after "
        f"{found['next']:.1f} s, with contacts after {found['next_upsert']:.1f} s; {found['repeated']} of "
        f"{found['upserts']:,} requests repeated, {found['delivered']:,} users delivered; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--slot", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.slot is None:
        main(given.users)
    else:
        push_slot(given.folder, given.host, given.slot)
