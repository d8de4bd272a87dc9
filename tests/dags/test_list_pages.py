"""The pages of a night's lists: the waterfall, and why a user got what they got."""

import asyncio
import datetime as dt

import httpx
import pytest

from jobs.explain.explanation import Cause, Dropped, Explanation, Kept
from jobs.lake.lake import Lake
from jobs.ranking.rules import RULES
from schemas.errors import StorageError
from schemas.layout import Partition
from schemas.tables import RECOMMENDATIONS

DATE = dt.date(2026, 11, 2)

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's own, at import
    pytest.mark.filterwarnings("ignore:Using `httpx` with"),  # the same, in its API
]

METRICS = {
    "recommended": 41, "too_few": 2, "no_history": 7, "eligible_items": 1200, "items_shown": 300, "distinct_lists": 40,
    "catalog_coverage": 0.25, "top_item_share": 0.125, "users_by_list_length": {"0": 9, "1": 1, "6": 40},
    "items_from": {"history": 200, "trending": 41},
    "waterfall": {
        "users": 30, "candidates": 1000, "users_with_candidates": 28, "dropped.sold_out": 100,
        "users_left.sold_out": 27, "dropped.bought": 650, "users_left.bought": 20, "in_list": 250,
    },
}  # fmt: skip


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """Fetch pages as a signed-in user, from a lake with one night."""
    from airflow.api_fastapi.core_api.security import get_user

    from ryml_airflow.pages.nights import app

    monkeypatch.setenv("AIRFLOW__RYML__LAKE", str(tmp_path / "lake"))
    attempt = Lake.open(str(tmp_path / "lake"), buckets=1).attempt(Partition("recommendations", DATE, "spring"), "r")
    attempt.publish([attempt.write(RECOMMENDATIONS.schema.empty_table())], inputs=[], parameters={}, metrics=METRICS)

    async def get(path):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow.example.com") as client:
            return await client.get(path)

    for path in ("lists", "explain?user=7"):
        assert asyncio.run(get(f"/spring/{DATE}/{path}")).status_code in (401, 403)
    app.dependency_overrides[get_user] = lambda: None
    yield lambda path: asyncio.run(get(path)).text
    app.dependency_overrides.clear()


def test_the_waterfall_is_a_table_with_bars_in_the_order_of_the_rules(pages):
    page = pages(f"/spring/{DATE}/lists")
    assert page.index(">candidates<") < page.index(">sold_out<") < page.index(">bought<")
    assert ">seen<" not in page  # what dropped nothing is not a step
    for text in (">900<", ">250<", ">27<", "25.0%", "12.5%", "an even sample of each bucket", "1,200", ">trending<"):
        assert text in page, text
    assert 'width:40.00px"' in page  # 250 of 1,000 candidates
    assert pages(f"/autumn/{DATE}/lists").count("No lists are published") == 1


def test_what_the_waterfall_drops_and_keeps_is_what_there_was():
    from ryml_airflow.pages.waterfall import waterfall_steps

    steps = waterfall_steps(METRICS["waterfall"])
    assert [step.rule for step in steps] == ["candidates", "sold_out", "bought"]
    assert steps[-1].items_left == METRICS["waterfall"]["in_list"]
    assert sum(step.dropped for step in steps) + steps[-1].items_left == METRICS["waterfall"]["candidates"]
    every = {f"dropped.{rule}": 1 for rule in RULES} | {"candidates": len(RULES), "users_with_candidates": 1}
    assert [step.rule for step in waterfall_steps(every)] == ["candidates", *RULES]
    assert waterfall_steps({}) == []


def test_an_explanation_is_shown_with_its_text_escaped(pages, monkeypatch):
    found = Explanation(
        "7", "spring", DATE, "recommended",
        (Kept("a", "<b>Mug</b>", 0.5, "history", 2.0, (Cause("c", "Cup", 0.25, 1.0),)),),
        (Dropped("d", None, 0.4, "twin_of_bought", "purchase", "e", "2026-11-01T08:00:00+00:00"),),
        ("a note",),
    )  # fmt: skip
    monkeypatch.setattr("jobs.explain_user.main", lambda **options: found)
    page = pages(f"/spring/{DATE}/explain?user=7")
    expected = ("2 candidates = 1 kept", "&lt;b&gt;Mug", "0.2500 \u00d7 1.0000", "boost 2", "twin_of_bought", "a note")
    for text in expected:
        assert text in page, text
    assert "<b>Mug" not in page
    assert "<code>e</code>" in page


def test_why_a_list_cannot_be_explained_is_shown(pages, monkeypatch):
    def fail(**options):
        raise StorageError("catalog/date=2026-11-02 has expired")

    monkeypatch.setattr("jobs.explain_user.main", fail)
    assert "catalog/date=2026-11-02 has expired" in pages(f"/spring/{DATE}/explain?user=7")
    assert "user id" in pages(f"/spring/{DATE}/explain")
