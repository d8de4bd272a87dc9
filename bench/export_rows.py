"""How many rows a second the export takes in, and in how much memory, beside pandas and Spark on the same data.

Run:  make bench-export [ARGS="--rows 10000000 --without-peers"]      (3,000,000 events by default)

Events of one day in PostgreSQL (a server of its own, on a socket) and in CSV and Parquet files. Every contestant is a
process of its own, from its start to its end, and leaves Parquet behind:

  ryml      python -m jobs.export_table: every row held to the row rules, split into 64 user buckets, hashed, synced to
            the disk and published by a manifest
  pandas    read_sql (SQLAlchemy and psycopg2), read_csv or read_parquet, then to_parquet: one file, no checks
  Spark     local[2], CSV read with a schema, then written as Parquet: two files, no checks

CPU seconds are those of the process and its children (Spark's JVM too): on a busy machine they say more than the clock
does. Memory is the largest sum over a process and its children (PSS, from /proc). Both without the database's.
psycopg2 is not among ryml's packages: `--peer-python` names an interpreter that has pandas, pyarrow, SQLAlchemy and
psycopg2. Without it pandas reads through the same Arrow driver as ryml, and the output says so.
"""

import argparse
import datetime as dt
import os
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import adbc_driver_postgresql.dbapi as postgresql
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
DATE = dt.date(2026, 3, 2)
TYPES = ("view", "cart_add", "cart_remove", "wishlist_add", "wishlist_remove", "purchase", "refund")
SHARES = (0.84, 0.07, 0.02, 0.03, 0.01, 0.02, 0.01)
COLUMNS = "user_id, item_id, event_type, occurred_at, quantity, price"
BLOCK_ROWS = 1_000_000

SETTINGS = """
name = "bench"
history_days = 1
kind = "{kind}"
{place}
[events]
{events}
[catalog]
{catalog}
[users]
{users}
"""
FILES = {
    "place": 'default_date = 2026-03-02\ndata_folder = "."',
    "catalog": 'path = "x"\ncolumns = { item_id = "i", title = "t", url = "u", image_url = "m", price = "p", '
    'currency = "c", stock = "s" }',
    "users": 'path = "x"\ncolumns = { user_id = "u", is_subscribed = "s" }',
}
SQL = {
    "place": 'connection = "bench"',
    "events": f'query = "SELECT {COLUMNS} FROM events WHERE occurred_at >= :window_start AND '  # noqa: S608
    'occurred_at < :window_end ORDER BY event_id"',
    "catalog": 'query = "SELECT 1 AS item_id ORDER BY 1"',
    "users": 'query = "SELECT 1 AS user_id ORDER BY 1"',
}

PANDAS_SQL = f"""
import sys
import pandas as pd
query = "SELECT {COLUMNS} FROM events ORDER BY event_id"
try:
    import psycopg2, sqlalchemy
except ImportError:
    import adbc_driver_postgresql.dbapi as postgresql
    connection, how = postgresql.connect(sys.argv[1]), "through ADBC: no psycopg2 here"
else:
    connection, how = sqlalchemy.create_engine(sys.argv[1].replace("postgresql:", "postgresql+psycopg2:")), "psycopg2"
events = pd.read_sql(query, connection)
events.to_parquet(sys.argv[2])
print(len(events), how)
"""  # noqa: S608
PANDAS_CSV = """
import sys
import pandas as pd
events = pd.read_csv(sys.argv[1], dtype={"user_id": str, "item_id": str}, parse_dates=["occurred_at"])
events.to_parquet(sys.argv[2])
print(len(events))
"""
PANDAS_PARQUET = """
import sys
import pandas as pd
events = pd.read_parquet(sys.argv[1])
events.to_parquet(sys.argv[2])
print(len(events))
"""
SPARK_CSV = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config(
    "spark.log.level", "ERROR").getOrCreate()
schema = ("event_id LONG, user_id STRING, item_id STRING, event_type STRING, occurred_at TIMESTAMP, quantity INT, "
          "price DECIMAL(14, 4)")
spark.read.csv(sys.argv[1], schema=schema, header=True).write.parquet(sys.argv[2])
print(spark.read.parquet(sys.argv[2]).count())
spark.stop()
"""


@dataclass(frozen=True)
class Figure:
    """One contestant's result."""

    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    note: str

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def event_blocks(rows: int) -> Iterator[pa.Table]:
    """Events of one day in order of their time; a third as many users, 200,000 items of very different popularity."""
    draws = np.random.default_rng(7)
    midnight = int(dt.datetime.combine(DATE, dt.time(), dt.UTC).timestamp() * 1e6)
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        ids = np.arange(first, first + count)
        users = draws.integers(0, max(rows // 3, 1), count).astype("U9")
        items = (draws.random(count) ** 3 * 200_000).astype(int).astype("U6")
        yield pa.table(
            {
                "event_id": ids,
                "user_id": pa.array(np.char.zfill(users, 9)),
                "item_id": pa.array(np.char.zfill(items, 6)),
                "event_type": pa.array(TYPES).take(pa.array(draws.choice(len(TYPES), count, p=SHARES))),
                "occurred_at": pa.array(midnight + ids * (86_400_000_000 // rows), pa.timestamp("us", "UTC")),
                "quantity": pa.array(np.ones(count, np.int32)),
                "price": pa.array(np.round(draws.random(count) * 400, 2)),
            }
        )


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start PostgreSQL on a socket in the folder, as the account `postgres` where this runs as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        sys.exit("no PostgreSQL in /usr/lib/postgresql/*/bin; Debian, Ubuntu: apt-get install postgresql")
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def call(program: str, *arguments: str) -> None:
        command = [programs[-1] / program, "-D", folder / "data", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd=folder, **quiet, **as_user)  # type: ignore[call-overload]

    call("initdb", "-U", "ryml", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    call("pg_ctl", "-w", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "start")
    try:
        yield f"postgresql:///postgres?host={folder}&user=ryml"
    finally:
        call("pg_ctl", "-m", "immediate", "-w", "stop")


def load(uri: str, folder: Path, rows: int) -> None:
    """Put the same events into the database, a CSV file and a Parquet file."""
    schema = next(event_blocks(1)).schema
    with (
        postgresql.connect(uri) as connection,
        connection.cursor() as cursor,
        pa_csv.CSVWriter(folder / "events.csv", schema) as csv_file,
        pq.ParquetWriter(folder / "events.parquet", schema) as parquet_file,
    ):
        cursor.execute(
            "CREATE TABLE events (event_id BIGINT PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
            "event_type TEXT NOT NULL, occurred_at TIMESTAMPTZ NOT NULL, quantity INTEGER NOT NULL, "
            "price NUMERIC(12, 2))"
        )
        for block in event_blocks(rows):
            cursor.adbc_ingest("raw", block, mode="create")
            cursor.execute(f"INSERT INTO events SELECT event_id, {COLUMNS.replace('price', 'price::numeric')} FROM raw")  # noqa: S608
            cursor.execute("DROP TABLE raw")
            csv_file.write_table(block)
            parquet_file.write_table(block)
        connection.commit()
    with postgresql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE events")


def measure(command: list[str | Path], **environment: str) -> Figure:
    """Run a program to its end; the first number that it prints is how many rows it handled."""
    started, cpu_before = time.perf_counter(), cpu_of_children()
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed below
    with said, subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True,
        env={**os.environ, **environment},
    ) as process:  # fmt: skip
        seen = Seen()
        watcher = threading.Thread(target=watch, args=(process, seen), daemon=True)
        watcher.start()
        output = process.communicate()[0]
        seconds = time.perf_counter() - started
        watcher.join()
        if process.returncode:
            said.seek(0)
            sys.exit(f"{command[:3]} failed with {process.returncode}: {said.read()[-2000:]}")
    words = output.split()
    rows = int(output.split('"rows": ')[1].split(",")[0]) if '"rows": ' in output else int(words[0])
    # Nobody waits for Spark's JVM, so the kernel does not add it up; what was seen last is short by 0.1 s at most.
    cpu_seconds = max(cpu_of_children() - cpu_before, sum(seen.cpu_seconds.values()))
    return Figure(rows, seconds, cpu_seconds, seen.peak_mb, "" if '"rows": ' in output else " ".join(words[1:]))


# Between two looks at the memory lies so many times what one took: they cost 4 % of a core.
_LOOK_SHARE = 25


def cpu_of_children() -> float:
    """Count the processor seconds of all processes that this one has waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Seen:
    """What was seen of a process and its children: their largest memory, and the processor seconds of each."""

    peak_mb: float = 0.0
    cpu_seconds: dict[int, float] = field(default_factory=dict)


def watch(process: subprocess.Popen[str], seen: Seen) -> None:
    """Look at a process and its children ten times a second, and at their memory as often as that costs little.

    The kernel walks all pages of a process to add its share up, and the process waits if it wants more meanwhile: ten
    times a second that took most of a core from a job of three processes and 3 GB.
    """
    next_look = 0.0
    while process.poll() is None:
        pids = tree(process.pid)
        seen.cpu_seconds |= {pid: used for pid in pids if (used := cpu_of(pid)) is not None}
        if (began := time.perf_counter()) >= next_look:
            seen.peak_mb = max(seen.peak_mb, sum(memory_mb(pid) for pid in pids))
            next_look = (ended := time.perf_counter()) + _LOOK_SHARE * (ended - began)
        time.sleep(0.1)


def cpu_of(pid: int) -> float | None:
    """Say how many processor seconds a process has used itself; None if it is gone."""
    with suppress(OSError, IndexError):
        # The name in brackets may hold spaces; user and system time are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def tree(pid: int) -> list[int]:
    """Name a process and all below it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def memory_mb(pid: int) -> float:
    """Say how much memory is a process's own, its share of what it shares included."""
    with suppress(OSError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def settings_file(folder: Path, name: str) -> Path:
    """Write the source settings of one kind of source."""
    path = folder / f"{name}.toml"
    if name == "postgresql":
        path.write_text(SETTINGS.format(kind="sql", **SQL))
    else:
        mapped = "\n".join(f'{column} = "{column}"' for column in COLUMNS.split(", "))
        path.write_text(
            SETTINGS.format(kind="files", events=f'path = "events.{name}"\n[events.columns]\n{mapped}', **FILES)
        )
    return path


def contest(folder: Path, uri: str, source: str, peer_python: str, *, peers: bool) -> dict[str, Figure]:
    """Let everybody read one source."""
    out = folder / "out"
    environment = {"PYTHONPATH": str(ROOT), "RYML_SOURCE_URI": uri}
    job = [sys.executable, "-m", "jobs.export_table", "--table", "events", "--date", str(DATE), "--run-id", "bench"]
    commands: dict[str, list[str | Path]] = {
        "ryml": [*job, "--lake", out, "--source", settings_file(folder, source), "--buckets", "64"]
    }
    if peers and source == "postgresql":
        commands["pandas"] = [peer_python, "-c", PANDAS_SQL, uri, out]
    elif peers:
        script = PANDAS_CSV if source == "csv" else PANDAS_PARQUET
        commands["pandas"] = [peer_python, "-c", script, folder / f"events.{source}", out]
    if peers and source == "csv":
        commands["Spark"] = [sys.executable, "-c", SPARK_CSV, folder / "events.csv", out]
    figures = {}
    for name, command in commands.items():
        figures[name] = measure(command, **environment)
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    return figures


def main(rows: int, peer_python: str, *, peers: bool, sources: list[str]) -> None:
    """Measure everybody on every source and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="ryml-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "postgresql").mkdir()
        with server(folder / "postgresql") as uri:
            load(uri, folder, rows)
            print(f"{rows:,} events; seconds from the start of a process to its end")
            for source in sources:
                figures = contest(folder, uri, source, peer_python, peers=peers)
                ours = figures["ryml"]
                for name, figure in figures.items():
                    ratio = "" if name == "ryml" else f"   ryml: {ours.rate / figure.rate:.1f} times the rows/s"
                    print(
                        f"  {source:<11}{name:<8}{figure.seconds:7.1f} s {figure.rate:>12,.0f} rows/s "
                        f"{figure.cpu_seconds:>7.1f} CPU s {figure.peak_mb:>7,.0f} MB{ratio} {figure.note}".rstrip()
                    )
                assert len({figure.rows for figure in figures.values()}) == 1, figures  # noqa: S101  # the same data


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--without-peers", dest="peers", action="store_false", help="the export alone")
    parser.add_argument("--sources", nargs="+", default=["postgresql", "csv", "parquet"])
    main(**vars(parser.parse_args()))
