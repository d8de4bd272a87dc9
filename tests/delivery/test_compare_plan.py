"""A plan beside the one before: counts against plain Python, gates with their overrides, a text that names nobody."""

import datetime as dt
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest
from fake_provider import START
from hypothesis import given, settings
from hypothesis import strategies as st
from small_night import DATE, RUN, Night, PointedLedger, base_lake, write

from jobs.compare_plan import compare, plain
from jobs.delivery.override_book import overrides_of
from jobs.delivery.plan_diff import compare_plans
from jobs.quality.override import GateOverride
from jobs.show_delivery import show_delivery
from schemas.delivery_gates import DeliveryGates
from schemas.errors import GateError
from schemas.layout import Partition
from schemas.tables import CATALOG, CHUNKS, RECOMMENDATIONS

YESTERDAY = DATE - dt.timedelta(days=1)
SOMEBODY = GateOverride("Dana", "the shop opened a second department today")
plans = st.dictionaries(
    st.sampled_from([f"user-{n}" for n in range(8)]),
    st.tuples(st.sampled_from(["upsert", "clear", "withheld"]), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
)


class Buckets:
    """A lake of one bucket that holds plans by name."""

    buckets = 1

    def __init__(self, **tables):
        self.tables = tables

    def read(self, name, *, bucket, columns):
        return self.tables[name].select(columns)


def table(plan):
    rows = [
        {"user_id": user, "action": action, "reason": "x", "item": items if action == "upsert" else [], "part": -1,
         "variant": ""}
        for user, (action, items) in sorted(plan.items())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=CHUNKS.schema)


@settings(max_examples=100, deadline=None)
@given(plans, plans)
def test_the_counts_are_those_of_plain_python(now, before):
    diff = compare_plans(Buckets(now=table(now), before=table(before)), "now", "before", 5)
    today, then = ({u: items for u, (action, items) in plan.items() if action == "upsert"} for plan in (now, before))
    both = set(today) & set(then)
    assert diff.users == {
        "mailed": len(today), "mailed_before": len(then), "gained": len(set(today) - both),
        "lost": len(set(then) - both), "same": sum(today[u] == then[u] for u in both),
        "changed": sum(today[u] != then[u] for u in both), "cleared": sum(a == "clear" for a, _ in now.values()),
    }  # fmt: skip
    counts = [sum(items.count(item) for items in today.values()) for item in range(5)]
    assert diff.users_of_item.tolist() == counts
    shift, shares = diff.category_shift(pa.array(["a", "a", "b", None, "b"]))
    assert 0 <= shift <= 1
    if today == then and today:
        assert shift == 0
        assert sum(share for share, _ in shares.values()) == pytest.approx(1)


@pytest.fixture
def night(tmp_path):
    return Night(base_lake(tmp_path), tmp_path / "night", PointedLedger())


def put(night, date, lists):
    """A plan of a date: user -> items, all mailed."""
    write(night.lake, Partition("chunks", date, "spring"), table({u: ("upsert", items) for u, items in lists.items()}))


def give_categories(lake):
    """Three items to a category."""
    partition = Partition("catalog", DATE)
    rows = lake.read(lake.manifest(partition)).to_pylist()
    for number, row in enumerate(rows):
        row["category"] = f"category {number // 3}"
    write(lake, partition, pa.Table.from_pylist(rows, schema=CATALOG.schema))


def with_gates(night, **values):
    gates = DeliveryGates(compared_users_least=1, **values)
    return replace(night.delivery, campaign=night.delivery.campaign.model_copy(update={"gates": gates}))


def test_the_text_says_what_changed_and_names_nobody(night):
    put(night, YESTERDAY, {f"user-{n}": [0, 1] for n in range(10)})
    put(night, DATE, {f"user-{n}": [0, 2 + (n > 6)] for n in range(2, 14)})
    found = compare(night.delivery, is_rehearsal=True)
    assert {name: found[name] for name in ("rows", "mailed_before", "gained", "lost", "changed", "same")} == {
        "rows": 12, "mailed_before": 10, "gained": 4, "lost": 2, "changed": 8, "same": 0,
    }  # fmt: skip
    text = found["markdown"]
    assert "Beside 2026-11-01 (10 users): 4 gained, 2 lost, 8 with another list, 0 with the same." in text
    assert "| Title of item 0 (`000`) | 100.0% | 100.0% |" in text
    assert "user-" not in text
    assert found["compared_with"] == "2026-11-01"


GATES = {
    "changed_share_max": (0.5, {f"user-{n}": [5, 6] for n in range(10)}),
    "top_item_rise_max": (0.3, {f"user-{n}": [6] for n in range(10)}),
    "category_shift_max": (0.3, {f"user-{n}": [5] for n in range(10)}),
}


@pytest.mark.parametrize("gate", GATES)
def test_what_differs_too_much_stops_until_a_named_person_lets_it_pass(night, gate):
    limit, today = GATES[gate]
    put(night, YESTERDAY, {f"user-{n}": [0, 1] for n in range(10)})
    put(night, DATE, today)
    give_categories(night.lake)
    open_gates = {name: 1.0 for name in GATES if name != gate}
    night.delivery.ledger.freeze_plan(RUN, "digest", {"upsert": 10}, [])
    compare(with_gates(night, **open_gates, **{gate: 1.0}), is_rehearsal=True)
    strict = with_gates(night, **open_gates, **{gate: limit})
    with pytest.raises(GateError, match=rf"\({gate}\).*Nothing was pushed.*override_gates_by"):
        compare(strict, is_rehearsal=True)
    assert overrides_of(night.ledger, RUN) == []
    found = compare(strict, is_rehearsal=True, override=SOMEBODY)
    assert set(found["let_pass"]) == {gate}
    (kept,) = show_delivery(night.ledger, RUN)["overrides"]
    assert (kept["gate"], kept["by"], kept["reason"]) == (gate, "Dana", SOMEBODY.reason)
    assert "Dana" in found["markdown"]


def test_small_plans_and_the_first_one_are_not_compared(night):
    put(night, DATE, {"user-1": [6]})
    assert compare(with_gates(night, top_item_rise_max=0.0), is_rehearsal=True)["compared_with"] is None
    put(night, YESTERDAY, {"user-1": [0]})
    assert compare(night.delivery, is_rehearsal=True)["changed"] == 1  # 100 users at least, by default
    with pytest.raises(GateError):
        compare(with_gates(night, top_item_rise_max=0.0), is_rehearsal=True)


def test_data_that_is_too_old_is_not_pushed_to_a_live_provider(night):
    put(night, DATE, {"user-1": [6]})
    assert START - dt.datetime(2026, 11, 3, tzinfo=dt.UTC) == dt.timedelta(hours=8)
    compare(with_gates(night, data_age_hours_max=8.0), is_rehearsal=False)
    strict = with_gates(night, data_age_hours_max=7.5)
    compare(strict, is_rehearsal=True)
    with pytest.raises(GateError, match=r"the data ends 8 hours ago, limit 7\.5"):
        compare(strict, is_rehearsal=False)


@pytest.mark.parametrize(("days", "is_old"), [(2, False), (3, True)])
def test_a_model_that_is_too_old_is_not_pushed(night, days, is_old):
    put(night, DATE, {"user-1": [6]})
    trained = DATE - dt.timedelta(days=days)
    attempt = night.lake.attempt(Partition("recommendations", DATE, "spring"), "test")
    model = SimpleNamespace(partition=Partition("correlations", trained, "spring"), content_sha256="0" * 64)
    files = [attempt.write(RECOMMENDATIONS.schema.empty_table(), bucket=n) for n in range(night.lake.buckets)]
    attempt.publish(files, inputs=[model], parameters={})
    if is_old:
        with pytest.raises(GateError, match=r"the correlations are 3 days old, limit 2"):
            compare(with_gates(night, model_age_days_max=2), is_rehearsal=True)
    else:
        compare(with_gates(night, model_age_days_max=2), is_rehearsal=True)


def test_titles_are_text_and_nothing_else():
    hostile = "<img src=x onerror=1> | [a](b) `c` {{d}} *e*"
    assert not set(plain(hostile)) & set("<>|[]`{}*=")
    assert plain("Café-au-lait, 2 l (5%)") == "Café-au-lait, 2 l (5%)"
    assert len(plain("x" * 500)) == 80
