import datetime as dt
import errno
import gc
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from small_shop import (
    DATE,
    Export,
    make_csv,
    make_json,
    make_parquet,
    make_postgresql,
    make_sqlite,
    shop_rows,
    sql_settings,
)

from jobs.lake.buckets import bucket_of
from jobs.lake.hashing_file import HashingFile
from jobs.lake.lake import Lake
from schemas.errors import ConfigError, EmptyPartitionError, SchemaError, StorageError
from schemas.layout import Partition
from schemas.tables import TABLES

ROOT = Path(__file__).parents[2]
EXPORTED = ("events", "catalog", "users")
DAY_BEFORE = DATE - dt.timedelta(days=1)


def in_window(row: tuple[object, ...]) -> bool:
    return "2026-03-01" <= str(row[3])[:10] <= "2026-03-02"


def test_the_same_shop_gives_the_same_bytes_from_every_kind_of_source(tmp_path, request):
    makers = {"csv": make_csv, "json": make_json, "parquet": make_parquet, "sqlite": make_sqlite}
    contents, tables = {}, {}
    for kind, make in makers.items():
        (tmp_path / kind).mkdir()
        export = Export(tmp_path / kind / "lake", make(tmp_path / kind, shop_rows()))
        results = {table: export.run(table) for table in EXPORTED}
        contents[kind] = {table: export.content(table) for table in EXPORTED}
        tables[kind] = {table: export.read(table) for table in EXPORTED}
        assert results["events"]["rows"] == sum(map(in_window, shop_rows()["events"])) == 360
        assert results["catalog"]["rows"] == 40
        assert results["users"]["rows"] == 69
    for kind in makers:
        for table in EXPORTED:
            assert tables[kind][table].equals(tables["csv"][table]), (kind, table)
    assert len({str(content) for content in contents.values()}) == 1


@pytest.mark.parametrize("instant", ["TIMESTAMPTZ", "TIMESTAMP"])
def test_postgresql_gives_the_bytes_of_the_files(tmp_path, postgresql_uri, instant):
    # The server's own time zone is New York's: columns without a zone are UTC all the same.
    files = Export(tmp_path / "files", make_csv(tmp_path, shop_rows()))
    settings = make_postgresql(tmp_path, shop_rows(), postgresql_uri, instant)
    server = Export(tmp_path / "server", settings, postgresql_uri)
    for table in EXPORTED:
        files.run(table)
        server.run(table)
        assert server.read(table).equals(files.read(table)), table
        assert server.content(table) == files.content(table)


def test_postgresql_reads_only_and_says_what_is_wrong(tmp_path, postgresql_uri):
    settings = make_postgresql(tmp_path, shop_rows(), postgresql_uri)
    text = settings.read_text()
    settings.write_text(text.replace("FROM catalog", "FROM katalog"))
    with pytest.raises(ConfigError, match='relation "katalog" does not exist'):
        Export(tmp_path / "lake", settings, postgresql_uri).run("catalog")
    for column, part in (
        ("nextval('events_n_seq')::text", r"cannot execute nextval\(\) in a read-only transaction"),
        ("('secret@example.com ' || n)::date::text", "invalid input syntax for type date: …"),
    ):
        settings.write_text(text.replace("SELECT user_id, item_id", f"SELECT {column} AS user_id, item_id"))
        with pytest.raises(ConfigError, match=part) as caught:
            Export(tmp_path / "lake", settings, postgresql_uri).run("events")
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        Export(tmp_path / "lake", settings, postgresql_uri.replace("host=", "password=hunter2&host=/nowhere")).run(
            "users"
        )
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="connection shop_default, whose URI was not given"):
        Export(tmp_path / "lake", settings).run("events")


def test_rows_are_kept_to_the_byte_in_the_order_of_the_source(csv_shop):
    csv_shop.run("events")
    lake = Lake.open(str(csv_shop.lake))
    manifest = lake.manifest(Partition("events", DATE))
    expected = [row for row in shop_rows()["events"] if in_window(row)]
    buckets = bucket_of(pa.array([row[0] for row in expected]), 4)
    assert len(set(buckets.tolist())) == 4
    for bucket in range(4):
        ids = [
            (row["user_id"], row["item_id"], row["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
            for row in lake.read(manifest, bucket=bucket).to_pylist()
        ]
        assert ids == [
            (row[0], row[1], row[3]) for row, place in zip(expected, buckets, strict=True) if place == bucket
        ]


def test_users_keep_what_the_shop_says_of_them(csv_shop):
    csv_shop.run("users")
    found = {row["user_id"]: row for row in csv_shop.read("users").to_pylist()}
    assert len(found) == 69
    for user_id, email, subscribed, locale, country in shop_rows()["users"]:
        row = found[user_id]
        assert row["email"] == (email and email.lower())
        assert (row["is_subscribed"], row["locale"]) == (subscribed, locale)
        assert row["properties"] == [("country", country)]


def test_windows_start_after_the_newest_profiles(csv_shop):
    assert csv_shop.run("events")["outside_window"] == 700 - 360
    lake = Lake.open(str(csv_shop.lake))
    profiles = Partition("profiles", DAY_BEFORE)
    empty = TABLES["profiles"].schema.empty_table()
    attempt = lake.attempt(profiles, "r0")
    attempt.publish([attempt.write(empty, bucket=bucket) for bucket in range(4)], inputs=[], parameters={})
    result = csv_shop.run("events")
    expected = sum(str(row[3]).startswith("2026-03-02") for row in shop_rows()["events"])
    assert result["rows"] == expected == 180
    window = lake.manifest(Partition("events", DATE)).window
    assert window == {"start_at": "2026-03-02T00:00:00+00:00", "end_at": "2026-03-03T00:00:00+00:00"}


@pytest.mark.parametrize("table", EXPORTED)
def test_running_again_changes_nothing(csv_shop, table):
    first = csv_shop.run(table)
    manifest = Lake.open(str(csv_shop.lake)).manifest(Partition(table, DATE))
    assert csv_shop.run(table, run_id="r2") == first
    again = Lake.open(str(csv_shop.lake)).manifest(Partition(table, DATE))
    assert again == manifest
    assert len(csv_shop.attempts()) == 2  # the data and its quarantine, of the first run


def test_every_row_is_used_or_in_quarantine_with_its_reason(tmp_path):
    rows = shop_rows()
    rows["events"] += [
        (None, "001", "view", "2026-03-02", 1, 1),
        ("u", "001", "gaze", "2026-03-02", 1, 1),
        ("u", "001", "view", "2026-02-30", 1, 1),
        ("u", "001", "view", "2026-03-02", 0, 1),
        ("u", "001", "view", "2026-03-02", 1, "nan"),
        ("u" * 256, "001", "view", "2026-03-02", 1, 1),
        (None, None, None, "2026-04-02", None, None),
    ]
    rows["users"] += [
        ("007", "twin@example.com", True, None, "DE"),
        ("bad", "not an address", True, None, "DE"),
        ("x", "same@example.com", True, None, "DE"),
        ("y", " SAME@example.com", True, None, "DE"),
        ("z", "z@example.com", "maybe", None, "DE"),
        ("w", "w@example.com", True, None, "DE"),
        ("w", "w@example.com", True, None, "DE"),
    ]
    export = Export(tmp_path / "lake", make_csv(tmp_path, rows))
    events = export.run("events")
    reasons = ["null_user", "unknown_event_type", "bad_timestamp", "bad_quantity", "bad_price", "id_too_long"]
    assert events["quarantined_by_reason"] == dict.fromkeys(reasons, 1)
    assert events["read"] == 707 == events["rows"] + events["quarantined"] + events["outside_window"]
    users = export.run("users")
    assert users["quarantined_by_reason"] == {"duplicate_user": 3, "missing_field": 1}
    assert users["addresses_dropped_by_reason"] == {"bad_email": 1, "email_collision": 2}
    assert users["read"] == 76 == users["rows"] + users["quarantined"]

    aside = export.read("quarantine_users").sort_by("source_position").to_pylist()
    assert [(row["source_position"], row["reason"]) for row in aside] == [
        (1, "duplicate_user"), (70, "duplicate_user"), (71, "bad_email"), (72, "email_collision"),
        (73, "email_collision"), (74, "missing_field"), (76, "duplicate_user"),
    ]  # fmt: skip
    assert Counter(row["reason"] for row in export.read("quarantine_events").to_pylist()) == dict.fromkeys(reasons, 1)
    emails = {row["user_id"]: row["email"] for row in export.read("users").to_pylist()}
    assert {emails[user] for user in ("bad", "x", "y")} == {None}
    assert emails["w"] == "w@example.com"
    # The quarantine holds no value of a row, and no partition but users holds an address.
    for path in export.lake.glob("quarantine_*/**/*.parquet"):
        assert b"@example" not in path.read_bytes()


def test_bytes_do_not_depend_on_the_batches_that_rows_come_in(tmp_path, monkeypatch):
    many = {**shop_rows(), "events": shop_rows()["events"] * 9}
    monkeypatch.setattr("jobs.export.bucket_queue._BLOCK_BYTES", 400 * 120)
    monkeypatch.setattr("jobs.export.bucket_queue._GROUP_BYTES", 1)
    contents = set()
    for batch_rows in (65_536, 1_000, 61):
        monkeypatch.setattr("jobs.sources.file_readers.BATCH_ROWS", batch_rows)
        folder = tmp_path / str(batch_rows)
        folder.mkdir()
        export = Export(folder / "lake", make_parquet(folder, many))
        assert export.run("events")["rows"] == 9 * 360
        export.run("users")
        contents.add((export.content("events"), export.content("users")))
    assert len(contents) == 1
    lake = Lake.open(str(export.lake))
    manifest = lake.manifest(Partition("events", DATE))
    files = [pa.parquet.ParquetFile(export.lake / manifest.folder / entry.name) for entry in manifest.files]
    assert max(file.metadata.num_row_groups for file in files) > 5


@pytest.mark.parametrize("table", EXPORTED)
def test_an_empty_source_publishes_nothing(tmp_path, table):
    export = Export(tmp_path / "lake", make_csv(tmp_path, {**shop_rows(), table: []}))
    with pytest.raises(EmptyPartitionError, match=rf"source small has no usable {table} \(.*2026-03-02; 0 rows read"):
        export.run(table)
    assert export.content(table) is None
    assert export.content(f"quarantine_{table}") is None
    assert export.attempts() == []


def test_a_file_without_a_byte_is_an_empty_source(csv_shop):
    (csv_shop.settings.parent / "users.csv").write_bytes(b"")
    with pytest.raises(EmptyPartitionError, match="no usable users"):
        csv_shop.run("users")


def test_a_date_without_events_of_its_own_is_an_error_whatever_the_days_before_hold(csv_shop):
    late = dt.date(2026, 3, 4)  # the last events are of 3 March
    with pytest.raises(EmptyPartitionError, match="has no events on 2026-03-04 itself") as caught:
        csv_shop.run("events", late)
    assert "2026-03-03 to 2026-03-04" in str(caught.value)
    assert csv_shop.content("events", late) is None


def test_a_date_whose_rows_are_all_bad_names_the_reasons(tmp_path):
    rows = {**shop_rows(), "events": [(None, "i", "view", "2026-03-02", 1, 1)] * 3}
    with pytest.raises(EmptyPartitionError, match="quarantined: 3 null_user"):
        Export(tmp_path / "lake", make_csv(tmp_path, rows)).run("events")


def test_a_query_that_does_not_keep_to_its_window_is_caught(tmp_path):
    settings = make_sqlite(tmp_path, shop_rows())
    settings.write_text(settings.read_text().replace("occurred_at < :window_end", "'' < :window_end"))
    result = Export(tmp_path / "lake", settings).run("events")
    later = sum(str(row[3]) >= "2026-03-03" for row in shop_rows()["events"])
    assert later > 0
    assert result["quarantined_by_reason"] == {"outside_window": later}


@pytest.mark.parametrize(
    ("old", "new", "error", "part"),
    [
        ("quantity, price FROM", "quantity, price, n FROM", SchemaError, "gives n, which events has no place for"),
        ("SELECT user_id, item_id", "SELECT user_id", SchemaError, "gives no column item_id"),
        (
            "SELECT user_id, item_id",
            "SELECT user_id, user_id AS item_id, item_id",
            SchemaError,
            "item_id more than once",
        ),
        ("FROM events", "FROM evnts", ConfigError, "no such table: evnts"),
        ("shop.sqlite", "none.sqlite", ConfigError, r"none\.sqlite does not exist"),
        ("sqlite:///", "oracle:///", ConfigError, "no driver for 'oracle'"),
    ],
)
def test_what_a_query_gets_wrong_is_named(tmp_path, old, new, error, part):
    settings = make_sqlite(tmp_path, shop_rows())
    text = settings.read_text()
    assert old in text
    settings.write_text(text.replace(old, new))
    with pytest.raises(error, match=part):
        Export(tmp_path / "lake", settings).run("events")


def test_the_database_is_where_data_says(tmp_path):
    make_sqlite(tmp_path, shop_rows())
    settings = sql_settings(tmp_path, 'uri = "sqlite:///{data}"')
    export = Export(tmp_path / "lake", settings)
    with pytest.raises(ConfigError, match="--data PATH"):
        export.run("catalog")
    assert export.run("catalog", data=str(tmp_path / "shop.sqlite"))["rows"] == 40


def test_sqlite_columns_may_change_their_type_after_any_number_of_rows(tmp_path):
    rows = shop_rows()
    head = [("u", "i", "view", "2026-03-02", 1, None)] * 70_000
    rows["events"] = [*head, ("u", "i", "view", "2026-03-02", "2", 2.5), ("u", "i", "view", "2026-03-02", 3.0, "x")]
    export = Export(tmp_path / "lake", make_sqlite(tmp_path, rows))
    result = export.run("events")
    assert (result["rows"], result["quarantined_by_reason"]) == (70_001, {"bad_price": 1})
    assert export.read("quarantine_events").column("source_position").to_pylist() == [70_002]


def test_a_full_disk_leaves_nothing_behind(csv_shop, monkeypatch):
    written = HashingFile.write
    budget = [0]

    def write(self: HashingFile, data: bytes) -> int:
        budget[0] -= len(data)
        if budget[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, data)

    monkeypatch.setattr(HashingFile, "write", write)
    with warnings.catch_warnings():
        # The files that could not be closed are left to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        for size in (0, 3, 500, 3_000, 8_000):
            budget[0] = size
            with pytest.raises(StorageError, match=r"No space left on device.*make room"):
                csv_shop.run("events")
            assert csv_shop.attempts() == []
            assert csv_shop.content("events") is None
        gc.collect()
    budget[0] = 10**9
    assert csv_shop.run("events")["rows"] == 360


# Dies for good, as of a SIGKILL, just before its n-th step that outlives it.
DYING_EXPORT = """
import datetime, os, sys
from pathlib import Path
from jobs.lake.storage import LocalStorage
from jobs.export_table import main

left = int(sys.argv[1])
def dying(method):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return method(*arguments)
    return call
LocalStorage.create = dying(LocalStorage.create)
LocalStorage.replace_if = dying(LocalStorage.replace_if)
main(lake=sys.argv[2], table="users", date=datetime.date(2026, 3, 2), source=Path(sys.argv[3]), data=None, run_id="r2")
"""


def test_readers_see_the_old_or_the_new_partition_wherever_an_export_dies(tmp_path):
    export = Export(tmp_path / "lake", make_csv(tmp_path, shop_rows()))
    export.run("users", buckets=2)
    old = {table: export.content(table) for table in ("users", "quarantine_users")}
    make_csv(tmp_path, {**shop_rows(), "users": [*shop_rows()["users"], ("new", "new", True, None, "DE")]})
    deaths = 0
    while True:
        command = [sys.executable, "-c", DYING_EXPORT, str(deaths), str(export.lake), str(export.settings)]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60)
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr.decode()
        deaths += 1
        assert export.content("users") == old["users"]
        assert export.read("users").num_rows == 69
        assert export.read("quarantine_users").num_rows in (0, 1)
    assert deaths == 2 + 1 + 1 + 2  # two buckets, the quarantine's file, what the gate found, two manifests
    clean = Export(tmp_path / "clean", export.settings)
    clean.run("users", buckets=2)
    for table in ("users", "quarantine_users"):
        assert export.content(table) == clean.content(table) != old[table]
    assert export.read("users").num_rows == 70


def test_a_lost_row_stops_the_export(csv_shop, monkeypatch):
    from jobs.export import partition_writer

    real = partition_writer.check_rows

    def losing(*arguments, **options):
        checked = real(*arguments, **options)
        object.__setattr__(checked, "good", checked.good.slice(1))
        return checked

    monkeypatch.setattr(partition_writer, "check_rows", losing)
    with pytest.raises(StorageError, match="700 rows read, but 359 used"):
        csv_shop.run("events")
    assert csv_shop.content("events") is None


def test_only_the_shops_own_tables_are_exported(csv_shop):
    with pytest.raises(ConfigError, match="table 'profiles' is not exported; expected events, catalog, users"):
        csv_shop.run("profiles")


def test_it_runs_as_a_command(csv_shop):
    def command(*extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs.export_table", "--lake", csv_shop.lake, "--date", "2026-03-02",
             "--run-id", "r", "--source", csv_shop.settings, *extra],
            cwd=ROOT, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    done = command("--table", "catalog", "--buckets", "2")
    assert done.returncode == 0, done.stderr
    assert '"rows": 40' in done.stdout
    failed = command("--table", "users", "--data", "/nowhere")
    assert failed.returncode == ConfigError.exit_status
    assert failed.stderr.splitlines()[-1].startswith(
        "ConfigError: source small: the data folder /nowhere does not exist"
    )
    assert "Traceback" not in failed.stderr
