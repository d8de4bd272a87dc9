"""The contract is the one place: suites, row rules and tables follow from it."""

import json
import re

import pytest

from jobs.quality import row_rules
from schemas import contracts
from schemas.checks import Between, Check, MaxBytes, OneOf
from schemas.contracts import CONTRACTS
from schemas.tables import EVENT_TYPES
from schemas.write_expectations import FOLDER, suite_text

GATED = {
    "events", "catalog", "users", "profiles", "correlations", "product_correlations", "hybrid_features", "hybrid_items",
    "hybrid_users", "trending", "recommendations",
}  # fmt: skip


def test_every_table_of_a_night_has_a_contract():
    assert set(CONTRACTS) == GATED


def test_the_committed_suites_are_what_the_contract_gives():
    assert {path.stem for path in FOLDER.glob("*.json")} == GATED
    for name, contract in CONTRACTS.items():
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        assert text == suite_text(contract), f"{name}: write the suites anew with: make expectations"
        assert len(json.loads(text)["expectations"]) == len(contract.checks) >= 12


@pytest.mark.parametrize("name", sorted(GATED))
def test_each_check_is_one_bounded_figure_with_a_reason(name):
    checks = CONTRACTS[name].checks
    figures = [check.figure for check in checks]
    assert len(set(figures)) == len(figures)
    for check in checks:
        assert re.fullmatch(r"[a-z_]+", check.figure)
        assert (check.at_least, check.above, check.at_most) != (None, None, None)
        assert len(check.why) > 10
        assert check.expected


@pytest.mark.parametrize("name", sorted(GATED))
def test_every_required_column_and_every_column_of_the_key_is_covered(name):
    contract = CONTRACTS[name]
    figures = {check.figure for check in contract.checks}
    required = [field.name for field in contract.table.schema if not field.nullable]
    assert required
    assert {f"{column}_nulls" for column in required} <= figures
    assert {rule.column for rule in contract.rules} <= set(contract.table.schema.names)
    # The same thing can be done twice at the same instant, and both sides of the model may have a feature of one name.
    if name not in ("events", "hybrid_features"):
        assert f"{contract.table.key[0]}_repeats" in figures


def test_what_no_night_may_break_cannot_be_overridden():
    hard = {check.figure for contract in CONTRACTS.values() for check in contract.checks if not check.overridable}
    for figure in (
        "rows", "columns_different", "user_id_repeats", "item_id_repeats", "email_repeats", "event_type_unknown",
        "score_not_finite", "self_neighbours", "items_in_catalog_share", "items_in_stock_share", "repeats_in_lists",
        "lists_of_wrong_length", "rows_of_users", "in_stock_share", "price_least",
    ):  # fmt: skip
        assert figure in hard


def test_row_rules_and_contract_share_their_limits():
    rules = CONTRACTS["events"].rules
    assert row_rules.MAX_ID_BYTES is contracts.MAX_ID_BYTES
    assert MaxBytes("user_id", row_rules.MAX_ID_BYTES) in rules
    assert Between("quantity", 1, row_rules.MAX_QUANTITY) in rules
    assert Between("price", 0, row_rules.MAX_PRICE, nullable=True) in rules
    assert OneOf("event_type", EVENT_TYPES) in rules


def test_expectations_say_what_people_read():
    assert Check("a", "b", at_least=1, at_most=1).expected == "exactly 1"
    assert Check("a", "b", above=0, at_most=2).expected == "above 0 and at most 2"
    assert Check("a", "b", above=0).as_expectation()["kwargs"] == {"column": "a", "min_value": 0, "strict_min": True}
