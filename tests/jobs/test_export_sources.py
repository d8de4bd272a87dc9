"""Sources as they come: half-written, packed, on S3, behind a driver of somebody else, named by a connection."""

import bz2
import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import adbc_driver_sqlite
import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from small_shop import Export, make_csv, make_json, make_parquet, make_sqlite, shop_rows

from jobs.sources.adbc_database import _without_login
from schemas.errors import ConfigError, EmptyPartitionError, RymlError, SchemaError

EXPORTED = ("events", "catalog", "users")


def packed(name: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        return bytes(pc_compress(data, name))

    return pack


def pc_compress(data: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKINGS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": packed("zstd"), ".lz4": packed("lz4")}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_packed_files_give_the_bytes_of_plain_ones(tmp_path, suffix, packing):
    make = make_csv if suffix == ".csv" else make_parquet
    export = Export(tmp_path / "lake", make(tmp_path, shop_rows()))
    plain = {table: (export.run(table), export.content(table))[1] for table in EXPORTED}
    for table in EXPORTED:
        path = tmp_path / f"{table}{suffix}"
        path.with_name(path.name + packing.upper()).write_bytes(PACKINGS[packing](path.read_bytes()))
        path.unlink()
    settings = tmp_path / "files.toml"
    settings.write_text(settings.read_text().replace(f'{suffix}"', f'{suffix}{packing.upper()}"'))
    again = Export(tmp_path / "again", settings)
    assert {table: (again.run(table), again.content(table))[1] for table in EXPORTED} == plain


def whole_and_cuts(kind: str, folder: Path) -> tuple[Path, Path, bytes, list[int]]:
    """A shop, its events file, the whole of it, and where it is cut: at random, and inside quotes."""
    rows = shop_rows()
    # The last column is text that is quoted and holds line breaks, so that a cut may leave a quote open behind one.
    rows["events"] = [(f"a\nb{n}", *row[1:]) for n, row in enumerate(rows["events"])]
    settings = {
        "csv": make_csv,
        "csv.gz": make_csv,
        "jsonl.gz": make_json,
        "jsonl": make_json,
        "parquet": make_parquet,
    }[kind](folder, rows)
    name = {"csv.gz": "events.csv"}.get(kind, f"events.{kind}")
    path = folder / name
    if kind == "csv":
        lines = [line.split(",", 1) for line in path.read_text().replace("a\nb", "a~b").splitlines()]
        path.write_text("".join(f"{rest},{first}\n" for first, rest in lines).replace("a~b", "a\nb"))
    if kind == "csv.gz":
        (folder / "events.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        settings.write_text(settings.read_text().replace('"events.csv"', '"events.csv.gz"'))
        path = folder / "events.csv.gz"
    if kind == "jsonl":
        data = gzip.decompress((folder / "events.jsonl.gz").read_bytes())
        (folder / "events.jsonl").write_bytes(data)
        settings.write_text(settings.read_text().replace('"events.jsonl.gz"', '"events.jsonl"'))
        path = folder / "events.jsonl"
    whole = path.read_bytes()
    draws = random.Random(kind)
    cuts = [draws.randrange(len(whole)) for _ in range(60)]
    cuts += [0, 1, len(whole) - 1]
    if kind == "csv":
        cuts += [place + 3 for place in (draws.randrange(len(whole) // 2) for _ in range(400)) if
                 whole[place : place + 3] == b'"a\n']  # fmt: skip
        cuts += [whole.index(b'"a\n', len(whole) // 2) + 3, whole.rindex(b'"a\n') + 3]
    return settings, path, whole, cuts


def is_whole_lines(kind: str, whole: bytes, cut: int) -> bool:
    """What no reader can tell from a shorter file: nothing is missing but lines."""
    if kind not in ("csv", "jsonl"):
        return False
    if kind == "jsonl":
        return whole[cut - 1 : cut] in (b"\n", b"}") and cut > 0
    return cut > 0 and whole[cut - 1 : cut] == b"\n" and whole[:cut].count(b'"') % 2 == 0


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_a_half_written_file_stops_the_export_wherever_it_breaks_off(tmp_path, kind):
    settings, path, whole, cuts = whole_and_cuts(kind, tmp_path)
    export = Export(tmp_path / "lake", settings)
    assert len(cuts) > 60
    stopped = 0
    for cut in cuts:
        if is_whole_lines(kind, whole, cut):
            continue
        path.write_bytes(whole[:cut])
        with pytest.raises((SchemaError, EmptyPartitionError)) as caught:
            export.run("events")
        # Only a file without a byte is an empty one; whatever begins and breaks off is damaged.
        assert isinstance(caught.value, SchemaError) or cut == 0, cut
        assert export.content("events") is None
        assert export.content("quarantine_events") is None
        assert export.attempts() == []
        stopped += 1
    assert stopped > 50
    path.write_bytes(whole)
    assert export.run("events")["rows"] == 360


def test_a_last_line_without_a_line_break_is_read_where_the_settings_say_so(csv_shop):
    path = csv_shop.settings.parent / "events.csv"
    path.write_bytes(path.read_bytes().rstrip())
    with pytest.raises(SchemaError, match=r"events\.csv breaks off.*open_end = true"):
        csv_shop.run("events")
    text = csv_shop.settings.read_text()
    csv_shop.settings.write_text(text.replace("[events]\n", "[events]\nopen_end = true\n"))
    assert csv_shop.run("events")["read"] == 700
    with path.open("a") as file:
        file.write('\nu,i,view,"2026-03-02')
    with pytest.raises(SchemaError):
        csv_shop.run("events")


def test_an_empty_csv_file_among_others_is_a_half_written_one(csv_shop):
    text = csv_shop.settings.read_text()
    csv_shop.settings.write_text(text.replace('"events.csv"', '"event*.csv"'))
    csv_shop.run("events")
    (csv_shop.settings.parent / "events-2.csv").touch()
    with pytest.raises(SchemaError, match=r"events-2\.csv is empty, without even a header"):
        csv_shop.run("events")


@pytest.fixture(scope="module")
def s3_endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="shop")
    yield "shop"
    for item in client.list_objects_v2(Bucket="shop").get("Contents", []):
        client.delete_object(Bucket="shop", Key=item["Key"])
    client.delete_bucket(Bucket="shop")


@pytest.mark.parametrize("make", [make_csv, make_json, make_parquet])
def test_files_on_s3_give_the_bytes_of_local_ones(tmp_path, bucket, make):
    export = Export(tmp_path / "lake", make(tmp_path, shop_rows()))
    local = {table: (export.run(table), export.content(table))[1] for table in EXPORTED}
    client = boto3.client("s3")
    for path in tmp_path.glob("*.*"):
        if path.suffix != ".toml" and path.is_file():
            key = path.name.replace("events", "days/2026/events") if path.name.startswith("events") else path.name
            client.upload_file(str(path), bucket, f"exports/{key}")
    settings = tmp_path / "files.toml"
    text = settings.read_text().replace('data_folder = "."', f'data_folder = "s3://{bucket}/exports"')
    settings.write_text(text.replace('"events', '"days/**/e*'))
    remote = Export(tmp_path / "remote", settings)
    assert {table: (remote.run(table), remote.content(table))[1] for table in EXPORTED} == local
    elsewhere = Export(tmp_path / "elsewhere", settings)
    assert elsewhere.run("users", data=f"s3://{bucket}/exports")["rows"] == 69
    with pytest.raises(ConfigError, match=r"s3://shop/nothing/users\.\S+ does not exist"):
        elsewhere.run("users", data=f"s3://{bucket}/nothing")
    with pytest.raises(ConfigError, match=r"no file is called days/\*\*/e\*\.\S+ in s3://shop/nothing"):
        elsewhere.run("events", data=f"s3://{bucket}/nothing")
    with pytest.raises(RymlError):
        elsewhere.run("users", data="s3://no-such-bucket/x")


@pytest.mark.parametrize("name", ["adbc_driver_sqlite", adbc_driver_sqlite._driver_path()])
@pytest.mark.parametrize("by", ["uri", "connection"])
def test_any_adbc_driver_by_its_package_or_library_gives_the_same_bytes(tmp_path, name, by):
    files = Export(tmp_path / "files", make_csv(tmp_path, shop_rows()))
    make_sqlite(tmp_path, shop_rows())
    uri = f"file:{tmp_path / 'shop.sqlite'}?mode=ro"
    place = 'connection = "shop_default"' if by == "connection" else f'uri = "{uri}"'
    settings = tmp_path / "sql.toml"
    text = settings.read_text()
    driver = f'\n[driver]\nname = "{name}"\nbind = "text"\n'
    text = text.replace('uri = "sqlite:///{data}"\ndata_path = "shop.sqlite"', place) + driver
    # The driver takes a column's type from its first rows; a shop that uses it writes what ryml's own query adds.
    settings.write_text(text.replace("quantity, price FROM", "quantity, CAST(price AS TEXT) AS price FROM"))
    export = Export(tmp_path / "lake", settings, uri if by == "connection" else None)
    for table in ("events", "users"):
        files.run(table)
        export.run(table)
        assert export.content(table) == files.content(table)


@pytest.mark.parametrize(
    ("driver", "part"),
    [
        ('"adbc_driver_nowhere"', "adbc_driver_nowhere cannot be loaded"),
        ('"/no/such/library.so"', "cannot be loaded"),
        ('{ name = "adbc_driver_sqlite", options = { api_token = "x" } }', "api_token does not belong"),
        ('{ name = "adbc_driver_sqlite", bind = "guess" }', "driver.bind"),
    ],
)
def test_a_driver_that_is_not_there_is_named_without_the_uri(tmp_path, driver, part):
    settings = make_sqlite(tmp_path, shop_rows())
    place = 'uri = "sqlite:///{data}"\ndata_path = "shop.sqlite"'
    settings.write_text(settings.read_text().replace(place, f'connection = "c"\ndriver = {driver}'))
    with pytest.raises(ConfigError) as caught:
        Export(tmp_path / "lake", settings, "grpc://me:hunter2@db").run("events")
    assert part in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_drivers_refusal_names_no_values(tmp_path):
    make_sqlite(tmp_path, shop_rows())
    settings = tmp_path / "sql.toml"
    place = 'uri = "sqlite:///{data}"\ndata_path = "shop.sqlite"'
    text = settings.read_text().replace(place, 'connection = "c"\ndriver = "adbc_driver_sqlite"')
    settings.write_text(text.replace("FROM users", "FROM hunter2"))
    with pytest.raises(ConfigError, match="refused the query") as caught:
        Export(tmp_path / "lake", settings, f"file:{tmp_path / 'shop.sqlite'}").run("users")
    assert "hunter2" not in str(caught.value)


def test_the_login_can_be_taken_out_of_a_uri():
    assert _without_login("grpc+tls://me:p%40ss@db:443/x?a=b") == (
        "grpc+tls://db:443/x?a=b",
        {"username": "me", "password": "p@ss"},
    )
    assert _without_login("grpc://db") == ("grpc://db", {})


def test_several_files_must_agree_on_what_is_read(tmp_path):
    export = Export(tmp_path / "lake", make_parquet(tmp_path, shop_rows()))
    text = export.settings.read_text().replace('"users.parquet"', '"users*.parquet"')
    export.settings.write_text(text)
    rows = pq.read_table(tmp_path / "users.parquet")
    shutil.copy(tmp_path / "users.parquet", tmp_path / "users-1.parquet")
    number = pc.cast(pc.starts_with(rows["user_id"], "u"), pa.int64())
    pq.write_table(rows.set_column(0, "user_id", number).drop_columns("locale"), tmp_path / "users-2.parquet")
    with pytest.raises(SchemaError) as caught:
        export.run("users")
    assert "users-2.parquet has no column locale" in str(caught.value)
    assert "users-2.parquet has user_id as number, the files before it as text" in str(caught.value)
