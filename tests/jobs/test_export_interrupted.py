"""Exports that are killed, and disks that fill up: readers see the old partition or the new one, whole."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_shop import Export, make_csv, shop_rows

ROOT = Path(__file__).parents[2]
BOTH = ("events", "quarantine_events")

# Says that it is ready, waits for a line, exports, and says so.
EXPORT_ON_DEMAND = """
import datetime, sys
from pathlib import Path
import pandas.util, pyarrow.csv, pyarrow.parquet
from jobs.export_table import main
print("ready", flush=True)
sys.stdin.readline()
main(lake=sys.argv[1], table="events", date=datetime.date(2026, 3, 2), source=Path(sys.argv[2]), data=None, run_id="r2")
print("done", flush=True)
"""

# Exports once for each limit on the size of a file, which is how a full disk looks to a process, and says what came.
EXPORT_ON_A_FULL_DISK = """
import datetime, gc, json, resource, shutil, sys, warnings
from pathlib import Path
from jobs.export_table import main
from jobs.lake.lake import Lake
from schemas.errors import StorageError
from schemas.layout import Partition

warnings.simplefilter("ignore", ResourceWarning)
sys.unraisablehook = lambda _: None  # files that could not be closed, left to the garbage collector
old, lake, settings, limits = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
date = datetime.date(2026, 3, 2)
for limit in limits:
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(old, lake)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        main(lake=lake, table="events", date=date, source=settings, data=None, run_id="r2")
        outcome = "published"
    except StorageError as error:
        outcome = "refused" if "make room" in str(error) else str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    gc.collect()
    opened = Lake.open(lake)
    events, aside = (opened.manifest(Partition(table, date)) for table in ("events", "quarantine_events"))
    seen = [outcome]
    for found in (events, aside):
        seen += [found.content_sha256, opened.read(found).num_rows]
    main(lake=lake, table="events", date=date, source=settings, data=None, run_id="r3")
    retried = [opened.manifest(Partition(table, date)).content_sha256 for table in ("events", "quarantine_events")]
    print(json.dumps([seen, retried]), flush=True)
"""


class Night:
    """A lake with an old export, and the source as it became since."""

    def __init__(self, folder: Path, copies: int) -> None:
        rows = shop_rows()
        bad = (None, "i", "view", "2026-03-02", 1, 1)
        self.old = Export(folder / "old", make_csv(folder, rows))
        self.old.run("events", buckets=4)
        make_csv(folder, {**rows, "events": rows["events"] * copies + [bad] * 50})
        self.new = Export(folder / "new", self.old.settings)
        self.new.run("events", buckets=4)
        self.contents = {export: tuple(export.content(table) for table in BOTH) for export in (self.old, self.new)}
        assert self.contents[self.old] != self.contents[self.new]
        self.trial = Export(folder / "trial", self.old.settings)

    def reset(self) -> None:
        shutil.rmtree(self.trial.lake, ignore_errors=True)
        shutil.copytree(self.old.lake, self.trial.lake)


# Twenty processes take ten minutes where other work keeps the machine busy.
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.scoreboard, pytest.mark.timeout(1_800)])])
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_partition(tmp_path, scoreboard, kills):
    night = Night(tmp_path, copies=30)
    draws = random.Random(kills)
    seconds, killed, seen_new = None, 0, 0
    for _ in range(kills + 1):
        night.reset()
        command = [sys.executable, "-c", EXPORT_ON_DEMAND, str(night.trial.lake), str(night.trial.settings)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as export:
            assert export.stdout.readline() == "ready\n"
            started = time.perf_counter()
            export.stdin.write("go\n")
            export.stdin.flush()
            if seconds is None:  # the first one is measured, and lives
                assert export.stdout.readline() == "done\n"
                seconds = time.perf_counter() - started
                continue
            time.sleep(draws.random() * seconds)
            export.kill()
        killed += export.returncode == -9
        events = night.trial.read("events")  # verified file by file
        assert events.equals(night.old.read("events")) or events.equals(night.new.read("events"))
        seen_new += night.trial.content("events") == night.contents[night.new][0]
        assert night.trial.content("quarantine_events") in {content[1] for content in night.contents.values()}
        night.trial.run("events", run_id="r3")
        assert tuple(night.trial.content(table) for table in BOTH) == night.contents[night.new]
    assert killed > kills // 2
    scoreboard.add(
        f"export killed at {kills} random instants of {seconds:.1f} s",
        f"0 mixtures ({killed - seen_new} times the old partition, {seen_new} times the new), every retry identical",
    )


@pytest.mark.parametrize("offsets", [8, pytest.param(50, marks=pytest.mark.scoreboard)])
def test_a_full_disk_leaves_the_old_partition_and_a_retry_the_new_one(tmp_path, scoreboard, offsets):
    night = Night(tmp_path, copies=2)
    largest = max(path.stat().st_size for path in night.new.lake.rglob("*.parquet"))
    draws = random.Random(offsets)
    limits = [0, 1, *(draws.randrange(largest) for _ in range(offsets - 3)), largest * 9]
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_ON_A_FULL_DISK, str(night.old.lake), str(night.trial.lake),
         str(night.trial.settings), json.dumps(limits)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == offsets
    outcomes = []
    for seen, retried in lines:
        outcome, content, rows, aside_content, aside_rows = seen
        which = night.new if outcome == "published" else night.old
        assert outcome in ("published", "refused")
        assert content == night.contents[which][0]
        assert rows == which.read("events").num_rows
        assert aside_content in {contents[1] for contents in night.contents.values()}
        assert aside_rows in (0, 50)
        assert tuple(retried) == night.contents[night.new]
        outcomes.append(outcome)
    assert outcomes.count("refused") >= offsets - 2
    assert outcomes[-1] == "published"
    scoreboard.add(
        f"export on a disk that is full at {offsets} offsets",
        f"0 mixtures ({outcomes.count('refused')} refused, old partition whole), every retry identical",
    )
