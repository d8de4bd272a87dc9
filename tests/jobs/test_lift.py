"""The lift: by hand, with groups that differ as much as they are made to, and with a wrong group to compare with."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from jobs.measure import lift as lift_module
from jobs.measure.lift import Groups
from schemas.tables import CHUNKS, EVENTS

SINCE = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)
INDEX = pa.array([f"i{n}" for n in range(5)])
COLUMNS = ["user_id", "action", "reason", "item"]


def plan_of(rows: list[tuple[str, str, str, list[int]]]) -> pa.Table:
    table = {name: list(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
    return pa.table(table, schema=pa.schema([CHUNKS.schema.field(name) for name in COLUMNS]))


def purchases(rows: list[tuple[str, int]], at: dt.datetime = SINCE) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in rows], pa.string()),
            "item_id": pa.array([f"i{item}" for _, item in rows], pa.string()),
            "event_type": pa.array(["purchase"] * len(rows), pa.string()),
            "occurred_at": pa.array([at] * len(rows), EVENTS.schema.field("occurred_at").type),
        }
    )


PLAN = plan_of(
    [
        *((f"m{n}", "upsert", "has_recommendations", [n % 5]) for n in range(4)),
        *((f"h{n}", "withheld", "holdout", [n % 5]) for n in range(5)),
        ("u", "withheld", "unsubscribed", []),
        ("c", "clear", "nothing_any_more", []),
    ]
)


def test_shares_of_both_groups_by_hand() -> None:
    bought = [("m0", 0), ("m0", 0), ("m1", 1), ("m2", 0), ("h0", 0), ("h1", 4), ("u", 1), ("c", 1), ("nobody", 1)]
    found = Groups.of(PLAN, purchases(bought), INDEX, SINCE).measures()
    assert found == {
        "holdout_users": 5, "holdout_buyers": 1, "holdout_purchases_per_user": 2 / 5,
        "planned_buyers": 2, "planned_purchases_per_user": 4 / 4,
        "lift_buyer_share": pytest.approx(2 / 4 - 1 / 5),
        "lift_buyer_share_error": pytest.approx((0.5 * 0.5 / 4 + 0.2 * 0.8 / 5) ** 0.5),
    }  # fmt: skip
    earlier = purchases(bought, SINCE - dt.timedelta(seconds=1))
    assert Groups.of(PLAN, earlier, INDEX, SINCE).measures()["lift_buyer_share"] == 0


def test_buckets_add_up() -> None:
    events = purchases([("m0", 0), ("h0", 0), ("h1", 1)])
    halves = (PLAN[:5], PLAN[5:])
    assert sum((Groups.of(half, events, INDEX, SINCE) for half in halves), Groups()) == Groups.of(
        PLAN, events, INDEX, SINCE
    )


@pytest.mark.parametrize("group", ["upsert", "holdout"])
def test_without_one_of_the_groups_there_is_no_figure(group: str) -> None:
    rows = PLAN.filter(pa.array([group not in (row["action"], row["reason"]) for row in PLAN.to_pylist()]))
    assert 0 < len(rows) < len(PLAN)
    assert Groups.of(rows, purchases([("m0", 0)]), INDEX, SINCE).measures() == {}


@pytest.mark.parametrize("added", [0.0, 0.02])
def test_a_lift_that_was_made_is_found_within_its_error(added: float) -> None:
    random, users = np.random.default_rng(5), 20_000
    is_held = random.random(users) < 0.2
    buys = random.random(users) < np.where(is_held, 0.05, 0.05 + added)
    plan = plan_of(
        [
            (f"{n}", *(("withheld", "holdout") if held else ("upsert", "has_recommendations")), [1])
            for n, held in enumerate(is_held)
        ]
    )
    found = Groups.of(plan, purchases([(f"{n}", 1) for n in np.flatnonzero(buys)]), INDEX, SINCE).measures()
    assert found["lift_buyer_share"] == pytest.approx(added, abs=3 * found["lift_buyer_share_error"])
    assert found["lift_buyer_share_error"] < 0.005


def test_everybody_withheld_as_a_holdout_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: who has unsubscribed has no list and buys less; the lift would be theirs."""
    real = lift_module.follow_up
    events = purchases([("m0", 0), ("h0", 0)])
    right = Groups.of(PLAN, events, INDEX, SINCE)

    def wrong(group: pa.Table, *rest: object) -> object:
        is_holdout = "holdout" in group["reason"].to_pylist()
        everybody = PLAN.filter(pa.compute.equal(PLAN["action"], "withheld"))
        return real(everybody if is_holdout else group, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lift_module, "follow_up", wrong)
    assert Groups.of(PLAN, events, INDEX, SINCE).holdout.mailed == right.holdout.mailed + 1
