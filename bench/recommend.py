"""How long it takes to fold, rank and write for millions of users, in how much memory, beside implicit and Spark ALS.

Run:  make bench-recommend USERS=10000000 [ARGS="--without-peers"]      (1,000,000 users by default)

The lake is made first (bench/large_lake.py: 200,000 items with 200 correlations each, 15 records and 6 mailed items per
user, events of a fifth of the users, receipts for all) and does not count. Then, each as a process of its own from its
start to its end, the JVM's included:

  fold        python -m jobs.fold_profiles: profiles and events read, checked, folded, gated and published
  recommend   python -m jobs.recommend_items with every rule on: own look-backs, mails, twins, filters, boosts, caps,
              fallbacks; read, ranked, gated, counted for the waterfall and published

The peers do the ranking alone, of a subset that they have in memory already, scaled up to all users:

  implicit    ItemItemRecommender.recommend with the same correlations, 6 items, what the user has done filtered out
  Spark ALS   ALSModel.recommendForUserSubset, 6 + 17 items (it filters nothing), rank 32, its fit not counted

CPU seconds are those of the process and its children: on a busy machine they say more than the clock does, though what
shares the processor's caches makes them grow too. Memory is the largest sum over a process and its children (PSS, from
/proc, looked at twice a second): it counts files that are mapped, and not the page cache behind what was read.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.large_lake import BEFORE, BUCKETS, DATE, Plan, make_lake

ROOT = Path(__file__).resolve().parents[1]
CAMPAIGN = """
title = "Bench"
slots = 6
min_items = 3
[history]
items = 5
[exclude]
bought_days = "for_ever"
seen_days = 30
mailed_days = 30
twins = { property = "parent", of = ["bought", "in_cart"] }
[catalog]
in_stock = true
max_price = 450.0
min_rating = 1.2
has_image = true
created_within_days = 890
exclude = { category = ["Toys > 19"], brand = ["Brand 7"] }
where = { none = [{ field = "properties.parent", any_of = ["000001"] }] }
[[boosts]]
multiply_by = 1.5
all = [{ field = "rating", at_least = 4.5 }]
[diversity]
max_per_category = 2
category_level = 2
max_per_brand = 3
[mail]
subject = "Hi"
suppression_group = "Recommendations"
[training]
"""
SPARK = (
    "--master local[2] --driver-memory 1g --conf spark.ui.enabled=false --conf spark.log.level=ERROR "
    "--conf spark.driver.extraJavaOptions='-XX:+UseSerialGC -XX:TieredStopAtLevel=1' pyspark-shell"
)


@dataclass
class Figure:
    """What a program took: seconds by the clock, seconds of processors, and its largest memory in MB."""

    seconds: float = 0.0
    peak_mb: float = 0.0
    cpu_seconds_by_process: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        return sum(self.cpu_seconds_by_process.values())


def measure(command: list[str | Path]) -> Figure:
    """Run a program to its end."""
    started, figure = time.perf_counter(), Figure()
    own = {"PYTHONPATH": str(ROOT), "PYSPARK_SUBMIT_ARGS": SPARK, "PYSPARK_PYTHON": sys.executable}
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, **own}
        ) as process:
            watcher = threading.Thread(target=_watch, args=(process, figure), daemon=True)
            watcher.start()
            process.wait()
            figure.seconds = time.perf_counter() - started
            watcher.join()
        if process.returncode:
            said.seek(0)
            sys.exit(f"{command[:3]} failed with {process.returncode}: {said.read()[-3000:]}")
    return figure


def _watch(process: "subprocess.Popen[bytes]", figure: Figure) -> None:
    while process.poll() is None:
        pids = _tree(process.pid)
        figure.peak_mb = max(figure.peak_mb, sum(_memory_mb(pid) for pid in pids))
        for pid in pids:
            figure.cpu_seconds_by_process[pid] = max(_cpu_seconds(pid), figure.cpu_seconds_by_process.get(pid, 0.0))
        time.sleep(0.5)  # reading it ten times a second would take a fifth of a core


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def _memory_mb(pid: int) -> float:
    with suppress(OSError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def main(users: int, items: int, neighbours: int, folder: Path | None, *, peers: bool) -> None:
    """Make the lake, run both jobs and, unless told otherwise, the peers; print what they took."""
    with tempfile.TemporaryDirectory(prefix="ryml-bench-") as scratch:
        plan = Plan(folder or Path(scratch), users, items, "bench")
        campaign = plan.folder / "bench.toml"
        if not campaign.exists():
            started = time.perf_counter()
            make_lake(plan)
            print(f"the lake was made in {time.perf_counter() - started:.0f} s")
        campaign.write_text(f'{CAMPAIGN}[candidates]\nkind = "correlations"\nneighbours = {neighbours}\n')
        size = f"{users:,} users, {items:,} items, {BUCKETS} buckets, {neighbours} neighbours"
        print(f"{size}; load {os.getloadavg()[0]:.1f} at the start")
        job = [sys.executable, "-m"]
        common = ["--lake", plan.folder / "lake", "--date", str(DATE), "--run-id", f"bench-{time.time():.0f}"]
        shutil.rmtree(plan.folder / "lake" / "profiles" / f"date={DATE}", ignore_errors=True)
        shutil.rmtree(plan.folder / "lake" / "recommendations", ignore_errors=True)
        fold = measure([*job, "jobs.fold_profiles", *common, "--mailed-by", plan.campaign])
        ranked = measure([*job, "jobs.recommend_items", *common, "--campaign", campaign])
        for name, figure in (("fold", fold), ("recommend", ranked)):
            note = f"{figure.cpu_seconds:7.1f} CPU s {figure.peak_mb:7,.0f} MB at most"
            _print(name, users, figure.seconds, note)
        print(f"load {os.getloadavg()[0]:.1f} at the end; profiles of {BEFORE} were folded into those of {DATE}")
        ours = users / ranked.seconds
        if peers:
            from bench.recommend_peers import implicit_rate, spark_als_rate

            peer_rates = (("implicit", implicit_rate(plan, neighbours)), ("Spark ALS", spark_als_rate(plan)))
            for name, (subset, rate) in peer_rates:
                note = f"   ryml: {ours / rate:.1f} times the users/s (scaled up from {subset:,} users, ranking alone)"
                _print(name, users, users / rate, note)


def _print(what: str, users: int, seconds: float, note: str) -> None:
    print(f"  {what:<10}{seconds:9.1f} s {users / seconds:>12,.0f} users/s {note}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--neighbours", type=int, default=50, help="of each recent item; the campaigns' default")
    parser.add_argument("--folder", type=Path, help="keep the lake here, and use it if it is there already")
    parser.add_argument("--without-peers", dest="peers", action="store_false", help="ryml alone")
    main(**vars(parser.parse_args()))
