"""Thousands of malformed rows through the whole export, from every kind of file: none crashes it, none is lost."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from poison import EMAILS, FLAGS, GOOD, INSTANTS, NUMBERS, TEXTS, Row, poisoned
from small_shop import DATE, FILES_SETTINGS, Export

from jobs.quality.override import GateOverride
from jobs.quality.row_rules import MAX_ID_BYTES
from schemas.tables import QUARANTINE_REASONS

SIZES = [1_000, pytest.param(10_000, marks=pytest.mark.scoreboard)]


def write_csv(path: Path, rows: list[Row]) -> None:
    # Python's writer takes text; Latin-1 takes every byte to a character and back.
    with path.open("w", newline="", encoding="latin-1") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows([(value or b"").decode("latin-1") for value in row.values()] for row in rows)


def write_parquet(path: Path, rows: list[Row]) -> None:
    columns = {name: pa.array([row[name] for row in rows], pa.binary()) for name in rows[0]}
    pq.write_table(pa.table(columns), path)


def write_json(path: Path, rows: list[Row]) -> None:
    # JSON cannot hold bytes that are not UTF-8: there the whole file is bad, and other tests see to that.
    written = [
        {name: None if value is None else value.decode(errors="replace") for name, value in row.items()} for row in rows
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written))


WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".jsonl": write_json}


def test_the_lists_are_what_they_say():
    assert min(map(len, (TEXTS, NUMBERS, INSTANTS, EMAILS))) > 30
    assert len(FLAGS) > 10
    for table in GOOD:
        rows = poisoned(table, 1_000, 1)
        for name, (_, bad) in GOOD[table].items():
            assert {row[name] for row in rows} >= set(bad)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("table", GOOD)
def test_malformed_rows_are_all_accounted_for(tmp_path, scoreboard, table, suffix, size):
    rows = poisoned(table, size, size)
    WRITERS[suffix](tmp_path / f"{table}{suffix}", rows)
    (tmp_path / "files.toml").write_text(FILES_SETTINGS.format(suffix=suffix))
    # No gate takes mostly malformed rows for a shop's day: a person would have to say so, and here one does.
    override = GateOverride(by="the tests", reason="malformed rows, made to be quarantined")
    export = Export(tmp_path / "lake", tmp_path / "files.toml", override=override)
    result = export.run(table)
    # A line of CSV in which nothing but one empty value stood would be no row; these have more columns.
    assert result["read"] == size
    assert result["read"] == result["rows"] + result["quarantined"] + result["outside_window"]
    assert sum(result["quarantined_by_reason"].values()) == result["quarantined"]
    assert set(result["quarantined_by_reason"]) <= set(QUARANTINE_REASONS)
    assert len(result["quarantined_by_reason"]) >= 3
    assert ("bad_encoding" in result["quarantined_by_reason"]) == (suffix != ".jsonl")
    aside = export.read(f"quarantine_{table}")
    assert aside.num_rows == result["quarantined"] + sum(result["addresses_dropped_by_reason"].values())

    key = "item_id" if table == "catalog" else "user_id"
    given = [row[key] for row in rows]
    if suffix == ".jsonl":
        given = [(value or b"").decode(errors="replace").encode() for value in given]
    used = [value.encode() for value in export.read(table).column(key).to_pylist()]
    assert len(used) > size // 10
    assert set(used) <= set(given)  # to the byte
    assert all(0 < len(value) <= MAX_ID_BYTES for value in used)
    if table == "users":
        kept = [email for email in export.read(table).column("email").to_pylist() if email]
        assert all(email.isascii() and email.isprintable() and email.count("@") == 1 for email in kept)
        assert len(set(kept)) == len(kept)
    scoreboard.add(
        f"{table} from {suffix[1:]}: {size:,} malformed rows", f"0 crashes, {result['rows']:,} used + "
        f"{result['quarantined']:,} quarantined + {result['outside_window']:,} of other days = {result['read']:,}"
    )  # fmt: skip
    assert export.content(table, DATE)
