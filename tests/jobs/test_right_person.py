"""Nobody gets another person's list: from the export to what is pushed, with missing and colliding addresses.

A user's one look decides their list, so the list says whose it is; so does the address of those who have one.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import export_table, finish_build, fold_profiles, index_items, plan_push, recommend_items
from jobs.delivery import chunk_rows
from jobs.delivery.chunk_rows import newest_catalog, read_chunk
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.timing import utc_now
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat, list_column
from schemas.layout import Partition
from schemas.tables import CORRELATIONS, SUPPRESSIONS

DATE = dt.date(2026, 3, 2)
CAMPAIGN = """
title = "Spring"
slots = 3
min_items = 3
[exclude]
seen_days = 0
[fallback]
steps = []
[mail]
subject = "Hi"
suppression_group = "Recommendations"
"""
SETTINGS = """
kind = "files"
name = "people"
default_date = 2026-03-02
history_days = 1
data_folder = "."
[events]
path = "events.parquet"
[events.columns]
user_id = "user_id"
item_id = "item_id"
event_type = "event_type"
occurred_at = "occurred_at"
quantity = "quantity"
[catalog]
path = "catalog.parquet"
[catalog.columns]
item_id = "item_id"
title = "title"
url = "url"
image_url = "url"
price = "price"
currency = "currency"
stock = "stock"
[users]
path = "users.parquet"
[users.columns]
user_id = "user_id"
email = "email"
is_subscribed = "is_subscribed"
"""

pytestmark = pytest.mark.spark


@dataclass(frozen=True)
class People:
    """`missing` have no address; each of `colliding` has that of another one of them, in other letters."""

    count: int
    missing: np.ndarray
    colliding: np.ndarray

    @classmethod
    def of(cls, count):
        chosen = np.random.default_rng(3).permutation(count)
        return cls(count, chosen[: count // 100], chosen[count // 100 : count // 100 + max(2, count // 2000) * 2])

    @property
    def looks(self):
        """How many items are looked at: each by some twenty users."""
        return self.count // 20

    def emails(self):
        emails = np.char.add(np.char.add("Person-", np.arange(self.count).astype("U9")), "@Example.com").astype(object)
        half = len(self.colliding) // 2
        for one, other in zip(self.colliding[:half], self.colliding[half:], strict=True):
            emails[other] = emails[one].upper()
        emails[self.missing] = None
        return emails

    def expected(self, user):
        """The three items that go with what a user looked at."""
        return self.looks + 3 * (user % self.looks)[:, None] + np.arange(3)


def item_ids(numbers):
    return pa.array(np.char.add("i", np.asarray(numbers).astype("U9")))


def make_files(folder: Path, people: People) -> None:
    order = np.random.default_rng(4).permutation(people.count)
    ids = np.char.add("user-", np.arange(people.count).astype("U9"))
    items = 4 * people.looks
    midday = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
    events = {
        "user_id": pa.array(ids),
        "item_id": item_ids(np.arange(people.count) % people.looks),
        "event_type": pa.array(np.full(people.count, "view")),
        "occurred_at": pa.array(np.full(people.count, midday.timestamp() * 1e6, np.int64)).cast(
            pa.timestamp("us", "UTC")
        ),
        "quantity": pa.array(np.ones(people.count, np.int32)),
    }
    catalog = {
        "item_id": item_ids(range(items)),
        "title": pa.array(np.full(items, "Title")),
        "url": pa.array(np.full(items, "https://shop.example.com/1")),
        "price": pa.array(np.full(items, 9.5)),
        "currency": pa.array(np.full(items, "EUR")),
        "stock": pa.array(np.full(items, 5, np.int32)),
    }
    users = {
        "user_id": pa.array(ids[order]),
        "email": pa.array(people.emails()[order], pa.string()),
        "is_subscribed": pa.array(np.ones(people.count, np.bool_)),
    }
    for name, columns in (("events", events), ("catalog", catalog), ("users", users)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=100_000)
    (folder / "people.toml").write_text(SETTINGS)
    (folder / "spring.toml").write_text(CAMPAIGN)


def publish_correlations(lake: Lake, people: People) -> None:
    """Each item that is looked at goes with three that nothing else goes with."""
    index = read_index(lake)
    looked = to_items(index, pa.chunked_array([item_ids(range(people.looks))])).to_numpy()
    others = to_items(index, pa.chunked_array([item_ids(people.expected(np.arange(people.looks)).ravel())])).to_numpy()
    order, counts = np.argsort(looked), np.full(people.looks, 3)
    rows = {
        "item": pa.array(looked[order], pa.int32()),
        "other_item": list_column(CORRELATIONS, "other_item", others.reshape(-1, 3)[order].ravel(), counts),
        "score": list_column(CORRELATIONS, "score", np.tile([0.9, 0.8, 0.7], people.looks), counts),
        "support": list_column(CORRELATIONS, "support", np.full(len(others), 5), counts),
        "source": list_column(CORRELATIONS, "source", np.zeros(len(others), np.int8), counts),
    }
    attempt = lake.attempt(Partition("correlations", DATE, "spring"), "test")
    attempt.publish([attempt.write(pa.table(rows, schema=CORRELATIONS.schema))], inputs=[], parameters={})


def check_people(folder: Path, people: People, buckets: int) -> int:
    """Run from the export to the plan; return how many users would be pushed, every one of them looked at."""
    make_files(folder, people)
    common = {"lake": str(folder / "lake"), "date": DATE, "run_id": "test"}
    for table in ("events", "catalog", "users"):
        source = folder / "people.toml"
        export_table.main(**common, table=table, source=source, data=str(folder), buckets=buckets)
    index_items.main(**common)
    fold_profiles.main(**common)
    lake = Lake.open(str(folder / "lake"))
    publish_correlations(lake, people)
    campaign, ledger = folder / "spring.toml", f"sqlite:///{folder}/ledger.db"
    recommend_items.main(**common, campaign=campaign)
    finish_build.main(**common, campaign=campaign)
    attempt = lake.attempt(Partition("suppressions", DATE, "spring"), "test")
    attempt.publish([attempt.write(SUPPRESSIONS.schema.empty_table())], inputs=[], parameters={})
    plan_push.main(**common, campaign=campaign, ledger=ledger, ramp_minutes=0)

    return check_pushed(lake, people, ledger)


def check_pushed(lake: Lake, people: People, ledger: str) -> int:
    """Hold what every chunk would push against whose it is."""
    plan, users = lake.manifest(Partition("chunks", DATE, "spring")), lake.manifest(Partition("users", DATE))
    index, pushed = read_index(lake), []
    _, chunks, _ = Ledger(ledger, utc_now).plan(Run("spring", DATE))
    for chunk in chunks:
        rows = read_chunk(lake, plan, users, newest_catalog(lake, DATE), chunk, slots=3, min_items=3)
        user = np.char.replace(rows.user_ids.to_numpy(zero_copy_only=False).astype("U"), "user-", "").astype(int)
        assert (rows.counts == 3).all()
        names = index.take(pa.array(rows.items)).to_numpy(zero_copy_only=False).astype("U").reshape(-1, 3)
        assert (np.char.replace(names, "i", "").astype(int) == people.expected(user)).all(), "another one's list"
        own = [f"person-{n}@example.com" for n in user.tolist()]
        assert rows.emails.equals(pa.array(own)), "another one's address"
        pushed.append(user)
    found = np.concatenate(pushed)
    assert len(np.unique(found)) == len(found)
    assert not np.isin(np.concatenate((people.missing, people.colliding)), found).any()
    lists = lake.read(lake.manifest(Partition("recommendations", DATE, "spring")))
    assert len(flat(lists["item"])) == 3 * people.count
    return len(found)


class Positional:
    """Planted bug: rows are joined by their place, as in a spreadsheet from which some were deleted."""

    def __getattr__(self, name):
        return getattr(pc, name)

    def index_in(self, values, value_set):
        return pa.array(range(len(values)))


def test_20_000_users_with_missing_and_colliding_addresses(spark, tmp_path, monkeypatch):
    people = People.of(20_000)
    assert len(people.missing) == 200
    assert len(people.colliding) == 20
    assert check_people(tmp_path, people, 4) == 20_000 - 200 - 20
    monkeypatch.setattr(chunk_rows, "pc", Positional())
    with pytest.raises(AssertionError, match="another one's address"):
        check_pushed(Lake.open(str(tmp_path / "lake")), people, f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.scoreboard
@pytest.mark.timeout(1_800)
def test_a_million_users_with_missing_and_colliding_addresses(spark, tmp_path, scoreboard):
    people = People.of(1_000_000)
    assert len(people.colliding) == 1_000
    pushed = check_people(tmp_path, people, 64)
    assert pushed == 1_000_000 - 10_000 - 1_000
    scoreboard.add("right person: lists of another person among 1,000,000 users", f"0 of {pushed:,} pushed")
