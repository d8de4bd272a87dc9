"""The settings of the rules: what documents show is valid, and what makes no sense is refused with its place."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.ranking_rules import RankingSettings

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_the_document_is_valid_and_says_what_it_shows():
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rules, exposure = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    settings = RankingSettings.model_validate(tomllib.loads(rules) | tomllib.loads(exposure))
    assert settings.exposure.min_sends == 20
    assert settings.exclude.bought_days == "for_ever"
    assert len(settings.catalog.where.any) == 2
    assert settings.boosts[0].multiply_by == 1.5


def test_parameters_are_the_same_after_a_round_trip_through_json():
    settings = RankingSettings.model_validate(
        {"exclude": {"twins": {"property": "p"}}, "catalog": {"where": {"any": []}}}
    )
    assert json.loads(json.dumps(settings.ranking_parameters())) == settings.ranking_parameters()
    assert set(settings.ranking_parameters()) == set(RankingSettings.model_fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"exclude": {"bought_weeks": 3}}, "exclude.bought_weeks"),
        ({"exclude": {"bought_days": "always"}}, "for_ever"),
        ({"exclude": {"mailed_days": 63}}, "less than or equal to 62"),
        ({"exclude": {"twins": {"property": "p", "of": []}}}, "at least one rule"),
        ({"catalog": {"include": {"colour": ["red"]}}}, "no field 'colour'"),
        ({"catalog": {"exclude": {"price": ["10"]}}}, "price is a number"),
        ({"catalog": {"min_price": 2.0, "max_price": 1.0}}, "more than max_price"),
        ({"catalog": {"where": {"all": [{"field": "brand"}]}}}, "tests nothing"),
        ({"catalog": {"where": {"all": [{"field": "brand", "at_least": 1}]}}}, "brand is a text"),
        ({"boosts": [{"multiply_by": 0}]}, "greater than 0"),
        ({"fallback": {"steps": ["trending", "trending"]}}, "each step once"),
        ({"fallback": {"steps": ["random"]}}, "fallback.steps"),
        ({"candidates": {"kind": "back_in_stock"}}, "set it to 0"),
        ({"slots": 2, "min_items": 3}, "more than slots"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused(data, message):
    with pytest.raises(ValidationError) as error:
        RankingSettings.model_validate(data)
    assert message in str(error.value)
