import pyarrow as pa
import pytest

from jobs.sources.mapping import map_batch, property_map
from schemas.source import ColumnRule
from schemas.tables import CATALOG, EVENTS

ROWS = pa.RecordBatch.from_pydict(
    {
        "id": [7, 8, None],
        "code": pa.array(["007 ", "BANK CHARGES", "ü/?&"]),
        "kind": ["sale", "look", None],
        "pieces": [-3.0, 2.0, float("nan")],
        "when": ["30/11/2011 08:15", "30/02/2011 08:15", ""],
        "epoch": ["1322640900", "1322640900.5", "x"],
    }
)


def mapped(**rules: object) -> dict[str, list[object]]:
    columns = {name: ColumnRule.model_validate(rule) for name, rule in rules.items()}
    return map_batch(EVENTS, ROWS, rules=columns, properties=(), first_position=11).to_pydict()


def test_columns_constants_and_positions():
    batch = mapped(user_id="id", item_id="code", quantity={"constant": 1})
    assert batch["user_id"] == [7, 8, None]
    assert batch["item_id"] == ["007 ", "BANK CHARGES", "ü/?&"]
    assert batch["quantity"] == [1, 1, 1]
    assert batch["price"] == [None] * 3
    assert batch["source_position"] == [11, 12, 13]


def test_values_are_translated_and_others_pass_through_or_are_replaced():
    assert mapped(event_type={"column": "kind", "values": {"sale": "purchase"}})["event_type"] == [
        "purchase",
        "look",
        None,
    ]
    replaced = mapped(event_type={"column": "kind", "values": {"sale": "purchase"}, "otherwise": "view"})
    assert replaced["event_type"] == ["purchase", "view", None]
    assert mapped(quantity={"column": "id", "values": {"7": "70"}})["quantity"] == ["70", "8", None]


def test_templates_fill_in_source_columns_and_escape_urls():
    assert mapped(user_id={"template": "user-{id}@example.com"})["user_id"] == [
        "user-7@example.com",
        "user-8@example.com",
        None,
    ]
    assert mapped(item_id={"template": "{{{code:url}}}"})["item_id"] == [
        "{007%20}",
        "{BANK%20CHARGES}",
        "{%C3%BC%2F%3F%26}",
    ]
    assert mapped(item_id={"template": "same"})["item_id"] == ["same"] * 3


def test_absolute_drops_the_sign():
    quantities = mapped(quantity={"column": "pieces", "absolute": True})["quantity"]
    assert quantities[:2] == [3.0, 2.0]
    assert str(quantities[2]) == "nan"


def test_formats_read_instants_and_leave_the_unreadable_null():
    stamps = mapped(occurred_at={"column": "when", "format": "%d/%m/%Y %H:%M"})["occurred_at"]
    assert [str(stamp) for stamp in stamps] == ["2011-11-30 08:15:00+00:00", "None", "None"]
    stamps = mapped(occurred_at={"column": "epoch", "format": "epoch_seconds"})["occurred_at"]
    assert [str(stamp) for stamp in stamps] == ["2011-11-30 08:15:00+00:00", "2011-11-30 08:15:00.500000+00:00", "None"]


@pytest.mark.parametrize("names", [("kind", "id"), ("id", "kind")])
def test_properties_are_a_map_by_name_without_nulls(names):
    assert property_map(ROWS, names).to_pylist() == [
        [("id", "7"), ("kind", "sale")],
        [("id", "8"), ("kind", "look")],
        [],
    ]


def test_no_properties_are_null():
    assert property_map(ROWS, ()).to_pylist() == [None] * 3
    assert map_batch(CATALOG, ROWS, rules={}, properties=(), first_position=1).column("properties").null_count == 3
