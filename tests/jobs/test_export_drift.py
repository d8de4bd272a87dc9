"""Twelve ways in which a source changes from one night to the next, and what becomes of each."""

import contextlib
import csv
import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small_shop import DATE, Export, make_csv, make_json, make_parquet, make_postgresql, make_sqlite, shop_rows

from jobs.lake.lake import Lake
from schemas.errors import ConfigError, SchemaError
from schemas.layout import Partition

NEXT = DATE + dt.timedelta(days=1)
Change = Callable[[Path], None]


def parquet(table: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / f"{table}.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return apply


def retyped(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        return rows.set_column(rows.column_names.index(name), name, rows[name].cast(kind))

    return change


def renamed(old: str, new: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.rename_columns([new if name == old else name for name in rows.column_names])


def numbered_ids(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "item_id", pc.cast(rows["item_id"], pa.int64()))


def csv_without_two(folder: Path) -> None:
    with (folder / "events.csv").open(newline="") as file:
        rows = [[row[n] for n in (0, 2, 3, 4)] for row in csv.reader(file)]
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def json_prices_as_text(folder: Path) -> None:
    import gzip

    path = folder / "events.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    text = "".join(json.dumps(row | {"price": str(row["price"])}) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()))


def sqlite(*statements: str) -> Change:
    def apply(folder: Path) -> None:
        with contextlib.closing(sqlite3.connect(folder / "shop.sqlite")) as database, database:
            for statement in statements:
                database.execute(statement)

    return apply


@dataclass(frozen=True)
class Case:
    """`stops`: the parts of the one message that it stops with; `new`: the columns that are warned of."""

    kind: str
    table: str
    change: Change
    stops: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


CASES = {
    "a column is renamed": Case(
        "parquet", "events", parquet("events", renamed("user_id", "customer_id")), ("no column user_id",)
    ),
    "a column is written with a capital": Case(
        "parquet", "events", parquet("events", renamed("user_id", "User_ID")), ("no column user_id", "User_ID")
    ),
    "ids become numbers": Case(
        "parquet", "catalog", parquet("catalog", numbered_ids), ("item_id is number, it was text",)
    ),
    "instants lose their zone": Case(
        "parquet", "events", parquet("events", retyped("occurred_at", pa.timestamp("us"))),
        ("occurred_at is instant without a zone, it was instant",),
    ),
    "numbers become wider": Case(
        "parquet", "events",
        parquet("events", lambda rows: retyped("price", pa.float32())(retyped("quantity", pa.int16())(rows))),
    ),
    "columns change places and text becomes a dictionary": Case(
        "parquet", "users",
        parquet("users", lambda rows: rows.select(rows.column_names[::-1]).set_column(
            rows.num_columns - 1, "user_id", rows["user_id"].combine_chunks().dictionary_encode())),
    ),
    "a file gets a new column": Case(
        "parquet", "users",
        parquet("users", lambda rows: rows.append_column("age", pa.array([1] * len(rows)))), new=("age",),
    ),
    "several columns go at once": Case("csv", "events", csv_without_two, ("no column item_id, price",)),
    "numbers become text in JSON": Case(
        "json", "events", json_prices_as_text, ("price is text, it was number",)
    ),
    "a table gets a new column, which becomes a property": Case(
        "sqlite", "users", sqlite("ALTER TABLE users ADD COLUMN age DEFAULT 7"), new=("age",)
    ),
    "a table gets a new column, which has no place": Case(
        "sqlite", "events", sqlite("ALTER TABLE events ADD COLUMN channel"), new=("channel",)
    ),
    "optional columns of a table go": Case(
        "sqlite", "catalog",
        sqlite("ALTER TABLE catalog DROP COLUMN color", "ALTER TABLE catalog DROP COLUMN rating"),
        ("2 differences", "color is missing", "rating is missing"),
    ),
}  # fmt: skip
MAKERS = {"parquet": make_parquet, "csv": make_csv, "json": make_json, "sqlite": make_sqlite}


def everything_selected(settings: Path) -> None:
    """Ask for all columns, as one does who wants to keep what the shop adds."""
    text = settings.read_text()
    for table in ("users", "catalog"):
        head, _, tail = text.partition(f"[{table}]")
        text = f"{head}[{table}]{tail.replace(tail[tail.index('SELECT') : tail.index(' FROM')], 'SELECT *', 1)}"
    settings.write_text(text.replace("SELECT user_id, item_id, event_type, occurred_at, quantity, price", "SELECT *"))


def test_there_are_twelve():
    assert len(CASES) == 12


@pytest.mark.parametrize("name", CASES)
def test_a_source_that_changes(tmp_path, name):
    case = CASES[name]
    rows = shop_rows()
    settings = MAKERS[case.kind](tmp_path, rows)
    if case.kind == "sqlite":
        # The row number of the fixture is a column too; a query without it is what is tested.
        everything_selected(settings)
        sqlite(
            f"CREATE TABLE copy AS SELECT * FROM {case.table} ORDER BY n",  # noqa: S608
            "ALTER TABLE copy DROP COLUMN n",
            f"DROP TABLE {case.table}",
            f"ALTER TABLE copy RENAME TO {case.table}",
        )(tmp_path)
        settings.write_text(settings.read_text().replace("ORDER BY n", "ORDER BY 1"))
    export = Export(tmp_path / "lake", settings)
    first = export.run(case.table)
    assert first["new_source_columns"] == []
    case.change(tmp_path)
    if case.stops:
        with pytest.raises(SchemaError) as caught:
            export.run(case.table, NEXT)
        assert all(part in str(caught.value) for part in case.stops), str(caught.value)
        assert export.content(case.table, NEXT) is None
        assert export.content(f"quarantine_{case.table}", NEXT) is None
        return
    result = export.run(case.table, NEXT)
    assert result["rows"] > 0
    assert result["new_source_columns"] == list(case.new)
    metrics = Lake.open(str(export.lake)).manifest(Partition(case.table, NEXT)).metrics
    assert metrics["new_source_columns"] == list(case.new)
    # Warned of once: the night after knows it.
    later = {"events": NEXT, "catalog": NEXT + dt.timedelta(days=1), "users": NEXT + dt.timedelta(days=1)}[case.table]
    if later != NEXT:
        assert export.run(case.table, later)["new_source_columns"] == []


def test_postgresql_columns_of_another_type_are_all_named_and_can_be_accepted(tmp_path, postgresql_uri):
    import adbc_driver_postgresql.dbapi as postgresql

    settings = make_postgresql(tmp_path, shop_rows(), postgresql_uri)
    export = Export(tmp_path / "lake", settings, postgresql_uri)
    export.run("catalog")
    with postgresql.connect(postgresql_uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE catalog ALTER stock TYPE TEXT, ALTER rating TYPE TEXT, ALTER price TYPE FLOAT8")
    with pytest.raises(SchemaError, match=r"2 differences: rating is text, it was number; stock is text, it was"):
        export.run("catalog", NEXT)
    settings.write_text(settings.read_text().replace("[catalog]\n", "[catalog]\nversion = 2\n"))
    assert export.run("catalog", NEXT)["rows"] == 40


def test_a_column_of_nulls_is_of_any_kind_and_what_it_was_is_remembered(tmp_path):
    export = Export(tmp_path / "lake", make_parquet(tmp_path, shop_rows()))
    export.run("users")
    parquet("users", lambda rows: rows.set_column(3, "locale", pa.nulls(len(rows))))(tmp_path)
    export.run("users", NEXT)
    parquet("users", lambda rows: rows.set_column(3, "locale", pa.array([1] * len(rows))))(tmp_path)
    with pytest.raises(SchemaError, match="locale is number, it was text"):
        export.run("users", NEXT + dt.timedelta(days=1))


def test_a_name_that_was_misspelt_from_the_start_is_an_error(tmp_path):
    settings = make_sqlite(tmp_path, shop_rows())
    settings.write_text(settings.read_text().replace("price FROM events", "price AS prise FROM events"))
    with pytest.raises(SchemaError, match="prise, which events has no place for"):
        Export(tmp_path / "lake", settings).run("events")


def test_a_marker_says_that_the_files_are_complete(csv_shop):
    text = csv_shop.settings.read_text()
    csv_shop.settings.write_text(text.replace("[events]\n", '[events]\nmarker = "_SUCCESS"\n'))
    with pytest.raises(ConfigError, match="has no _SUCCESS, which the settings expect to be written last"):
        csv_shop.run("events")
    (csv_shop.settings.parent / "_SUCCESS").touch()
    assert csv_shop.run("events")["rows"] == 360
