"""The lake: whole partitions or none, verified reads, one winner of a race, the same on a folder and on S3."""

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from jobs.lake import lake as lake_module
from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest, Window
from schemas.errors import ConfigError, EmptyPartitionError, PublishConflictError, SchemaError, StorageError
from schemas.layout import UNDATED, Partition
from schemas.tables import CORRELATIONS, TABLES

DATE = dt.date(2026, 1, 5)
PARTITION = Partition("correlations", DATE, "spring")
ROOT = Path(__file__).resolve().parents[2]


def rows(generation, count=3):
    return pa.table(
        {
            "item": pa.array(range(count), pa.int32()),
            "other_item": [[generation]] * count,
            "score": [[0.5]] * count,
            "support": [[2]] * count,
            "source": [[0]] * count,
        },
        schema=CORRELATIONS.schema,
    )


def publish(lake, generation, **kwargs):
    attempt = lake.attempt(PARTITION, f"run-{generation}")
    files = [attempt.write(rows(generation), bucket=number) for number in range(2)]
    return attempt.publish(files, inputs=[], parameters={"generation": generation}, **kwargs)


def generation_of(lake):
    return {value[0] for value in lake.read(lake.manifest(PARTITION))["other_item"].to_pylist()}


@pytest.fixture(scope="module")
def s3_endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def lake(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return Lake.open(str(tmp_path / "lake"), buckets=4)
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"lake-{tmp_path.name}".replace("_", "-").lower()[:60]
    boto3.client("s3").create_bucket(Bucket=bucket)
    return Lake.open(f"s3://{bucket}/prefix", buckets=4)


def test_a_partition_reads_back_as_it_was_written(lake):
    assert lake.find(PARTITION) is None
    manifest = publish(lake, 1)
    assert lake.manifest(PARTITION) == manifest
    content = lake.read(manifest)
    assert content.schema.equals(CORRELATIONS.schema)
    assert content.num_rows == manifest.rows == 6
    assert lake.read(manifest, bucket=1, columns=["item"]).num_rows == 3


def test_the_same_result_from_the_same_inputs_is_not_published_again(lake):
    first, second = publish(lake, 1), publish(lake, 1)
    assert second == first
    third = publish(lake, 2)
    assert third.sequence == 2
    assert third.content_sha256 != first.content_sha256


def test_publishing_one_attempt_twice_keeps_its_files(lake):
    attempt = lake.attempt(PARTITION, "receipts")
    files = [attempt.write(rows(1))]
    first = attempt.publish(files, inputs=[], parameters={})
    assert attempt.publish(files, inputs=[], parameters={}) == first
    assert lake.read(first).num_rows == 3


def test_a_slower_writer_that_builds_on_what_it_read_loses(lake):
    before = publish(lake, 1)
    publish(lake, 2, replaces=before)
    with pytest.raises(PublishConflictError):
        publish(lake, 3, replaces=before)
    assert generation_of(lake) == {2}


def test_a_conditional_put_refuses_a_file_that_changed(lake):
    storage = lake.storage
    storage.replace_if("x.json", b"one", None)
    with pytest.raises(PublishConflictError):
        storage.replace_if("x.json", b"two", None)
    with pytest.raises(PublishConflictError):
        storage.replace_if("x.json", b"two", b"other")
    storage.replace_if("x.json", b"two", b"one")
    assert storage.read("x.json") == b"two"


def test_a_missing_partition_says_what_to_run(lake):
    with pytest.raises(EmptyPartitionError, match="run build_recommendations for 2026-01-05"):
        lake.manifest(PARTITION)


def test_the_number_of_buckets_is_settled_once(lake):
    assert Lake.open(lake.uri).buckets == 4
    with pytest.raises(ConfigError, match="4 user buckets, asked for 8"):
        Lake.open(lake.uri, buckets=8)


def test_uploads_that_were_never_finished_are_dropped_when_they_are_old(lake):
    if not lake.uri.startswith("s3://"):
        assert lake.storage.drop_unfinished_uploads(dt.datetime.now(dt.UTC)) == 0
        return
    bucket = lake.uri.removeprefix("s3://").split("/")[0]
    client = boto3.client("s3")
    for key in ("prefix/events/a", "prefix/events/b", "other/c"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    # The test endpoint dates every upload to 2010.
    assert lake.storage.drop_unfinished_uploads(dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) == 0
    assert lake.storage.drop_unfinished_uploads(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)) == 2
    left = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [upload["Key"] for upload in left] == ["other/c"]


def flipped(good, rng):
    data = bytearray(good)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_of_300_flipped_bits_none_goes_unseen(tmp_path, codec, monkeypatch):
    monkeypatch.setitem(lake_module._WRITE_OPTIONS, "compression", codec)
    monkeypatch.setitem(lake_module._WRITE_OPTIONS, "compression_level", None)
    lake = Lake.open(str(tmp_path), buckets=1)
    attempt = lake.attempt(PARTITION, "run")
    manifest = attempt.publish([attempt.write(rows(1, count=500))], inputs=[], parameters={})
    path = tmp_path / manifest.folder / manifest.files[0].name
    good, rng, noticed = path.read_bytes(), random.Random(7), 0
    content = pq.read_table(path)
    by_pages_alone = 0
    for _ in range(300):
        bad = flipped(good, rng)
        path.write_bytes(bad)
        with pytest.raises(StorageError, match="not the file its manifest names"):
            lake.read(manifest)
        noticed += 1
        try:
            by_pages_alone += not pq.read_table(pa.BufferReader(bad), page_checksum_verification=True).equals(content)
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            continue
    assert noticed == 300
    # Page checksums cover pages, not their headers: alone they let a few flips of a small file through.
    assert by_pages_alone <= 5


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    lake = Lake.open(str(tmp_path), buckets=1)
    manifest = publish(lake, 1)
    path = tmp_path / manifest.folder / manifest.files[0].name
    good = path.read_bytes()
    rng = random.Random(5)
    noticed = 0
    for _ in range(200):
        data = bytearray(good)
        if rng.random() < 0.5:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        with pytest.raises(StorageError, match="not the file its manifest names"):
            lake.read(manifest)
        noticed += 1
    assert noticed == 200
    path.unlink()
    with pytest.raises(StorageError, match="missing"):
        lake.read(manifest)


def test_an_edited_manifest_is_refused(tmp_path):
    lake = Lake.open(str(tmp_path), buckets=1)
    publish(lake, 1)
    path = tmp_path / PARTITION.manifest_path
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"rows": 3', '"rows": 4', 1), encoding="utf-8")
    with pytest.raises(StorageError, match="does not fit its own digest"):
        lake.manifest(PARTITION)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(StorageError, match="not a whole manifest"):
        lake.manifest(PARTITION)


def test_wrong_columns_are_refused_before_anything_is_published(tmp_path):
    lake = Lake.open(str(tmp_path), buckets=1)
    with pytest.raises(SchemaError, match="expected"):
        lake.attempt(PARTITION, "r").write(pa.table({"item": [1]}))
    assert lake.find(PARTITION) is None


WRITER = """
import sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {here!r})
from test_lake import publish
from jobs.lake import lake as lake_module
from jobs.lake.lake import Lake
lake = Lake.open(sys.argv[1])
print("go", flush=True)
generation = int(sys.argv[2])
while True:
    generation += 1
    publish(lake, generation)
"""


@pytest.mark.parametrize("seed", range(10))
def test_a_reader_sees_one_generation_whenever_the_writer_is_killed(tmp_path, seed):
    lake = Lake.open(str(tmp_path), buckets=1)
    publish(lake, 0)
    code = WRITER.format(root=str(ROOT), here=str(Path(__file__).parent))
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed * 1000)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"go\n"
    time.sleep(random.Random(seed).uniform(0.01, 0.15))
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    seen = generation_of(lake)
    assert len(seen) == 1
    # Whatever the dead writer left, the next one publishes on top of it.
    publish(lake, 999_999)
    assert generation_of(lake) == {999_999}


def _race(uri, start, number, results):
    lake = Lake.open(uri)
    before = lake.manifest(PARTITION)
    start.wait()
    try:
        publish(lake, number, replaces=before)
        results.put(number)
    except PublishConflictError:
        results.put(None)


def test_of_eight_writers_on_one_manifest_one_wins(tmp_path, forks):
    lake = Lake.open(str(tmp_path), buckets=1)
    publish(lake, 0)
    start, results = forks.Barrier(8), forks.Queue()
    writers = [forks.Process(target=_race, args=(str(tmp_path), start, n, results)) for n in range(1, 9)]
    for writer in writers:
        writer.start()
    outcomes = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    winners = [number for number in outcomes if number is not None]
    assert len(winners) == 1
    assert generation_of(lake) == set(winners)


def test_windows_are_half_open_and_in_utc():
    window = Window.of_days(dt.date(2028, 2, 28), dt.date(2028, 2, 29))
    assert window.end_at == dt.datetime(2028, 3, 1, tzinfo=dt.UTC)
    with pytest.raises(StorageError, match="is empty"):
        Window(window.start_at, window.start_at)
    with pytest.raises(StorageError, match="not in UTC"):
        Window(window.start_at.astimezone(dt.timezone(dt.timedelta(hours=2))), window.end_at)


def test_every_table_has_a_place_and_a_round_trip():
    assert len(TABLES) >= 14
    for table in TABLES.values():
        partition = Partition(
            table.name, DATE if table.dated else UNDATED, "campaign_1" if table.per_campaign else None
        )
        assert partition.path.startswith(table.name)
        assert set(table.key) <= set(table.schema.names)
    with pytest.raises(ConfigError, match="needs a campaign"):
        Partition("recommendations", DATE)
    with pytest.raises(ConfigError, match="no table is called"):
        Partition("orders", DATE)


def test_a_manifest_round_trips(tmp_path):
    manifest = publish(Lake.open(str(tmp_path), buckets=1), 1)
    assert Manifest.from_bytes(manifest.to_bytes(), "here") == manifest
