"""The funnel: sums against plain Python, and one real send measured over HTTP."""

import datetime as dt
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal_fixture import RehearsalServer

from jobs import measure_campaign
from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.run_context import ProviderAddress
from jobs.delivery.timing import utc_now as clock
from jobs.lake.buckets import bucket_of
from jobs.lake.item_index import append_items, read_index
from jobs.lake.lake import Lake
from jobs.measure import exposure as exposure_module
from jobs.measure.exposure import Exposure, gini, list_hashes
from jobs.measure.follow_up import FollowUp, follow_up
from schemas.errors import EmptyPartitionError
from schemas.layout import Partition
from schemas.mail_fields import all_fields
from schemas.tables import CHUNKS, EVENTS, RECEIPTS, RECOMMENDATIONS

DATE = dt.date(2026, 11, 2)
CAMPAIGN = """
title = "Spring"
[mail]
subject = "Hi"
suppression_group = "Recommendations"
hour = 8
"""
ITEMS = 40
Lists = list[list[int]]
lists_of_items = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=0, max_size=5, unique=True), max_size=30)


def column(lists: Lists, cut: int = 0) -> pa.ChunkedArray:
    """The lists as a column, in two chunks."""
    kind = RECEIPTS.schema.field("item").type
    return pa.chunked_array([pa.array(lists[:cut], kind), pa.array(lists[cut:], kind)])


@given(lists_of_items, st.data())
def test_exposure_is_what_counting_by_hand_says(lists: Lists, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(lists)))
    exposure = Exposure(ITEMS)
    for bucket in (lists[:first], lists[first:]):
        exposure.add(column(bucket, cut=len(bucket) // 2))
    shown = Counter(item for items in lists for item in items)
    eligible = data.draw(st.integers(max(1, len(shown)), ITEMS))
    measures = exposure.measures(eligible)
    total = sum(shown.values())
    assert measures["items_recommended"] == len(shown)
    assert measures["item_coverage"] == len(shown) / eligible
    assert measures["distinct_lists"] == len({tuple(items) for items in lists})
    assert measures["mean_list_length"] == (total / len(lists) if lists else 0)
    assert measures["top_item_share"] == (max(shown.values()) / total if total else 0)
    counts = [*shown.values(), *[0] * (eligible - len(shown))]
    pairs = sum(abs(one - other) for one in counts for other in counts)
    assert measures["item_gini"] == pytest.approx(pairs / (2 * eligible * total) if total else 0)


def test_what_needs_the_eligible_items_is_left_out_without_them() -> None:
    exposure = Exposure(ITEMS)
    exposure.add(column([[1, 2]]))
    assert set(exposure.measures(2)) - set(exposure.measures(None)) == {"items_eligible", "item_coverage", "item_gini"}


def test_gini_of_one_for_all_and_all_for_one() -> None:
    assert gini(np.full(10, 3), 10) == pytest.approx(0)
    assert gini(np.array([0] * 9 + [7]), 10) == pytest.approx(0.9)


def test_the_order_of_a_list_counts_and_a_hash_without_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = column([[1, 2], [2, 1], [1], [], [1, 2]])
    assert len(set(list_hashes(lists).tolist())) == 4
    monkeypatch.setattr(exposure_module, "rank_within", lambda rows: np.zeros(len(rows), np.int64))
    assert len(set(list_hashes(lists).tolist())) == 3


def test_a_hundred_thousand_different_lists_have_as_many_hashes() -> None:
    grid = np.arange(100_000)
    items = np.stack((grid % 50, grid // 50 % 50, grid // 2_500), axis=1).astype(np.int32)
    values = pa.array(items.ravel())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 300_001, 3, dtype=np.int32)), values)
    assert len(np.unique(list_hashes(pa.chunked_array([lists])))) == 100_000


SINCE = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)
USERS = ["007", "7", "ü", "b", "c"]
event = st.tuples(
    st.sampled_from([*USERS, "stranger"]),
    st.integers(0, ITEMS + 1),
    st.sampled_from(["purchase", "view", "refund"]),
    st.integers(-2, 2),
)


@given(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=4, unique=True), max_size=5), st.lists(event, max_size=40))
def test_follow_up_is_what_a_loop_over_users_says(lists: Lists, happened: list[tuple[str, int, str, int]]) -> None:
    index = pa.array([f"i{n}" for n in range(ITEMS)])
    mine = {user: set(items) for user, items in zip(USERS, lists, strict=False)}
    delivered = pa.table({"user_id": pa.array(list(mine), pa.string()), "item": column(lists)})
    columns = list(zip(*happened, strict=True)) or [[], [], [], []]
    events = pa.table(
        {
            "user_id": pa.array(columns[0], pa.string()),
            "item_id": pa.array([f"i{n}" for n in columns[1]], pa.string()),
            "event_type": pa.array(columns[2], pa.string()),
            "occurred_at": pa.array([SINCE + dt.timedelta(hours=n) for n in columns[3]], pa.timestamp("us", "UTC")),
        }
    )
    bought = [
        (user, item) for user, item, kind, hours in happened if kind == "purchase" and hours >= 0 and user in mine
    ]
    hits = [(user, item) for user, item in bought if item in mine[user]]
    assert follow_up(delivered, events, index, SINCE) == FollowUp(
        mailed=len(mine),
        buyers=len({user for user, _ in hits}),
        purchases_of_recommended=len(hits),
        purchases=len(bought),
    )


class SmallShop:
    """One send of four users: two get items and are mailed, one is cleared, one refused."""

    def __init__(self, folder: Path, server: RehearsalServer) -> None:
        self.campaign = folder / "spring.toml"
        self.campaign.write_text(CAMPAIGN)
        self.lake = Lake.open(str(folder / "lake"), buckets=3)
        self.ledger = f"sqlite:///{folder}/ledger.db"
        self.server = server
        self.address = ProviderAddress(server.host, server.api_key)
        append_items(self.lake, [pa.chunked_array([[f"i{n}" for n in range(10)]])], "test")

    def measure(self, date: dt.date = DATE, days_after: int = 7) -> dict[str, object]:
        return measure_campaign.main(
            lake=self.lake.uri, date=date, run_id="test", campaign=self.campaign, ledger=self.ledger,
            provider=self.address, days_after=days_after,
        )  # fmt: skip

    def write(self, partition: Partition, rows: pa.Table, **options: object) -> object:
        attempt = self.lake.attempt(partition, "test")
        bucket = bucket_of(rows["user_id"], self.lake.buckets)
        files = [attempt.write(rows.filter(pa.array(bucket == n)), bucket=n) for n in range(self.lake.buckets)]
        return attempt.publish(files, **{"inputs": [], "parameters": {}, **options})

    def deliver(self) -> None:
        lists = {"ann": [0, 1], "bob": [1, 2, 3], "cem": [], "dan": [4]}
        self.write_recommendations([[0, 1], [1, 2, 3], [], [4]])
        plan = self.write(
            Partition("chunks", DATE, "spring"),
            pa.table(
                {
                    "user_id": list(lists), "action": ["upsert", "upsert", "clear", "upsert"], "reason": ["x"] * 4,
                    "item": list(lists.values()), "held": [None] * 4, "part": [0] * 4, "variant": [""] * 4,
                },
                schema=CHUNKS.schema,
            ),
            inputs=[self.recommendations],
        )  # fmt: skip
        self.write(
            Partition("receipts", DATE, "spring"),
            pa.table(
                {
                    "user_id": list(lists), "chunk": [0] * 4, "item": list(lists.values()),
                    "outcome": ["delivered", "delivered", "cleared", "quarantined"], "reason": [None] * 4,
                    "content": [None] * 4,
                },
                schema=RECEIPTS.schema,
            ),
            inputs=[plan],
            metrics={"delivered": 2, "cleared": 1, "quarantined": 1, "requests": 1},
        )  # fmt: skip

    def write_recommendations(self, lists: Lists) -> None:
        rows = pa.table(
            {
                "user_id": ["ann", "bob", "cem", "dan"], "item": lists, "score": [[1.0] * len(one) for one in lists],
                "source": [[0] * len(one) for one in lists], "outcome": ["recommended"] * 4,
            },
            schema=RECOMMENDATIONS.schema,
        )  # fmt: skip
        partition = Partition("recommendations", DATE, "spring")
        self.recommendations = self.write(partition, rows, metrics={"eligible_items": 8})

    def buy(self, days: int, *purchases: tuple[str, str, int]) -> None:
        date = DATE + dt.timedelta(days=days)
        rows = pa.table(
            {
                "user_id": [user for user, _, _ in purchases],
                "item_id": [item for _, item, _ in purchases],
                "event_type": ["purchase"] * len(purchases),
                "occurred_at": [dt.datetime.combine(date, dt.time(hour), dt.UTC) for _, _, hour in purchases],
                "quantity": [2] * len(purchases),
                "price": [None] * len(purchases),
            },
            schema=EVENTS.schema,
        )
        self.write(Partition("events", date), rows)

    def send(self) -> None:
        provider, books, this_run = self.address.connect(), Ledger(self.ledger, clock), Run("spring", DATE)
        books.freeze_plan(
            this_run, "digest", {"upsert": 3, "clear": 1, "unchanged": 5, "withheld": 6}, [ChunkPlan(0, 0, 0, 4, 0.0)]
        )
        list_id, ids = provider.ensure_list("spring"), provider.ensure_fields(all_fields(6))
        fields = dict.fromkeys(ids.values(), "")
        contacts = [{"email": f"{name}@example.com", "custom_fields": fields} for name in ("ann", "bob")]
        provider.upsert(json.dumps({"list_ids": [list_id], "contacts": contacts}).encode())
        self.server.wait_until_idle()
        send = provider.create_draft(
            name="spring", list_id=list_id, subject="Hi", html="<a href='{{{unsubscribe}}}'>x</a>", text="x",
            suppression_group_id=provider.ensure_suppression_group("Recommendations"), sender_id=1,
        )  # fmt: skip
        books.choose_send(this_run, send.id, 2)
        with pytest.raises(EmptyPartitionError, match="was never sent"):  # a draft is no send
            self.measure()
        provider.schedule(send.id)
        books.mark_send(this_run, "triggered")
        self.server.wait_until_idle()

    def funnel(self) -> dict[str, float]:
        rows = self.lake.read(self.lake.manifest(Partition("funnel", DATE, "spring")))
        return dict(zip(rows["measure"].to_pylist(), rows["value"].to_pylist(), strict=True))


@pytest.fixture
def shop(tmp_path: Path, rehearsal_server: RehearsalServer) -> SmallShop:
    return SmallShop(tmp_path, rehearsal_server)


def test_a_date_without_a_send_says_so(shop: SmallShop) -> None:
    with pytest.raises(EmptyPartitionError, match="spring of 2026-11-02 was never sent"):
        shop.measure()


def test_one_send_is_measured_from_ledger_receipts_provider_and_later_events(shop: SmallShop) -> None:
    shop.deliver()
    shop.send()
    shop.measure()
    first = shop.funnel()
    assert not [name for name in first if name.startswith("follow_up")]  # nothing happened yet: no figure, not 0
    expected = {
        "users_planned_upsert": 3, "users_planned_clear": 1, "users_planned_unchanged": 5, "users_planned_withheld": 6,
        "contacts_delivered": 2, "contacts_cleared": 1, "contacts_quarantined": 1, "recipients": 2,
        "mail_requests": 2, "mail_delivered": 2, "mail_unique_opens": 0, "mail_unsubscribes": 0,
        "items_recommended": 4, "items_eligible": 8, "item_coverage": 0.5, "mean_list_length": 2.5,
        "distinct_lists": 2, "top_item_share": 0.4,
    }  # fmt: skip
    assert expected.items() <= first.items()

    # 07:00 of the first day is before the mail; dan was refused and cem was cleared; i9 was not in ann's mail.
    shop.buy(1, ("ann", "i0", 7), ("ann", "i1", 9), ("ann", "i9", 9), ("dan", "i4", 9), ("cem", "i0", 9))
    shop.buy(3, ("ann", "i1", 0), ("bob", "i7", 0), ("eve", "i1", 0))
    shop.buy(8, ("bob", "i2", 0))
    returned = shop.measure()
    later = shop.funnel()
    assert later.items() >= first.items()
    assert {name: value for name, value in later.items() if name.startswith("follow_up")} == {
        "follow_up_days": 3,
        "follow_up_buyers": 1,
        "follow_up_purchases_of_recommended": 2,
        "follow_up_purchases": 4,
        "follow_up_purchases_per_mailed_user": 2.0,
    }
    assert returned["follow_up_buyers"] == 1
    assert isinstance(returned["follow_up_buyers"], int)  # whole numbers are shown beside the asset
    shop.measure(days_after=8)
    assert shop.funnel()["follow_up_buyers"] == 2
    inputs = shop.lake.manifest(Partition("funnel", DATE, "spring")).inputs
    assert {name.split("/")[0] for name in inputs} == {"chunks", "receipts", "recommendations", "events"}


def test_coverage_is_not_taken_from_recommendations_that_nobody_was_mailed(shop: SmallShop) -> None:
    shop.deliver()
    shop.send()
    shop.write_recommendations([[9], [9], [9], [9]])
    shop.measure()
    assert "item_coverage" not in shop.funnel()
    assert shop.funnel()["items_recommended"] == 4
    assert len(read_index(shop.lake)) == 10
