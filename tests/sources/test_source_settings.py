import datetime as dt
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.source import EXPORTED, FilesSettings, SqlSettings, load_source
from schemas.sql_parameters import bind_names, parameter_names

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

FILES = """
kind = "files"
name = "shop"
default_date = 2026-01-31
history_days = 30
data_folder = "data"

[events]
path = "events.csv"
[events.columns]
user_id = "customer"
item_id = "sku"
event_type = { column = "kind", values = { sale = "purchase" } }
occurred_at = "at"
quantity = { column = "pieces", absolute = true }

[catalog]
path = "items.csv"
[catalog.columns]
item_id = "sku"
title = "name"
url = { template = "https://shop.example.com/{sku:url}" }
image_url = { constant = "https://shop.example.com/x.png" }
price = "price"
currency = { constant = "EUR" }
stock = { column = "sku", values = { gone = "0" }, otherwise = "9" }

[users]
path = "users.csv"
properties = ["country"]
[users.columns]
user_id = "customer"
email = { template = "user-{customer}@example.com" }
is_subscribed = { constant = true }
"""

SQL = """
kind = "sql"
name = "shop"
history_days = 30
uri = "sqlite:///{data}"
[events]
query = "SELECT * FROM events WHERE t >= :window_start AND t < :window_end ORDER BY id"
[catalog]
query = "SELECT * FROM items ORDER BY id"
[users]
query = "SELECT * FROM users WHERE t < :snapshot_at ORDER BY id"
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return load_source(path)


def test_reads_both_kinds(tmp_path):
    files = load(tmp_path, FILES)
    assert isinstance(files, FilesSettings)
    assert files.default_date == dt.date(2026, 1, 31)
    assert files.events.source_columns == ["customer", "sku", "kind", "at", "pieces"]
    assert files.users.source_columns == ["customer", "country"]
    assert files.users.columns["is_subscribed"].constant is True
    assert isinstance(load(tmp_path, SQL), SqlSettings)


def test_every_example_is_valid():
    examples = sorted(EXAMPLES.glob("*.toml"))
    assert examples
    for path in examples:
        load_source(path)


def test_all_mistakes_come_in_one_message(tmp_path):
    text = (
        FILES.replace("history_days = 30", "history_days = 4001")
        .replace('user_id = "customer"\nitem_id', 'usr_id = "customer"\nitem_id')
        .replace('price = "price"', 'price = { column = "price", template = "{price}" }')
        .replace('path = "users.csv"', 'pfad = "users.csv"')
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    for part in (
        "shop.toml",
        "history_days: Input should be less than or equal to 4000",
        "events.columns: events has no column usr_id; it has user_id, item_id",
        "events needs user_id",
        "catalog.columns.price: expected exactly one of column, constant and template",
        "users.path: Field required",
        "users.pfad: Extra inputs are not permitted",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"files"', '"excel"', "kind is 'excel'; expected 'files' or 'sql'"),
        (
            'item_id = "sku"\nevent',
            'item_id = { column = "sku", absolute = true }\nevent',
            "absolute goes with numbers",
        ),
        ('item_id = "sku"\nevent', 'item_id = { column = "sku", format = "%Y" }\nevent', "format goes with instants"),
        ('"https://shop.example.com/{sku:url}"', '"x{sku:>9}"', "placeholders look like {column}"),
        ('"https://shop.example.com/{sku:url}"', '"x{sku"', "template"),
        ("{ constant = true }", "{ constant = true, absolute = true }", "absolute only goes with column"),
        ('{ gone = "0" }, otherwise', "{}, otherwise", "otherwise only goes with values"),
        ('path = "events.csv"', 'path = "events.csv"\nproperties = ["a"]', "events keeps no properties"),
        ('name = "shop"', 'name = "a/b"', "name: String should match pattern"),
        ("default_date", "!", "is not TOML"),
    ],
)
def test_each_mistake_is_named(tmp_path, old, new, part):
    assert old in FILES
    with pytest.raises(ConfigError, match=r"shop\.toml") as caught:
        load(tmp_path, FILES.replace(old, new, 1))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("t >= :window_start AND ", "", "does not use :window_start"),
        (":snapshot_at", ":today", "uses :today; the parameters here are :snapshot_at"),
        ("items ORDER BY id", "items", "has no ORDER BY"),
        ("items ORDER BY id", "(SELECT * FROM items ORDER BY id)", "has no ORDER BY"),
        ("items ORDER BY id", "items ORDER BY id; DROP TABLE items", "more than one statement"),
        ('uri = "sqlite:///{data}"', "", "exactly one of uri and connection"),
        ('uri = "sqlite:///{data}"', 'uri = "postgresql://me:hunter2@db/shop"', "a password does not belong"),
    ],
)
def test_each_mistake_in_a_query_is_named(tmp_path, old, new, part):
    assert old in SQL
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SQL.replace(old, new, 1))
    assert part in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml is not a file"):
        load_source(tmp_path / "none.toml")


def test_parameters_are_found_by_the_rules_of_sql():
    query = """
      SELECT ':window_start', "a:b", 'it''s :no', x::text, $$ :no $$, E'\\':no' -- :no
      FROM t /* :no */ WHERE a >= :window_start AND b < :window_start AND c < :window_end
    """
    assert parameter_names(query) == {"window_start", "window_end"}
    bound = bind_names(query, {"window_start": "?1", "window_end": "?2"}.__getitem__)
    assert bound.count("?1") == 2
    assert bound.count("?2") == 1
    # Everything else is as it was: putting the names back gives the query.
    assert bound.replace("?1", ":window_start").replace("?2", ":window_end") == query


def test_exported_tables_are_those_of_the_settings():
    assert [table.name for table in EXPORTED] == ["events", "catalog", "users"]
