"""A night of Mail Send small enough to die at every point of it, and what must have come of it, in plain Python."""

import dataclasses
import datetime as dt
import json
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
from fake_mail_send import FakeMailSend
from fake_provider import NO_FAULTS
from small_night import (
    CAMPAIGN,
    DATE,
    PLAN,
    RUN,
    SLOTS,
    Night,
    address,
    chunk_plans,
    make_lake,
    title,
    url,
    without_tokens,
)  # fmt: skip

from jobs.delivery import mail_sender, run_batch
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.mail_book import MailBook
from jobs.delivery.people_book import bury, hashes_of
from jobs.lake.buckets import bucket_of
from jobs.lake.lake import Lake
from jobs.reconcile_push import reconcile
from jobs.schedule_send import schedule_send
from jobs.settle_mails import settle_mails
from schemas.campaign import Campaign
from schemas.layout import Partition
from schemas.mail_fields import SLOT_PARTS, slot_field
from schemas.tables import CHUNKS, MAIL_OUTCOMES

DEADLINE_MINUTES = 45
MAIL_CAMPAIGN = Campaign(
    **{
        **CAMPAIGN.model_dump(exclude={"push", "mail_send"}),
        "push": {"method": "mail_send", "deadline_minutes": DEADLINE_MINUTES, "requests_per_second": 100.0},
        "mail_send": {"from_email": "shop@example.com", "from_name": "Shop", "postal_address": "1 Example Street"},
    }
)
ERASED = "user-08"  # since the plan
UPSERTS = sorted(user for user, (action, _) in PLAN.items() if action == "upsert")
FINISH_SECONDS = 3600.0 * 2  # from the release: past send_at, whenever that was


def mail_base_lake(folder):
    """The inputs of a night whose plan is by Mail Send: nobody is cleared."""
    make_lake(folder / "mail-base")
    lake = Lake.open(str(folder / "mail-base"))
    before = lake.manifest(Partition("chunks", DATE, "spring"))
    rows, parts = [], Counter()
    for row in sorted(lake.read(before).to_pylist(), key=lambda row: row["user_id"]):
        bucket = int(bucket_of(pa.array([row["user_id"]]), lake.buckets)[0])
        if row["action"] == "clear":
            row |= {"action": "unchanged", "part": -1}
        if row["action"] == "upsert":
            row["part"], parts[bucket] = parts[bucket] // 3, parts[bucket] + 1
        rows.append(row)
    attempt = lake.attempt(Partition("chunks", DATE, "spring"), "mail")
    table = pa.Table.from_pylist(rows, CHUNKS.schema)
    bucket = bucket_of(table["user_id"].combine_chunks(), lake.buckets)
    files = [attempt.write(table.filter(pa.array(bucket == n)), bucket=n) for n in range(lake.buckets)]
    attempt.publish(files, inputs=[], parameters={})
    return folder / "mail-base"


class MailNight(Night):
    """One push and send by Mail Send, restarted until it is done."""

    def __init__(self, base, folder, ledger, *, faults=NO_FAULTS, die_at=None):
        super().__init__(base, folder, ledger, faults=faults, die_at=die_at)
        self.die_at = None
        self.provider = FakeMailSend(self.time, faults, self.point)
        self.delivery = self.open()
        bury(ledger, {"user": hashes_of(ledger, [ERASED], "user")})
        self.points.clear()
        self.die_at = die_at

    def open(self):
        return dataclasses.replace(super().open(), campaign=MAIL_CAMPAIGN)

    def freeze(self):
        digest = self.lake.manifest(Partition("chunks", DATE, "spring")).content_sha256
        counts = {"upsert": len(UPSERTS), "clear": 0, "unchanged": 2, "withheld": 1}
        chunks = chunk_plans(self.lake)
        self.delivery.ledger.freeze_plan(
            RUN, digest, counts, chunks, deadline_minutes=DEADLINE_MINUTES, method="mail_send"
        )

    def push(self):
        self.freeze()
        for chunk in chunk_plans(self.lake):
            push_chunk(self.delivery, chunk.chunk)
        return reconcile(self.delivery)

    def steps(self):
        self.push()
        return schedule_send(self.delivery)

    def run(self):
        result = super().run()
        self.finish()
        return result

    def finish(self, seconds=FINISH_SECONDS):
        """Let the mails leave that may."""
        self.time.sleep(seconds)
        self.provider._advance()

    def settle(self, folder, hours=72, events=None):
        """Write the events into files as a receiver would, and settle by them."""
        posts = self.provider.events if events is None else events
        folder.mkdir()
        for number in range(0, len(posts), 3):
            (folder / f"{number:04}.json").write_text(json.dumps(posts[number : number + 3]) + "\r\n", "utf-8")
        self.time.sleep(hours * 3600.0)
        return settle_mails(self.lake, self.ledger, RUN, [folder])

    @property
    def send_at(self):
        return MailBook(self.ledger, RUN).batch().send_at

    def receipts(self):
        """user -> outcome, as published; a user in two receipts is a list of both."""
        rows = self.lake.read(self.lake.manifest(Partition("receipts", DATE, "spring"))).to_pylist()
        found = {}
        for row in rows:
            found.setdefault(row["user_id"], []).append(row["outcome"])
        return found

    def differences(self):
        """Everything that is not as it must be, whatever happened on the way; nothing if all is well."""
        wrong = []
        mails = self.provider.mails_per_address
        wrong += [f"{who} got {number} mails" for who, number in mails.items() if number > 1]
        outcomes = self.receipts()
        if sorted(outcomes) != UPSERTS or any(len(found) != 1 for found in outcomes.values()):
            wrong.append(f"receipts: {outcomes}, expected one of each of {UPSERTS}")
        may = {"delivered": {1}, "unknown": {0, 1}, "not_sent": {0}, "withheld": {0}, "quarantined": {0}}
        for user, (outcome, *_) in outcomes.items():
            if mails[address(user)] not in may[outcome]:
                wrong.append(f"{user} is {outcome} and got {mails[address(user)]} mails")
        if outcomes.get(ERASED) != ["withheld"]:
            wrong.append(f"the erased one is {outcomes.get(ERASED)}")
        if extra := set(mails) - {address(user) for user in UPSERTS}:
            wrong.append(f"mailed {extra}")
        wrong += [f"{who} was mailed {data}" for who, data in self.provider.mailed if not is_own(who, data)]
        counts = MailBook(self.ledger, RUN).outcomes()
        if sum(counts.get(name, 0) for name in MAIL_OUTCOMES) != len(UPSERTS):
            wrong.append(f"the ledger counts {counts} of {len(UPSERTS)} users")
        counted = {name: number for name, number in counts.items() if number}
        if counted != Counter(found[0] for found in outcomes.values()):
            wrong.append(f"the ledger counts {counts}, the receipts {outcomes}")
        return wrong

    @property
    def truth(self):
        """user -> whether they were mailed."""
        return {user: address(user) in self.provider.mails_per_address for user in UPSERTS}


def is_own(who, data):
    """Whether a mail's data are the plan's for that address, of this date."""
    user = who.removesuffix("@example.com")
    _, items = PLAN[user]
    values = {"ryml_run": DATE.isoformat(), "ryml_count": str(len(items)), "ryml_uid": data["ryml_uid"]}
    values |= {"ryml_content": data["ryml_content"], "ryml_expected": data["ryml_content"]}
    for slot in range(SLOTS):
        shown = dict.fromkeys(SLOT_PARTS, "")
        if slot < len(items):
            n = items[slot]
            shown = dict(zip(SLOT_PARTS, (title(n), url(n), f"https://i/{n}", "€9.50"), strict=True))
        values |= {slot_field(slot + 1, part): text for part, text in shown.items()}
    return without_tokens(data) == values


def small_messages(monkeypatch, mails=2):
    """Two mails a request, and one old template to look for."""
    monkeypatch.setattr(run_batch, "TEMPLATE_DAYS", range(15, 16))
    monkeypatch.setattr(mail_sender, "MAILS_PER_REQUEST", mails)


def users_of(lake, outcome):
    """The users whose published receipt has that outcome."""
    rows = lake.read(lake.manifest(Partition("receipts", DATE, "spring")))
    return set(rows.filter(pc.equal(rows["outcome"], outcome))["user_id"].to_pylist())


def minutes(number):
    return dt.timedelta(minutes=number)
