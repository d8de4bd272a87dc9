"""How many contacts per second the rehearsal provider takes in and applies, over HTTP with the real client.

Contacts have the 27 custom fields of six slots; requests are below 6 MB. Counted from the first request to the end of
the last import job, client included; and per second of processor time of the server alone, which another load on the
machine does not change. The second round updates the same contacts, the third stamps them (two fields); then all of
them are mailed once.

Run: python -m bench.rehearsal_intake [--contacts 200000] [--threads 2]
"""

import argparse
import datetime as dt
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from jobs.delivery.mail_template import load_template
from jobs.delivery.sendgrid_client import SendGridProvider
from schemas.errors import RetryableMailError
from schemas.mail_fields import COUNT, RUN, UID, all_fields

PER_REQUEST = 4_000
STAMPS_PER_REQUEST = 30_000
ROOT = Path(__file__).resolve().parents[1]


def body(ids: dict[str, str], list_id: str, first: int, count: int, run: str) -> str:
    """One request: every slot of every contact filled, about 1.4 kB each."""
    shared = {}
    for name, field in ids.items():
        part = name.rsplit("_", 1)[1]
        shared[field] = {
            "title": f"Linen shirt, regular fit, {name}",
            "url": f"https://shop.example.com/item/000123456?utm_campaign=daily&s={name}",
            "image": f"https://images.example.com/000123456/medium/{name}.jpg",
            "price": "1,299.00 EUR",
        }.get(part, "")
    shared |= {ids[COUNT]: "6", ids[RUN]: run}
    uid = ids.get(UID)
    contacts = [
        {"email": f"user{number:08}@example.com", "custom_fields": shared | ({uid: f"{number:016x}"} if uid else {})}
        for number in range(first, first + count)
    ]
    return json.dumps({"list_ids": [list_id], "contacts": contacts}, ensure_ascii=False, separators=(",", ":"))


def main(contacts: int, threads: int) -> None:
    """Print contacts per second for creating and for updating."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder) / "key"
        key_file.write_text("SG.bench")
        command = [sys.executable, "-m", "jobs.serve_rehearsal", "--port", str(port), "--key-file", str(key_file)]
        command += ["--state", f"{folder}/s.sqlite", "--job-lag-seconds", "0"]
        server = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))
        try:
            provider = SendGridProvider("SG.bench", f"http://127.0.0.1:{port}", timeout_seconds=120)
            ids = wait_for(provider)
            list_id = provider.ensure_list("bench")
            process = psutil.Process(server.pid)
            for word, run, per_request in (
                ("created", "2026-01-05", PER_REQUEST),
                ("updated", "2026-01-06", PER_REQUEST),
                ("stamped", "2026-01-07", STAMPS_PER_REQUEST),
            ):
                firsts = range(0, contacts, per_request)
                names = {name: ids[name] for name in (RUN, COUNT)} if word == "stamped" else ids
                bodies = [body(names, list_id, first, min(per_request, contacts - first), run) for first in firsts]
                before = processor_seconds(process)
                megabytes = sum(len(text.encode()) for text in bodies) / 1e6
                started = time.perf_counter()
                with ThreadPoolExecutor(threads) as pool:
                    jobs = list(pool.map(provider.upsert, bodies))
                accepted = time.perf_counter() - started
                for job in jobs:
                    while provider.import_job(job).status == "pending":
                        time.sleep(0.02)
                seconds = time.perf_counter() - started
                used = processor_seconds(process) - before
                if (size := provider.list_size(list_id)) != contacts:
                    sys.exit(f"{size} contacts are on the list, expected {contacts}")
                print(
                    f"{word}: {contacts:,} contacts, {megabytes:,.0f} MB, {len(jobs)} requests, accepted in "
                    f"{accepted:.1f} s, applied in {seconds:.1f} s: {contacts / seconds:,.0f} contacts/s, "
                    f"{contacts / used:,.0f} per processor second of the server"
                )
            group = provider.ensure_suppression_group("bench")
            template = load_template(dt.date(2026, 1, 6))
            draft = provider.create_draft(
                name="bench",
                list_id=list_id,
                subject=template.subject,
                html=template.html,
                text=template.text,
                suppression_group_id=group,
                sender_id=1,
            )
            started = time.perf_counter()
            provider.schedule(draft.id)
            while provider.single_send(draft.id).status != "triggered":
                time.sleep(0.02)
            seconds = time.perf_counter() - started
            mails = provider.single_send_stats(draft.id).delivered
            print(f"mailed: {mails:,} mails in {seconds:.1f} s: {mails / seconds:,.0f} mails/s")
        finally:
            server.terminate()
            server.wait(timeout=10)


def processor_seconds(process: psutil.Process) -> float:
    """How long the process has run on a processor, all threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_for(provider: SendGridProvider) -> dict[str, str]:
    """Give the field ids as soon as the server answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return provider.ensure_fields(all_fields(6))
        except RetryableMailError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contacts", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    main(**vars(parser.parse_args()))
