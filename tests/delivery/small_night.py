"""A night of delivery small enough to die at every point of it, and what must have come of it, in plain Python."""

import datetime as dt
import random
import re
import shutil
import sqlite3
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
from fake_provider import NO_FAULTS, START, FakeProvider, VirtualTime

from jobs.delivery import csv_file, payload
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.run_context import Delivery
from jobs.delivery.withdraw import PULLED_AT
from jobs.lake.buckets import bucket_of
from jobs.lake.item_index import read_index
from jobs.lake.lake import Lake
from jobs.reconcile_push import reconcile
from jobs.schedule_send import schedule_send
from schemas.campaign import Campaign
from schemas.errors import MailError
from schemas.layout import UNDATED, Partition
from schemas.mail_fields import SLOT_PARTS, all_fields, slot_field
from schemas.tables import CATALOG, CHUNKS, ITEM_INDEX, SUPPRESSIONS, USERS

DATE = dt.date(2026, 11, 2)
YESTERDAY = dt.date(2026, 11, 1)
SLOTS, ITEMS, BUCKETS = 2, 7, 2
CAMPAIGN = Campaign(
    name="spring", title="Spring", slots=SLOTS, min_items=1,
    mail={"subject": "Hi", "suppression_group": "Recommendations"}, push={"requests_per_second": 100.0},
)  # fmt: skip
RUN = Run("spring", DATE)
CHUNK_USERS = 5
RESTARTS = 40  # Airflow's retries, and a person who clears the task


class Death(BaseException):
    """The process ends here, as by SIGKILL: nothing catches it."""


class PointedLedger(Ledger):
    """A ledger in memory. Every write of it can be the last thing that its process does.

    To die before a commit leaves what dying after the effect before it leaves, so there is one point a write.
    """

    def __init__(self):
        self.point, self.time = lambda name: None, VirtualTime()
        super().__init__("sqlite://", lambda: self.time.at)
        self._empty = sqlite3.connect(":memory:")
        self._connection().backup(self._empty)

    def _connection(self):
        return self._engine.raw_connection().driver_connection

    def start_anew(self, time, point):
        """Forget everything; the engine stays, with the statements that it compiled."""
        self._empty.backup(self._connection())
        self.time, self.point = time, point
        return self

    def copy(self):
        """Take a copy, as a backup does."""
        copy = sqlite3.connect(":memory:")
        self._connection().backup(copy)
        return copy

    def put_back(self, copy):
        """Restore a copy."""
        copy.backup(self._connection())

    @contextmanager
    def writing(self):
        with super().writing() as connection:
            yield connection
        self.point("ledger write is committed")


def users_and_lists():
    """user -> (action, items): two thirds get items, some are cleared, some withheld."""
    plan = {}
    for number in range(9):
        action = ("upsert", "upsert", "clear", "upsert", "withheld")[number % 5]
        items = [number % ITEMS, (number + 1 + number // ITEMS) % ITEMS] if action == "upsert" else []
        plan[f"user-{number:02}"] = (action, items[: 1 + number % 2] if action == "upsert" else [])
    return plan


PLAN = users_and_lists()


def address(user):
    return f"{user}@example.com"


def url(item):
    return f"https://shop.example.com/{item}"


def title(item):
    return f"Title of item {item}"


def make_lake(folder):
    """The inputs of a push: users, catalog, index, chunks of the date."""
    lake = Lake.open(str(folder), buckets=BUCKETS)
    write(lake, Partition("item_index", UNDATED), pa.table(
        {"item": range(ITEMS), "item_id": [f"{n:03}" for n in range(ITEMS)]}, schema=ITEM_INDEX.schema))  # fmt: skip
    write_catalog(lake)
    # One who is not planned comes first: a join by position gives everybody another's address.
    rows = [{"user_id": user, "email": address(user), "is_subscribed": True} for user in ["user-", *PLAN]]
    write(lake, Partition("users", DATE), pa.Table.from_pylist(rows, schema=USERS.schema))
    pushed, rows = [0] * BUCKETS, []
    for user, (action, items) in PLAN.items():
        bucket = int(bucket_of(pa.array([user]), BUCKETS)[0])
        part = -1
        if action != "withheld":
            part, pushed[bucket] = pushed[bucket] // CHUNK_USERS, pushed[bucket] + 1
        rows.append({"user_id": user, "action": action, "reason": "x", "item": items, "part": part, "variant": ""})
    write(lake, Partition("chunks", DATE, "spring"), pa.Table.from_pylist(rows, schema=CHUNKS.schema))
    attempt = lake.attempt(Partition("suppressions", DATE, "spring"), "test")
    metrics = {PULLED_AT: START.isoformat()}
    attempt.publish([attempt.write(SUPPRESSIONS.schema.empty_table())], inputs=[], parameters={}, metrics=metrics)
    assert len(read_index(lake)) == ITEMS
    return lake


def write_catalog(lake, price=Decimal("9.50"), date=DATE):
    rows = [
        {"item_id": f"{n:03}", "title": title(n), "url": url(n), "image_url": f"https://i/{n}",
         "price": price, "currency": "EUR", "stock": 1}
        for n in range(ITEMS)
    ]  # fmt: skip
    write(lake, Partition("catalog", date), pa.Table.from_pylist(rows, schema=CATALOG.schema))


def write(lake, partition, rows):
    attempt = lake.attempt(partition, "test")
    from schemas.tables import TABLES

    if not TABLES[partition.table].bucketed:
        return attempt.publish([attempt.write(rows)], inputs=[], parameters={})
    bucket = bucket_of(rows["user_id"], lake.buckets)
    files = [attempt.write(rows.filter(pa.array(bucket == n)), bucket=n) for n in range(lake.buckets)]
    return attempt.publish(files, inputs=[], parameters={})


def chunk_plans(lake):
    """The plan's chunks, as plan_push numbers them."""
    plan, found = lake.manifest(Partition("chunks", DATE, "spring")), []
    for bucket in range(lake.buckets):
        parts = [part for part in lake.read(plan, bucket=bucket)["part"].to_pylist() if part >= 0]
        for part in sorted(set(parts)):
            found.append(ChunkPlan(len(found), bucket, part, parts.count(part), 0.0))
    return found


def freeze(delivery, deadline_minutes=None, method="contacts"):
    counts = {action: sum(a == action for a, _ in PLAN.values()) for action in ("upsert", "clear", "withheld")}
    digest = delivery.lake.manifest(Partition("chunks", DATE, "spring")).content_sha256
    chunks, counts = chunk_plans(delivery.lake), {**counts, "unchanged": 0}
    delivery.ledger.freeze_plan(RUN, digest, counts, chunks, deadline_minutes=deadline_minutes, method=method)


class Night:
    """One push and send, restarted until it is done. `die_at` is the point at which its process ends once."""

    def __init__(
        self, base, folder, ledger, *, faults=NO_FAULTS, die_at=None, deadline_minutes=None, method="contacts"
    ):
        shutil.copytree(base, folder)
        random.seed(faults.seed)  # the jitter of waits: the same night has the same points
        self.points, self.die_at, self.deaths = [], die_at, 0
        self.time = VirtualTime()
        self.provider = FakeProvider(self.time, faults, self.point)
        self.lake = Lake.open(str(folder))
        self.ledger = ledger.start_anew(self.time, self.point)
        self.delivery = self.open()
        self.points.clear()
        ids = {name: f"e{number}_T" for number, name in enumerate(all_fields(SLOTS), start=1)}
        self.provider.fields = ids
        self.provider.contacts = {address(user): stale_fields(ids) for user in PLAN}
        self.deadline_minutes, self.method = deadline_minutes, method

    def point(self, name):
        self.points.append(name)
        if self.die_at is not None and len(self.points) == self.die_at + 1:
            self.deaths += 1
            raise Death

    def open(self):
        return Delivery(self.lake, CAMPAIGN, RUN, self.ledger, self.provider, "test", self.time.timing)

    def steps(self):
        freeze(self.delivery, self.deadline_minutes, self.method)
        for chunk in chunk_plans(self.lake):
            push_chunk(self.delivery, chunk.chunk)
        reconcile(self.delivery)
        return schedule_send(self.delivery)

    def run(self):
        """Run to the end, from the start after each death or failure."""
        for _ in range(RESTARTS):
            try:
                result = self.steps()
            except (Death, MailError):
                self.time.sleep(1.0)
                continue
            self.time.sleep(60.0)
            self.provider._advance()
            return result
        raise AssertionError(f"not done after {RESTARTS} restarts")

    @property
    def refused(self):
        return self.provider.poisoned | self.provider.invalid

    def differences(self):
        """Everything that is not as it must be; nothing if all is well."""
        provider = self.provider
        return differences(self.lake, provider.fields, provider.contacts, list(provider.mails.values()), self.refused)


def expected_fields(user, ids, uid, content):
    """What a pushed user's contact must hold, from the plan alone."""
    _, items = PLAN[user]
    values = {ids["ryml_run"]: DATE.isoformat(), ids["ryml_count"]: str(len(items)), ids["ryml_uid"]: uid}
    values |= {ids["ryml_content"]: content, ids["ryml_expected"]: content}
    for slot in range(SLOTS):
        shown = dict.fromkeys(SLOT_PARTS, "")
        if slot < len(items):
            n = items[slot]
            shown = dict(zip(SLOT_PARTS, (title(n), url(n), f"https://i/{n}", "€9.50"), strict=True))
        values |= {ids[slot_field(slot + 1, part)]: text for part, text in shown.items()}
    return values


def differences(lake, ids, contacts, sends, refused=frozenset()):
    """Compare the provider and the receipts with what the plan says; `sends` are the mails of each triggered send."""
    wrong = []
    if len(sends) != 1:
        return [f"{len(sends)} sends"]
    (mails,) = sends
    mailed = {address(user) for user, (action, _) in PLAN.items() if action == "upsert"} - refused
    if set(mails) != mailed:
        wrong.append(f"mailed {sorted(set(mails) ^ mailed)}")
    uids = []
    for user, (action, _) in PLAN.items():
        held = without_tokens(contacts[address(user)])
        is_pushed = action != "withheld" and address(user) not in refused
        expected = (
            expected_fields(user, ids, held[ids["ryml_uid"]], held[ids["ryml_content"]])
            if is_pushed
            else stale_fields(ids)
        )
        if held != expected:
            wrong.append(f"{user} holds {held}, expected {expected}")
        if address(user) in mails and without_tokens(mails[address(user)]) != expected:
            wrong.append(f"{user} was mailed {mails[address(user)]}")
        if is_pushed:
            uids += [held[ids["ryml_uid"]], held[ids["ryml_content"]]]
    if len(set(uids)) != len(uids):
        wrong.append("two users have one uid, or one digest")
    receipts = lake.read(lake.manifest(Partition("receipts", DATE, "spring"))).to_pylist()
    want = {
        user: ("quarantined" if address(user) in refused else "delivered" if items else "cleared", items)
        for user, (action, items) in PLAN.items()
        if action != "withheld"
    }
    if sorted(row["user_id"] for row in receipts) != sorted(want):
        wrong.append(f"receipts of {sorted(row['user_id'] for row in receipts)}")
    elif {row["user_id"]: (row["outcome"], row["item"]) for row in receipts} != want:
        wrong.append("receipts say something else")
    return wrong


def without_tokens(fields):
    """Contact fields with links as the shop has them; the title says whose item it is."""
    return {key: re.sub(r"\?ryml=[0-9a-f]{16}$", "", value) for key, value in fields.items()}


def stale_fields(ids):
    """What everybody holds before the night: two items of yesterday."""
    old = {ids[name]: "stale" for name in all_fields(SLOTS)}
    return {**old, ids["ryml_run"]: YESTERDAY.isoformat(), ids["ryml_count"]: "2"}


def small_requests(monkeypatch, contacts=2):
    """Two contacts a request, and no waiting for disks: what dies here is a process, not the machine."""
    monkeypatch.setattr(payload, "MAX_CONTACTS", contacts)
    monkeypatch.setattr(csv_file, "MAX_ROWS", contacts)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("jobs.reconcile_push.MIRROR_DAYS", 2)
    read, known = Lake._read_entry, {}

    def read_once(lake, partition, folder, entry, columns=None):
        """The same bytes are decoded once: a thousand nights read the same catalog."""
        key = (partition.table, entry.sha256, tuple(columns or ()))
        if key not in known:
            known[key] = read(lake, partition, folder, entry, columns)
        return known[key]

    monkeypatch.setattr(Lake, "_read_entry", read_once)


def base_lake(folder: Path) -> Path:
    make_lake(folder / "base")
    return folder / "base"
