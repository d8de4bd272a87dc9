"""What stops a night's lists before the plan: one planted bug for each gate, through the job."""

import functools
from pathlib import Path

import pytest
from test_gates_of_stages import (  # noqa: F401 - fixtures
    CAMPAIGN,
    DATES,
    OVERRIDE,
    built,
    in_process,
    replaced,
    shop,
    until,
)

from jobs import finish_build, list_chunks, plan_push, recommend_items
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.timing import utc_now
from jobs.finish_build import finished_recommendations
from schemas.campaign import PushSettings
from schemas.errors import EmptyPartitionError, GateError
from schemas.layout import Partition
from schemas.tables import RECOMMENDATION_SOURCES, RECOMMENDATIONS, SUPPRESSIONS

pytestmark = pytest.mark.spark
TRENDING = RECOMMENDATION_SOURCES.index("trending")


def each(change, lists):
    return [change(items) for items in lists]


def every(value):
    return functools.partial(each, lambda items: [value] * len(items))


def first_of(pool):
    return functools.partial(each, lambda items: pool[: len(items)])


def none_of_every_third(empty, values):
    return [empty if number % 3 == 0 else value for number, value in enumerate(values)]


def emptied(empty):
    return functools.partial(none_of_every_third, empty)


# The bug, the columns that it changes, and the check that stops it.
PLANTED = {
    "everybody gets the same list": ({"item": first_of([1, 2, 3, 4, 5, 6])}, "top_list_share"),
    "a third lose their lists": (
        {"item": emptied([]), "score": emptied([]), "source": emptied([]), "outcome": emptied("too_few")},
        "recommended_share_of_last_good",
    ),
    "the catalog shrinks to three items": (
        {"item": functools.partial(each, lambda items: [1 + item % 3 for item in items])},
        "catalog_coverage_of_last_good",
    ),
    "everything is a fallback": ({"source": every(TRENDING)}, "own_items_share"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_lists_that_went_wrong_are_stopped_before_the_plan(shop, monkeypatch, bug):  # noqa: F811
    changes, check = PLANTED[bug]
    until(shop, "recommendations")
    right = recommend_items.recommend

    def wrong(*args, **options):
        rows = right(*args, **options)
        for column, change in changes.items():
            rows = replaced(rows, column, change)
        return rows.cast(RECOMMENDATIONS.schema)

    monkeypatch.setattr(recommend_items, "recommend", wrong)
    monkeypatch.setattr("jobs.spark_session.map_parts", in_process)
    with pytest.raises(GateError, match=rf"{check}\S* is"):
        shop.stage(recommend_items)
    assert shop.lake.find(shop.partition("recommendations")) is None
    with pytest.raises(EmptyPartitionError, match="not finished"):
        finished_recommendations(shop.lake, DATES[1], "spring")
    with pytest.raises(EmptyPartitionError):
        plan_push.main(
            lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign,
            ledger=f"sqlite:///{shop.folder}/ledger.db",
        )  # fmt: skip
    # Without the bug the same night goes through.
    monkeypatch.undo()
    shop.stage(recommend_items)
    finish_build.main(lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign)
    assert finished_recommendations(shop.lake, DATES[1], "spring").metrics["recommended"] > 10


def test_more_fallbacks_than_the_night_before_stop_as_well(shop, monkeypatch):  # noqa: F811
    """Half of the items: well above the least share there is, and far below the night before."""
    until(shop, "recommendations")
    right = recommend_items.recommend

    def wrong(*args, **options):
        rows = right(*args, **options)
        half = functools.partial(each, lambda items: [TRENDING if n % 2 == 0 else 0 for n in range(len(items))])
        return replaced(rows, "source", half).cast(RECOMMENDATIONS.schema)

    monkeypatch.setattr(recommend_items, "recommend", wrong)
    monkeypatch.setattr("jobs.spark_session.map_parts", in_process)
    with pytest.raises(GateError, match=r"own_items_share_of_last_good is 0\.") as caught:
        shop.stage(recommend_items)
    assert "own_items_share is" not in str(caught.value)
    shop.stage(recommend_items, override=OVERRIDE)


RESTOCKED = CAMPAIGN.replace("seen_days = 0", "seen_days = 0\nwishlisted_days = 0")


def test_a_night_on_which_nothing_came_back_is_fine_only_where_it_may_be(shop):  # noqa: F811
    """The small shop has no wishlists. Nobody gets anything, which is an error unless the campaign expects it."""
    until(shop, "recommendations")
    text = f'{RESTOCKED}may_be_empty = true\n[candidates]\nkind = "back_in_stock"\n'
    shop.campaign.write_text(text.replace("may_be_empty = true", ""))
    with pytest.raises(EmptyPartitionError, match="nobody of"):
        shop.stage(recommend_items)
    shop.campaign.write_text(text)
    result = shop.stage(recommend_items)
    assert (result["recommended"], result["catalog_coverage"]) == (0, 0)
    assert result["rows"] > 50
    assert shop.stopped("recommendations") is None
    assert list((Path(shop.lake_uri) / str(shop.partition("recommendations"))).rglob("_checks.json"))


def test_a_plan_without_anybody_is_an_error_unless_that_may_be(shop):  # noqa: F811
    """Everybody is of another locale. Where that may be, nothing is pushed, and nobody is cleared."""
    until(shop, "recommendations")
    ledger = f"sqlite:///{shop.folder}/ledger.db"
    common = {"lake": shop.lake_uri, "date": DATES[1], "run_id": "night", "campaign": shop.campaign, "ledger": ledger}
    attempt = shop.lake.attempt(Partition("suppressions", DATES[1], "spring"), "night")
    attempt.publish([attempt.write(SUPPRESSIONS.schema.empty_table())], inputs=[], parameters={})
    nobody = '[audience]\nlocales = ["xx"]\n'
    shop.campaign.write_text(CAMPAIGN + nobody)
    shop.stage(recommend_items)
    finish_build.main(lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign)
    with pytest.raises(EmptyPartitionError, match="nobody of"):
        plan_push.main(**common)
    shop.campaign.write_text(f"{CAMPAIGN}may_be_empty = true\n{nobody}")
    plan = plan_push.main(**common)
    assert (plan["upsert"], plan["clear"]) == (0, 0)
    assert plan["withheld_by_reason"]["other_locale"] > 10
    assert list_chunks.main(**common)["chunks"] == []


def test_the_method_is_frozen_with_the_plan(shop, monkeypatch):  # noqa: F811
    monkeypatch.setattr("jobs.spark_session.map_parts", in_process)
    until(shop, "recommendations")
    attempt = shop.lake.attempt(Partition("suppressions", DATES[1], "spring"), "night")
    attempt.publish([attempt.write(SUPPRESSIONS.schema.empty_table())], inputs=[], parameters={})
    shop.campaign.write_text(CAMPAIGN + "[push]\nchunk_users = 3\nfile_users = 100\n")
    shop.stage(recommend_items)
    finish_build.main(lake=shop.lake_uri, date=DATES[1], run_id="night", campaign=shop.campaign)
    url = f"sqlite:///{shop.folder}/ledger.db"
    common = {"lake": shop.lake_uri, "date": DATES[1], "run_id": "night", "campaign": shop.campaign, "ledger": url}
    ledger, run = Ledger(url, utc_now), Run("spring", DATES[1])

    def planned(**options):
        plan = plan_push.main(**common, **options)
        _, chunks, _ = ledger.plan(run)
        return plan["method"], ledger.method(run), max(chunk.users for chunk in chunks), len(chunks)

    by_request = planned()
    assert by_request[:3] == ("contacts", "contacts", 3)
    by_file = planned(method="csv_import")  # nothing was pushed yet
    assert by_file[:2] == ("csv_import", "csv_import")
    assert by_file[2] > 3
    assert by_file[3] < by_request[3]
    assert planned() == by_request
    shop.campaign.write_text(CAMPAIGN + '[push]\nmethod = "csv_import"\nchunk_users = 3\nfile_users = 100\n')
    assert planned() == by_file
    ledger.claim(run, 0)
    assert planned(method="contacts") == by_file  # begun


def test_the_rate_of_files_is_that_of_their_two_requests():
    manifest = type("Plan", (), {"metrics": {"parts": {"0": [100, 100], "1": [40]}}})
    push = PushSettings(requests_per_second=2.0)
    assert plan_push._users_per_second(manifest, push, "csv_import") == 80
    assert plan_push._users_per_second(manifest, push, "contacts") == 8_000
