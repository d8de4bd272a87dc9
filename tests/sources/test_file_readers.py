import datetime as dt
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.lake.manifest import Window
from jobs.sources.file_places import SourceFile, SourceFolder
from jobs.sources.file_readers import open_file
from jobs.sources.files import FilesSource
from schemas.errors import ConfigError, SchemaError
from schemas.source import load_source
from schemas.tables import EVENTS

WINDOW = Window.of_days(dt.date(2026, 1, 1), dt.date(2026, 1, 1))
USES = {"id": "text", "price": "number"}


def rows_of(path: Path, uses=USES) -> list[dict[str, object]]:
    return [row for batch in open_file(SourceFile.local(path), delimiter=",").read(uses) for row in batch.to_pylist()]


def test_csv_is_read_as_bytes_in_any_packing(tmp_path):
    text = '\ufeffid,title,price\n007,"a\n""b""",1.50\n  ,x,\n\n'.encode()
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    expected = [{"id": b"007", "price": b"1.50"}, {"id": b"  ", "price": None}]
    assert rows_of(tmp_path / "a.csv") == expected
    assert rows_of(tmp_path / "a.csv.gz") == expected
    assert list(open_file(SourceFile.local(tmp_path / "a.csv"), delimiter=",").columns) == ["id", "title", "price"]


def test_csv_keeps_nul_and_every_other_byte_over_many_blocks(tmp_path):
    draws = random.Random(1)
    values = [
        bytes(draws.choices([0, 0xFE, 0x30, 0x31, 0xFF, 0x41, 0xC3], k=draws.randrange(1, 40))) for _ in range(300_000)
    ]
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"id,price\n")
        file.writelines(value + b",1\n" for value in values)
    assert (tmp_path / "a.csv").stat().st_size > 4 * 2**20
    assert [row["id"] for row in rows_of(tmp_path / "a.csv")] == values


def test_json_lines_keep_ids_that_look_like_instants_and_widen_whole_numbers(tmp_path):
    # The first block (4 MB) holds whole prices and no text in `note`; what comes later is read all the same.
    lines = [{"id": "2026-01-01", "price": 1, "note": None}] * 100_000 + [{"id": "x", "price": 2.5, "note": "n"}]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    assert len(text) > 4 * 2**20
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text, 1))
    rows = rows_of(tmp_path / "a.jsonl.gz", USES | {"note": "text"})
    assert len(rows) == 100_001
    assert rows[0] == {"id": "2026-01-01", "price": 1.0, "note": None}
    assert rows[-1] == {"id": "x", "price": 2.5, "note": "n"}


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", b"id,price\n1,2\n1,secret@example.com,3\n", "Expected 2 columns, got 3"),
        ("a.csv.gz", gzip.compress(b"id,price\n" + b"1,2\n" * 100_000)[:-20], "Truncated compressed stream"),
        ("a.jsonl", b'{"id":"secret@example.com","price":1}\n{"id":', "cannot be parsed"),
        ("a.jsonl", b'{"id":"a","price":1}\n{"id":{"x":1},"price":1}\n', "changed from string to object in row 1"),
        ("a.parquet", b"PAR1 secret@example.com", "damaged"),
        ("a.csv", b"id,id\n1,2\n", "id more than once"),
    ],
    # Names of their own: processes that run tests side by side agree on them, and one of these is packed.
    ids=["a column too many", "cut off packed", "cut off", "an object", "no parquet", "a column twice"],
)
def test_a_damaged_file_is_named_without_its_values(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=r"a\.") as caught:
        rows_of(tmp_path / name)
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_flipped_bit_in_parquet_is_noticed(tmp_path):
    table = pa.table({"id": [str(n) for n in range(1000)], "price": list(range(1000))})
    pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[len(data) // 4] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(SchemaError, match="damaged"):
        rows_of(tmp_path / "a.parquet")


def test_an_unknown_format_is_an_error(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"expected \.parquet, \.csv"):
        open_file(SourceFile.local(tmp_path / "a.xlsx"), delimiter=",")


SETTINGS = """
kind = "files"
name = "shop"
default_date = 2026-01-01
history_days = 1
data_folder = "."
[events]
path = "%s"
delimiter = ";"
[events.columns]
user_id = "u"
item_id = "i"
event_type = { constant = "view" }
occurred_at = "t"
quantity = { constant = 1 }
[catalog]
path = "x.csv"
columns = { item_id = "i", title = "t", url = "u", image_url = "m", price = "p", currency = "c", stock = "s" }
[users]
path = "x.csv"
columns = { user_id = "u", is_subscribed = "s" }
"""


def source(folder: Path, path: str) -> FilesSource:
    (folder / "shop.toml").write_text(SETTINGS % path)
    return FilesSource(load_source(folder / "shop.toml"), SourceFolder.open(str(folder)))


def batch_rows(shop: FilesSource) -> list[dict[str, object]]:
    with shop.reading(EVENTS, WINDOW) as reading:
        return [row for batch in reading.batches for row in batch.to_pylist()]


def test_positions_count_on_over_files_in_order_of_their_names(tmp_path):
    for name, rows in (("b.csv", "u2;i;t\n"), ("a.csv", "u1;i;t\nu1;i;t\n"), ("c.csv", "")):
        (tmp_path / f"events-{name}").write_text("u;i;t\n" + rows)
    rows = batch_rows(source(tmp_path, "events-*.csv"))
    assert [(row["user_id"], row["source_position"]) for row in rows] == [(b"u1", 1), (b"u1", 2), (b"u2", 3)]


def test_missing_columns_are_all_named_with_those_that_exist(tmp_path):
    (tmp_path / "events.csv").write_text("u;x;y\n1;2;3\n")
    with pytest.raises(SchemaError, match=r"events\.csv has no column i, t; it has u, x, y") as caught:
        batch_rows(source(tmp_path, "events.csv"))
    assert "[events.columns]" in str(caught.value)


@pytest.mark.parametrize(("path", "part"), [("none.csv", "does not exist"), ("none-*.csv", "no file is called")])
def test_a_missing_file_is_named_with_the_remedy(tmp_path, path, part):
    with pytest.raises(ConfigError, match=part):
        batch_rows(source(tmp_path, path))


def test_a_missing_folder_is_named_with_the_remedy(tmp_path):
    settings = source(tmp_path, "x.csv")._settings
    with pytest.raises(ConfigError, match=r"nowhere does not exist; .*--data"):
        batch_rows(FilesSource(settings, SourceFolder.open(str(tmp_path / "nowhere"))))
