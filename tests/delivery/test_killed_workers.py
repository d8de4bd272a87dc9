"""SIGKILL and SIGSTOP at random instants: real processes against the rehearsal provider over HTTP, under its faults."""

import contextlib
import datetime as dt
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time

import pytest
from rehearsal_fixture import held, serve
from small_night import (
    CAMPAIGN,
    PLAN,
    RUN,
    SLOTS,
    address,
    base_lake,
    chunk_plans,
    differences,
    freeze,
    small_requests,
    stale_fields,
)

from jobs.delivery import csv_file, payload
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import Ledger
from jobs.delivery.run_context import Delivery
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import Timing
from jobs.lake.lake import Lake
from jobs.reconcile_push import reconcile
from jobs.rehearsal.faults import FaultSettings
from jobs.schedule_send import schedule_send
from schemas.errors import MailError, PublishConflictError
from schemas.mail_fields import all_fields

SPEED = 20  # the workers' clocks run this much faster, so that waits and leases are short
FAULTS = {
    "drop_before": 0.03, "drop_after": 0.05, "too_many_requests": 0.04, "error_before": 0.03, "error_after": 0.03,
    "failed_job": 0.03, "errored_job": 0.05, "lost_job": 0.01, "job_lag_seconds": (0.0, 0.1), "out_of_order": 0.1,
    "out_of_order_seconds": 0.1, "count_lag_seconds": 0.05, "search_lag_seconds": 0.05, "retry_after_seconds": 0,
}  # fmt: skip


def fast_timing():
    began, start = time.monotonic(), dt.datetime.now(dt.UTC)
    return Timing(
        lambda: start + dt.timedelta(seconds=(time.monotonic() - began) * SPEED),
        lambda: time.monotonic() * SPEED,
        lambda seconds: time.sleep(seconds / SPEED),
    )


def deliver(folder, host, key, method="contacts"):
    """One worker: the whole night, again after what another try may cure, as Airflow's task would be (retry_policy)."""
    payload.MAX_CONTACTS = csv_file.MAX_ROWS = 2
    timing = fast_timing()
    delivery = Delivery(
        Lake.open(f"{folder}/lake"), CAMPAIGN, RUN, Ledger(f"sqlite:///{folder}/ledger.db", timing.clock),
        SendGridProvider(key, host, timeout_seconds=5.0), "worker", timing,
    )  # fmt: skip
    for _ in range(20):
        with contextlib.suppress(MailError, PublishConflictError):
            freeze(delivery, method=method)
            for chunk in chunk_plans(delivery.lake):
                push_chunk(delivery, chunk.chunk)
            reconcile(delivery)
            schedule_send(delivery)
            os._exit(0)
    os._exit(3)


@contextlib.contextmanager
def night(base, folder, seed):
    """A lake, and a provider at which everybody holds two items of yesterday."""
    folder.mkdir()
    shutil.copytree(base, folder / "lake")
    with serve(folder / "rehearsal.sqlite", job_lag_seconds=0.0) as server:
        provider = SendGridProvider(server.api_key, server.host)
        ids = provider.ensure_fields(all_fields(SLOTS))
        contacts = [{"email": address(user), "custom_fields": stale_fields(ids)} for user in PLAN]
        provider.upsert(json.dumps({"contacts": contacts}).encode())
        server.wait_until_idle()
        server.provider.faults.replace(FaultSettings(seed=seed, **FAULTS))
        yield server, ids


def check(folder, server, ids):
    server.wait_until_idle()
    state = folder / "rehearsal.sqlite"
    triggered = "SELECT single_send FROM single_sends WHERE status = 'triggered'"
    contacts = dict(held(state, "contacts"))
    with contextlib.closing(sqlite3.connect(state)) as database:
        numbers = [number for (number,) in database.execute(triggered).fetchall()]
    sends = [dict(held(state, "mails WHERE single_send = ?", number)) for number in numbers]
    assert differences(Lake.open(f"{folder}/lake"), ids, contacts, sends) == []


def kills(base, folder, forks, seed, wanted, method="contacts"):
    """Kill the worker `wanted` times at random instants, then let one finish; return how many were killed at work.

    Each after one to four more answers and up to 30 ms: a night has fifty and more, and what dies before the first
    has begun nothing.
    """
    draw, killed = random.Random(seed), 0
    with night(base, folder, seed) as (server, ids):
        while True:
            worker = forks.Process(target=deliver, args=(str(folder), server.host, server.api_key, method))
            enough = len(server.exchanges) + draw.randint(1, 4)
            worker.start()
            if killed < wanted:
                while len(server.exchanges) < enough and worker.is_alive():
                    worker.join(0.002)
                worker.join(draw.uniform(0, 0.03))
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGKILL)
                    killed += 1
            worker.join(120)
            if worker.exitcode == 0:
                break
            assert worker.exitcode in (-signal.SIGKILL, 3), worker.exitcode
        check(folder, server, ids)
    return killed


def stops(base, folder, forks, seed):
    """Stop a worker at a random instant for longer than its lease, let another finish, and wake the first."""
    draw = random.Random(seed)
    with night(base, folder, seed) as (server, ids):
        first, second = (
            forks.Process(target=deliver, args=(str(folder), server.host, server.api_key)) for _ in range(2)
        )
        first.start()
        first.join(draw.uniform(0, 0.6))
        is_stopped = first.is_alive()
        if is_stopped:
            os.kill(first.pid, signal.SIGSTOP)
        second.start()
        # One that is stopped while it holds the database's or the lake's lock keeps all waiting: it has to wake up.
        second.join(20)
        held_a_lock = second.exitcode is None and is_stopped
        before = _upserts(server)
        if is_stopped:
            os.kill(first.pid, signal.SIGCONT)
        second.join(120)
        first.join(120)
        # Where the second had to wait for a lock, the first may take the chunk over from it: then that one finishes.
        assert 0 in ([first.exitcode, second.exitcode] if held_a_lock else [second.exitcode])
        sent = 0 if held_a_lock else _upserts(server) - before
        check(folder, server, ids)
    return is_stopped, held_a_lock, sent


def _upserts(server):
    return len([one for one in server.exchanges if one.method == "PUT" and one.path.endswith("/contacts")])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_lake(tmp_path_factory.mktemp("kills"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_requests(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_few_kills_and_a_stop(base, tmp_path, forks):
    assert kills(base, tmp_path / "kill", forks, 1, 3) == 3
    stops(base, tmp_path / "stop", forks, 2)


@pytest.mark.scoreboard
def test_two_hundred_kills(base, tmp_path, forks, scoreboard):
    killed, trials = 0, 0
    while killed < 200:
        killed += kills(base, tmp_path / f"{trials}", forks, 100 + trials, 8)
        trials += 1
    scoreboard.add("SIGKILL of a delivery under faults", f"{killed} kills in {trials} nights: 0 differ, one send each")


@pytest.mark.scoreboard
def test_fifty_kills_by_file(base, tmp_path, forks, scoreboard):
    killed, trials = 0, 0
    while killed < 50:
        killed += kills(base, tmp_path / f"{trials}", forks, 900 + trials, 8, "csv_import")
        trials += 1
    scoreboard.add(
        "SIGKILL of a delivery by file under faults", f"{killed} kills in {trials} nights: 0 differ, one send each"
    )


@pytest.mark.scoreboard
def test_fifty_stops_past_the_lease(base, tmp_path, forks, scoreboard):
    stopped, locked, late = 0, 0, 0
    for trial in range(200):
        is_stopped, held_a_lock, sent = stops(base, tmp_path / f"{trial}", forks, 500 + trial)
        stopped, locked, late = stopped + is_stopped, locked + held_a_lock, late + sent
        if stopped == 50:
            break
    assert stopped == 50
    scoreboard.add(
        "SIGSTOP past the lease, then SIGCONT", f"{stopped} stops: 0 differ; {late} requests after waking up"
    )
