"""Expiry: what is reachable or the last good one stays, on a folder and on S3, and nothing goes that was not listed."""

import datetime as dt
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from jobs import expire_data
from jobs.delivery.timing import utc_now as clock
from jobs.expire.inventory import take_inventory
from jobs.expire.reachable import expired, roots
from jobs.lake.item_index import append_items, read_index
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.storage import Storage
from jobs.measure_campaign import DAYS_AFTER
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS, PROFILES_MAX_GAP_DAYS
from schemas.errors import EmptyPartitionError, GateError, PublishConflictError, StorageError
from schemas.layout import UNDATED, Partition
from schemas.retention import ATTEMPT_DAYS, KEEPING, STAGING_DAYS, attempt_days, keep_days
from schemas.tables import TABLES

TODAY = dt.date(2026, 11, 22)
Graph = Mapping[Partition, Iterable[str]]


def day(age: int) -> dt.date:
    return TODAY - dt.timedelta(days=age)


# The rule on names.

KEEP = {"events": 3, "profiles": 3, "recommendations": 1, "funnel": 9}


@st.composite
def graphs(draw: st.DrawFn) -> dict[Partition, list[str]]:
    """Partitions of any age that name any others, and some that never were."""
    every = [Partition(table, day(age)) for table in ("events", "profiles") for age in range(-1, 7)]
    every += [
        Partition(table, day(age), campaign)
        for table in ("recommendations", "funnel")
        for campaign in ("a", "b")
        for age in range(7)
    ]
    every.append(Partition("item_index", UNDATED))
    there = draw(st.lists(st.sampled_from(every), unique=True, max_size=16))
    names = st.lists(st.sampled_from([str(one) for one in every]), max_size=3)
    return {one: draw(names) for one in there}


def is_within(partition: Partition) -> bool:
    return partition.date == UNDATED or (TODAY - partition.date).days <= KEEP[partition.table]


def protected(graph: Graph) -> set[Partition]:
    """The rule once more, by walking every path: from a root, through what is within keeping, to whatever is named."""
    by_path = {str(one): one for one in graph}
    last: dict[tuple[str, str | None], Partition] = {}
    for one in sorted(graph, key=lambda one: one.date):
        last[one.table, one.campaign] = one
    found = set(last.values())

    def walk(one: Partition, path: tuple[Partition, ...]) -> None:
        for name in graph[one]:
            named = by_path.get(name)
            if named is not None and named not in path:
                found.add(named)
                if is_within(named):
                    walk(named, (*path, named))

    for root in list(found):
        walk(root, (root,))
    return found


def holds(graph: Graph, rule: object = expired) -> None:
    gone = set(rule(graph, as_of=TODAY, keep_days=KEEP))  # type: ignore[operator]
    stays = protected(graph) | {one for one in graph if is_within(one)}
    assert gone == set(graph) - stays
    left = {one: names for one, names in graph.items() if one not in gone}
    # Every table and campaign still has its newest partition, and a second run finds nothing more that is reachable.
    assert roots(left) == roots(graph)
    assert not set(expired(left, as_of=TODAY, keep_days=KEEP))


@given(graphs())
def test_nothing_reachable_and_no_last_good_one_expires(graph: Graph) -> None:
    holds(graph)


def without_inputs(graph: Graph, **options: object) -> list[Partition]:
    return expired({one: [] for one in graph}, **options)  # type: ignore[arg-type]


def without_roots(graph: Graph, **_: object) -> list[Partition]:
    return [one for one in graph if not is_within(one)]


def without_end(graph: Graph, **options: object) -> list[Partition]:
    """Follows inputs past their keeping time: a chain of profiles would be kept back to its first day."""
    by_path = {str(one): one for one in graph}
    todo, found = list(roots(graph)), set(roots(graph))
    while todo:
        for name in graph[todo.pop()]:
            if (named := by_path.get(name)) is not None and named not in found:
                found.add(named)
                todo.append(named)
    return [one for one in graph if not is_within(one) and one not in found]


CHAIN = {Partition("profiles", day(age)): [f"profiles/date={day(age + 1)}"] for age in range(10)}


@pytest.mark.parametrize("mutant", [without_inputs, without_roots, without_end])
def test_wrong_rules_are_caught(mutant: object) -> None:
    @given(graphs())
    @example(CHAIN)  # longer than most that are drawn
    def property_of_the_mutant(graph: Graph) -> None:
        holds(graph, mutant)

    with pytest.raises(AssertionError):
        property_of_the_mutant()


def test_a_chain_of_profiles_ends_one_step_behind_its_keeping_time() -> None:
    gone = expired(CHAIN, as_of=TODAY, keep_days=KEEP)
    assert {one.date for one in CHAIN} - {one.date for one in gone} == {day(age) for age in range(5)}


def test_a_shop_that_stopped_keeps_its_last_day_and_what_that_was_made_from() -> None:
    graph: dict[Partition, list[str]] = {}
    for age in range(100, 110):
        events, profiles = Partition("events", day(age)), Partition("profiles", day(age))
        graph[events] = []
        graph[profiles] = [str(events), f"profiles/date={day(age + 1)}"]
    left = set(graph) - set(expired(graph, as_of=TODAY, keep_days=KEEP))
    assert sorted(map(str, left)) == sorted(
        [f"events/date={day(100)}", f"profiles/date={day(100)}", f"profiles/date={day(101)}"]
    )


def test_every_table_has_a_keeping_time_that_its_readers_can_live_with() -> None:
    assert len(KEEPING) >= 15
    assert set(KEEPING) == {name for name, table in TABLES.items() if table.dated} == set(keep_days())
    assert all(keeping.reason for keeping in KEEPING.values())
    assert KEEPING["profiles"].days > PROFILES_MAX_GAP_DAYS
    assert KEEPING["correlations"].days > CORRELATIONS_MAX_AGE_DAYS
    assert min(KEEPING[table].days for table in ("receipts", "chunks", "events")) > DAYS_AFTER
    assert attempt_days("receipts") == KEEPING["receipts"].days > attempt_days("chunks") == ATTEMPT_DAYS


def test_no_address_outlives_its_keeping_time_in_a_lake_of_many_nights() -> None:
    """The chain of mirrors reaches back through every plan; it must not hold the users of old dates."""
    graph: dict[Partition, list[str]] = {}
    for age in range(60):
        users, suppressions = Partition("users", day(age)), Partition("suppressions", day(age), "a")
        chunks, receipts = Partition("chunks", day(age), "a"), Partition("receipts", day(age), "a")
        before = f"mirror/campaign=a/date={day(age + 1)}"
        graph |= {
            users: [],
            suppressions: [],
            chunks: [str(users), str(suppressions), before],
            receipts: [str(chunks)],
            Partition("mirror", day(age), "a"): [str(receipts), before],
            Partition("builds", day(age), "a"): [str(users)],
        }
    left = set(graph) - set(expired(graph, as_of=TODAY, keep_days=keep_days()))
    oldest = {table: max((TODAY - one.date).days for one in left if one.table == table) for table in KEEPING if any(
        one.table == table for one in left
    )}  # fmt: skip
    days = KEEPING["users"].days
    assert oldest == {
        "users": days, "suppressions": days, "chunks": days, "receipts": days, "mirror": days + 1, "builds": 35,
    }  # fmt: skip


# The job on a lake.


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"), buckets=2)


@pytest.fixture(params=["folder", "s3"])
def any_lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    if request.param == "folder":
        return Lake.open(str(tmp_path / "lake"), buckets=2)
    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3_endpoint"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"expire-{tmp_path.name}".replace("_", "-").lower()[:60]
    boto3.client("s3").create_bucket(Bucket=bucket)
    return Lake.open(f"s3://{bucket}/prefix", buckets=2)


def write(lake: Lake, table: str, date: dt.date, *inputs: Manifest, run_id: str = "r", value: str = "x") -> Manifest:
    """Publish a partition of one row (any table will do, the rows are never looked at)."""
    campaign = "a" if TABLES[table].per_campaign else None
    attempt = lake.attempt(Partition(table, date, campaign), run_id)
    entry = attempt.write(pa.Table.from_pylist([row_of(table, value)], schema=TABLES[table].schema))
    return attempt.publish([entry], inputs=inputs, parameters={"value": value})


def row_of(table: str, value: str) -> dict[str, object]:
    rows: dict[str, dict[str, object]] = {
        "users": {"user_id": value, "is_subscribed": True},
        "events": {
            "user_id": value, "item_id": "i", "event_type": "view", "quantity": 1,
            "occurred_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        },
        "profiles": {name: value if name == "user_id" else [] for name in TABLES["profiles"].schema.names},
        "receipts": {"user_id": value, "chunk": 0, "item": [], "outcome": "delivered"},
        "catalog": {
            "item_id": value, "title": "t", "url": "u", "image_url": "i", "price": 1, "currency": "EUR", "stock": 1,
        },
    }  # fmt: skip
    return rows[table]


def run(lake: Lake, step: str, date: dt.date | None = None, run_id: str = "scheduled__1+00:00") -> dict[str, object]:
    # Attempts have the age of their files, which the tests cannot set on S3: runs are dated from now on.
    date = date or clock().date()
    return expire_data.main(lake=lake.uri, date=date, run_id=run_id, step=step)  # type: ignore[arg-type]


def files_of(lake: Lake) -> set[str]:
    return {file.path for table in (*TABLES, "staging") for file in lake.storage.list_files(table)}


NOW = clock().date()


def aged(days: int) -> dt.date:
    return NOW - dt.timedelta(days=days)


def nights(lake: Lake) -> dict[str, Manifest]:
    """Nine nights, of 40 days ago, 39, ... 34, 1 and now; the last profiles name those of 36 days ago."""
    made: dict[str, Manifest] = {}
    before: list[Manifest] = []
    for age in (40, 39, 38, 37, 36, 35, 34, 1, 0):
        events = made[f"events {age}"] = write(lake, "events", aged(age))
        made[f"users {age}"] = write(lake, "users", aged(age))
        inputs = [events, *(before[-1:] if age != 0 else [made["profiles 36"]])]
        made[f"profiles {age}"] = write(lake, "profiles", aged(age), *inputs)
        before.append(made[f"profiles {age}"])
    append_items(lake, [pa.chunked_array([["i1"]])], "r1")
    append_items(lake, [pa.chunked_array([["i2"]])], "r2")
    return made


def test_a_lake_keeps_what_is_live_and_loses_the_rest_with_its_files(lake: Lake) -> None:
    made = nights(lake)
    before = files_of(lake)
    listed = run(lake, "list")
    assert files_of(lake) == before
    assert listed["partitions"] == 16
    deleted = run(lake, "delete")
    assert deleted == listed
    gone = {f"events {age}" for age in range(36, 41)} | {f"profiles {age}" for age in range(37, 41)}
    gone |= {f"users {age}" for age in range(34, 41)}
    assert len(gone) == 16
    for name, manifest in made.items():
        assert (lake.find(manifest.partition) is None) == (name in gone), name
        if name not in gone:
            assert len(lake.read(manifest)) == 1
    left = files_of(lake)
    assert not [path for path in left if any(path.startswith(made[name].folder) for name in gone)]
    assert read_index(lake).to_pylist() == ["i1", "i2"]
    assert {path for path in left if path.startswith("item_index")} == {
        path for path in before if path.startswith("item_index")
    }
    assert run(lake, "list", run_id="again")["rows"] == 0


def test_attempts_that_nobody_named_go_after_their_margin_and_receipts_after_theirs(lake: Lake) -> None:
    dead = lake.attempt(Partition("events", NOW), "died")
    dead.write(pa.Table.from_pylist([row_of("events", "x")], schema=TABLES["events"].schema))
    paused = lake.attempt(Partition("receipts", NOW, "a"), "plan-1")
    paused.write(pa.Table.from_pylist([row_of("receipts", "x")], schema=TABLES["receipts"].schema))
    old = write(lake, "catalog", NOW, value="x")
    new = write(lake, "catalog", NOW, value="y")
    lake.storage.create("staging/b1/events/x").close()
    names = lambda: {path.split("/attempt=")[0] for path in files_of(lake) if "_manifest" not in path}  # noqa: E731
    assert len(files_of(lake)) == 6

    def sweep(days: int) -> None:
        date = NOW + dt.timedelta(days=days)
        run(lake, "list", date, run_id=f"r{days}")
        run(lake, "delete", date, run_id=f"r{days}")

    sweep(ATTEMPT_DAYS - 1)
    assert len(files_of(lake)) == 6
    sweep(ATTEMPT_DAYS)
    assert {path.split("/")[0] for path in names()} == {"receipts", "catalog", "staging"}
    assert len(lake.read(new)) == 1
    with pytest.raises(StorageError, match="missing"):
        lake.read(old)
    assert attempt_days("receipts") == STAGING_DAYS
    sweep(STAGING_DAYS)
    assert {path.split("/")[0] for path in names()} == {"catalog"}
    assert len(lake.read(lake.manifest(new.partition))) == 1


def test_what_a_stopped_gate_said_goes_after_the_time_of_its_partition(any_lake: Lake) -> None:
    stopped = Partition("users", NOW).stopped_path
    any_lake.storage.replace_if(stopped, b"{}", None)
    kept = write(any_lake, "users", NOW)

    def sweep(days: int) -> object:
        date = NOW + dt.timedelta(days=days)
        listed = run(any_lake, "list", date, run_id=f"r{days}")
        assert any_lake.storage.read(stopped) == b"{}"
        assert run(any_lake, "delete", date, run_id=f"r{days}") == listed
        return listed["stopped"]

    assert sweep(KEEPING["users"].days - 1) == 0
    assert any_lake.storage.read(stopped) == b"{}"
    assert sweep(KEEPING["users"].days) == 1
    assert any_lake.storage.read(stopped) is None
    assert len(any_lake.read(kept)) == 1


def test_deleting_needs_a_list_and_goes_no_further(lake: Lake) -> None:
    with pytest.raises(EmptyPartitionError, match="run expire_data --step list"):
        run(lake, "delete")
    for age in (40, 39, 0):
        write(lake, "events", aged(age))
    run(lake, "list", aged(4))  # as of then only the older one had expired
    run(lake, "delete")
    assert lake.find(Partition("events", aged(40))) is None
    assert lake.find(Partition("events", aged(39))) is not None


def test_one_entry_that_changed_stops_the_whole_list(any_lake: Lake) -> None:
    for age in (40, 39, 0):
        write(any_lake, "events", aged(age))
    run(any_lake, "list")
    write(any_lake, "events", aged(39), value="backfilled")
    before = files_of(any_lake)
    with pytest.raises(GateError, match=r"1 entries .* events/date=.* Nothing was deleted"):
        run(any_lake, "delete")
    assert files_of(any_lake) == before
    run(any_lake, "list")
    assert run(any_lake, "delete")["partitions"] == 2


def test_a_partition_that_became_the_input_of_something_new_stops_the_list(lake: Lake) -> None:
    old = write(lake, "events", aged(40))
    write(lake, "events", aged(0))
    run(lake, "list")
    write(lake, "profiles", aged(0), old)
    with pytest.raises(GateError, match="may not be deleted any more"):
        run(lake, "delete")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("survives", range(5))
def test_killed_anywhere_no_manifest_is_without_its_files_and_the_next_try_ends_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    for age in (42, 41, 40, 0):
        write(lake, "events", aged(age))
    run(lake, "list")
    calls = itertools.count()
    storage = type(lake.storage)

    def dying(method: object) -> object:
        def call(self: Storage, *arguments: object) -> None:
            if next(calls) >= survives:
                raise KilledError
            method(self, *arguments)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patched:
        for name in ("delete_if", "delete_folder"):
            patched.setattr(storage, name, dying(getattr(storage, name)))
        with pytest.raises(KilledError):
            run(lake, "delete")
    inventory = take_inventory(lake)
    assert len(inventory.published) == 4 - (survives + 1) // 2
    for found in inventory.published.values():
        assert len(lake.read(found.manifest)) == 1
    run(lake, "delete")
    assert {path.split("/")[1] for path in files_of(lake)} == {f"date={NOW}"}


def test_a_torn_or_misplaced_manifest_stops_the_listing(lake: Lake, tmp_path: Path) -> None:
    good = write(lake, "events", aged(40))
    path = tmp_path / "lake" / good.partition.manifest_path
    other = path.parents[1] / f"date={aged(41)}" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    with pytest.raises(StorageError, match="expected that of its own folder"):
        run(lake, "list")
    other.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StorageError, match="not a whole manifest"):
        run(lake, "list")


def test_what_is_not_ryml_s_is_never_listed(lake: Lake, tmp_path: Path) -> None:
    for name in ("notes/date=2000-01-01/run=x/attempt=y/z", "events/readme.txt", "backfills/x.json"):
        file = tmp_path / "lake" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        os.utime(file, (0, 0))
    assert run(lake, "list")["rows"] == 0


def test_storage_lists_and_deletes_only_what_it_was_shown(any_lake: Lake) -> None:
    storage = any_lake.storage
    assert list(storage.list_files("a")) == []
    for path in ("a/2", "a/10/x", "ab/1", "a/1"):
        file = storage.create(path)
        file.write(b"12345")
        file.close()
    found = list(storage.list_files("a"))
    assert [file.path for file in found] == ["a/1", "a/10/x", "a/2"]
    assert {file.size_bytes for file in found} == {5}
    assert all(abs(clock() - file.modified_at) < dt.timedelta(minutes=5) for file in found)
    with pytest.raises(PublishConflictError):
        storage.delete_if("a/1", b"other")
    assert storage.read("a/1") == b"12345"
    storage.delete_if("a/1", b"12345")
    storage.delete_if("a/1", b"12345")
    assert storage.read("a/1") is None
    assert json.loads(storage.read("_lake.json") or b"") == {"buckets": 2}
