"""What went wrong elsewhere, or could here, each once: outages, zombies, lost ledgers, bad rows, many pushers."""

import datetime as dt
import itertools
import json
import threading
import time
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from fake_provider import NO_FAULTS, FakeProvider, Faults, VirtualTime, some_faults
from small_night import (
    CAMPAIGN,
    DATE,
    PLAN,
    RUN,
    Death,
    Night,
    address,
    chunk_plans,
    differences,
    freeze,
    stale_fields,
    write_catalog,
)

from jobs.delivery import payload, provider_calls, shared_pace
from jobs.delivery.addresses import ADDRESS_KEY
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.engine import Pusher
from jobs.delivery.ledger import ChunkPlan, Ledger, Run
from jobs.delivery.plan_gates import strange_in_plan
from jobs.delivery.provider_calls import ProviderCalls
from jobs.delivery.receipt_files import ReceiptFiles, receipts_attempt
from jobs.delivery.request_book import RequestBook
from jobs.delivery.run_context import Delivery
from jobs.delivery.sheet import Sheet
from jobs.delivery.timing import Timing
from jobs.lake.buckets import keyed_hash
from jobs.lake.lake import Lake
from jobs.pull_suppressions import pull_suppressions
from jobs.reconcile_push import reconcile
from jobs.schedule_send import schedule_send
from schemas.delivery_gates import DeliveryGates
from schemas.errors import EmptyPartitionError, GateError, MailError, RejectedMailError, RetryableMailError
from schemas.layout import Partition
from schemas.mail_fields import all_fields

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def night(base, tmp_path, ledger):
    return Night(base, tmp_path / "lake", ledger)


def push_all(night):
    freeze(night.delivery, night.deadline_minutes)
    for chunk in chunk_plans(night.lake):
        push_chunk(night.delivery, chunk.chunk)


# The ledger and the provider disagree


def test_a_lost_ledger_stops_the_push(night, ledger):
    """Everything was pushed and sent; then the ledger is lost, and the date is run again."""
    night.run()
    sent = dict(night.provider.mails)
    ledger.start_anew(night.time, night.point)
    with pytest.raises(GateError, match="never made: it was lost"):
        night.steps()
    assert night.provider.mails == sent


def test_a_ledger_from_before_the_send_stops_the_second_send(night, ledger):
    """A copy from after the push and before the send is put in the ledger's place."""
    push_all(night)
    reconcile(night.delivery)
    copy = ledger.copy()
    schedule_send(night.delivery)
    night.time.sleep(60)
    ledger.put_back(copy)
    with pytest.raises(GateError, match="the single send"):
        schedule_send(night.delivery)
    assert len(night.provider.sends) == 1


# Workers that died or slept


def test_a_resumed_chunk_sends_the_same_bytes_although_the_catalog_changed(base, tmp_path, ledger):
    whole = Night(base, tmp_path / "whole", ledger)
    whole.run()
    cut = next(k for k, name in enumerate(whole.points) if name == "upsert was acted upon")
    night = Night(base, tmp_path / "lake", ledger, die_at=cut)
    with pytest.raises(Death):
        night.steps()
    write_catalog(night.lake, price=Decimal("7.00"))
    first = night.provider.upserts[0][1]
    push_chunk(night.delivery, 0)
    repeated = [body for _, body in night.provider.upserts if body == first]
    assert len(repeated) == 2, "the request in flight is repeated, byte for byte"
    assert len(night.provider.upserts) > 3
    assert not any(b"7.00" in body for _, body in night.provider.upserts)
    push_chunk(night.delivery, 1)  # a chunk that nobody began takes the newest
    assert b"7.00" in night.provider.upserts[-1][1]


def test_a_worker_that_wakes_after_its_replacement_sends_nothing(night, monkeypatch):
    """SIGSTOP between the ledger and the wire, longer than the lease; the replacement finishes the night meanwhile."""
    intend, is_asleep = RequestBook.intend, iter([True])

    def fall_asleep(book, *arguments, **options):
        ticket = intend(book, *arguments, **options)
        if next(is_asleep, False):
            night.time.sleep(60.0)
            night.steps()
            night.sent_meanwhile = len(night.provider.upserts)
        return ticket

    monkeypatch.setattr(RequestBook, "intend", fall_asleep)
    freeze(night.delivery)
    with pytest.raises(GateError, match="was replaced"):
        push_chunk(night.delivery, 0)
    night.time.sleep(60)
    night.provider._advance()
    assert night.differences() == []
    assert len(night.provider.upserts) == night.sent_meanwhile > 0


def test_a_worker_of_yesterday_that_wakes_today_sends_nothing(night, monkeypatch):
    intend, is_asleep = RequestBook.intend, iter([True])

    def fall_asleep(book, *arguments, **options):
        ticket = intend(book, *arguments, **options)
        if next(is_asleep, False):
            night.time.sleep(86_400.0)
            today = Run(RUN.campaign, DATE + dt.timedelta(days=1))
            night.ledger.freeze_plan(today, "today's", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
        return ticket

    monkeypatch.setattr(RequestBook, "intend", fall_asleep)
    freeze(night.delivery)
    with pytest.raises(GateError, match="was replaced"):
        push_chunk(night.delivery, 0)
    assert night.provider.upserts == []


def test_a_chunk_whose_worker_lives_is_not_taken(night):
    """The second worker waits as long as signs of life come, and takes the chunk five seconds after the last."""
    freeze(night.delivery)
    claim = night.ledger.claim(RUN, 0)
    lives_until, sleep = 30.0, night.time.sleep

    def beat_and_sleep(seconds):
        if night.time.seconds < lives_until:
            night.ledger.beat(RUN, claim)
        sleep(seconds)

    timing = Timing(lambda: night.time.at, lambda: night.time.seconds, beat_and_sleep)
    second = Delivery(night.lake, CAMPAIGN, RUN, night.ledger, night.provider, "second", timing)
    push_chunk(second, 0)
    first_upsert = next(at for at, name in night.provider.calls if name == "upsert")
    assert lives_until + provider_calls.LEASE_SECONDS <= first_upsert <= lives_until + 10


# Outages and deadlines


@pytest.mark.parametrize("begins", [0, 3, 6, 9, 12, 15, 18])
def test_eighteen_minutes_of_500s_are_one_send(base, tmp_path, ledger, begins):
    """As on 2026-02-03: from the n-th call on, everything fails for eighteen minutes."""
    night = Night(base, tmp_path / "lake", ledger)
    began = []

    def is_down():
        if len(night.provider.calls) > begins and not began:
            began.append(night.time.seconds)
        return bool(began) and night.time.seconds < began[0] + 18 * 60

    night.provider.down = is_down
    night.run()
    assert began
    assert night.time.seconds > 18 * 60
    assert night.differences() == []
    outage = [at for at, _ in night.provider.calls if began[0] <= at < began[0] + 18 * 60]
    assert 5 < len(outage) <= 60


def test_two_hours_of_500s_expire_what_is_not_pushed(base, tmp_path, ledger):
    """The deadline passes in the outage: what was confirmed before is mailed, the rest is not."""
    night = Night(base, tmp_path / "lake", ledger, deadline_minutes=60)
    night.provider.down = lambda: len(night.provider.upserts) > 2 and night.time.seconds < 7_200
    for _ in range(20):
        try:
            push_all(night)
            break
        except MailError:
            night.time.sleep(300)
    counts = reconcile(night.delivery)
    assert counts["expired"] > 0 < counts["delivered"]
    assert counts["delivered"] + counts["cleared"] + counts["expired"] == len(
        [a for a, _ in PLAN.values() if a != "withheld"]
    )
    schedule_send(night.delivery)
    night.time.sleep(60)
    night.provider._advance()
    (mails,) = night.provider.mails.values()
    assert len(mails) == counts["delivered"]
    ids = night.provider.fields
    assert {fields[ids["ryml_run"]] for fields in mails.values()} == {DATE.isoformat()}


def test_a_provider_that_never_comes_back_is_a_clean_skip(base, tmp_path, ledger):
    night = Night(base, tmp_path / "lake", ledger, deadline_minutes=60)
    freeze(night.delivery, 60)
    night.provider.down = lambda: night.time.seconds < 7_200
    for _ in range(20):
        try:
            push_all(night)
            break
        except MailError:
            night.time.sleep(300)
    assert reconcile(night.delivery)["delivered"] == 0
    with pytest.raises(EmptyPartitionError, match="is empty; nothing was sent"):
        schedule_send(night.delivery)
    assert night.provider.mails == {}
    assert len(night.provider.calls) < 300


def test_nothing_is_sent_before_the_books_balance(night):
    freeze(night.delivery)
    push_chunk(night.delivery, 0)
    with pytest.raises(GateError, match="not confirmed"):
        reconcile(night.delivery)
    with pytest.raises(GateError, match="was not reconciled"):
        schedule_send(night.delivery)
    assert night.provider.sends == {}


def test_nobody_is_mailed_late(night):
    push_all(night)
    reconcile(night.delivery)
    with pytest.raises(GateError, match="past its time"):
        schedule_send(night.delivery, not_after=night.time.at)
    assert {entry["send"].status for entry in night.provider.sends.values()} == {"draft"}


# Rows that the provider does not take


def big_push(tmp_path, ledger, rows, *, invalid=(), poisoned=(), max_contacts=30_000, faults=NO_FAULTS):
    """Push a sheet of many tiny contacts; return the provider and the receipts."""
    time_ = VirtualTime()
    provider, lake = FakeProvider(time_, faults), Lake.open(str(tmp_path / "big"), buckets=2)
    provider.invalid, provider.poisoned, provider.max_contacts = set(invalid), set(poisoned), max_contacts
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {"upsert": rows}, [ChunkPlan(0, 0, 0, rows, 0.0)])
    claim, book = ledger.claim(RUN, 0), RequestBook(ledger, RUN)
    emails = pa.array([f"{n}@x" for n in range(rows)])
    provider.lists["l"] = {"name": "l", "members": set()}

    def render(positions):
        return pa.array([f'{{"email":"{n}@x","custom_fields":{{"a":"{n}"}}}}' for n in positions.tolist()])

    sheet = Sheet(
        0, pa.array([f"u{n}" for n in range(rows)]), emails, pa.array([[1]] * rows, pa.list_(pa.int32())),
        pa.array(["delivered"] * rows), pa.array(range(rows)), np.zeros(rows, np.int8), (("l",),), render,
    )  # fmt: skip
    files = ReceiptFiles(receipts_attempt(lake, RUN, "digest"), claim.plan)
    calls = ProviderCalls(book, time_.timing, claim, None, 1000.0)
    pusher = Pusher(provider, book, claim, calls, files, 1000.0)
    assert pusher.push(sheet)
    ledger.close_chunk(RUN, claim, "confirmed", pusher.counts())
    receipts = pa.concat_tables([files.read(entry) for entry in ledger.receipts(RUN)[0][2]])
    assert sorted(receipts["user_id"].to_pylist()) == sorted(sheet.user_ids.to_pylist())
    return provider, pusher.counts(), receipts


@pytest.mark.parametrize("where", [0, 12_345, 29_999])
def test_one_bad_row_of_thirty_thousand_costs_at_most_forty_requests(tmp_path, ledger, monkeypatch, where):
    monkeypatch.setattr(payload, "MAX_CONTACTS", 30_000)
    provider, counts, receipts = big_push(tmp_path, ledger, 30_000, invalid=[f"{where}@x"])
    assert (counts["delivered"], counts["quarantined"]) == (29_999, 1)
    assert len(provider.upserts) <= 40
    assert provider.lists["l"]["members"] == {f"{n}@x" for n in range(30_000) if n != where}
    (row,) = [row for row in receipts.to_pylist() if row["outcome"] == "quarantined"]
    assert (row["user_id"], row["reason"]) == (f"u{where}", "refused_request")


def test_a_request_that_is_too_large_is_halved(tmp_path, ledger, monkeypatch):
    monkeypatch.setattr(payload, "MAX_CONTACTS", 1_000)
    provider, counts, _ = big_push(tmp_path, ledger, 1_000, max_contacts=300)
    assert counts == {"delivered": 1_000, "cleared": 0, "quarantined": 0, "requests": 4}
    assert len(provider.upserts) == 7


def test_a_request_that_is_wrong_as_a_whole_is_not_taken_apart_for_ever(tmp_path, ledger, monkeypatch):
    monkeypatch.setattr(payload, "MAX_CONTACTS", 30_000)
    with pytest.raises(RejectedMailError, match="26 rows were refused one by one, limit 25"):
        big_push(tmp_path, ledger, 3_000, invalid=[f"{n}@x" for n in range(3_000)])


def test_rows_that_a_job_refuses_are_tried_again_and_quarantined_alone(tmp_path, ledger, monkeypatch):
    """Failed, errored and lost jobs at 5, 3 and 1 %: all confirmed or quarantined, with a quarter more requests."""
    monkeypatch.setattr(payload, "MAX_CONTACTS", 100)
    bad = {f"{n}@x" for n in (7, 4_000, 19_999)}
    faults = Faults(seed=5, job_failed=0.05, job_errored=0.03, job_lost=0.01)
    provider, counts, receipts = big_push(tmp_path, ledger, 20_000, poisoned=bad, faults=faults)
    assert (counts["delivered"], counts["quarantined"]) == (19_997, 3)
    assert {row["user_id"] for row in receipts.to_pylist() if row["reason"] == "refused_import"} == {
        "u7",
        "u4000",
        "u19999",
    }
    assert 200 < len(provider.upserts) <= 250
    assert {job.status for job in provider.jobs.values()} >= {"completed", "failed", "errored", "lost"}


def test_poisoned_and_invalid_users_are_quarantined_and_everybody_else_is_mailed(base, tmp_path, ledger):
    for seed in (None, 1, 2):
        night = Night(base, tmp_path / f"{seed}", ledger, faults=NO_FAULTS if seed is None else some_faults(seed))
        night.provider.poisoned, night.provider.invalid = {address("user-00")}, {address("user-03")}
        night.run()
        assert night.differences() == []


# Many at once


class LockedProvider(FakeProvider):
    """One call at a time, so that threads can share it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._lock = threading.RLock()

    def _call(self, name, act):
        with self._lock:
            return super()._call(name, act)


class FastTime:
    """Real time, fifty times as fast, for threads."""

    def __init__(self):
        self.began = time.monotonic()

    @property
    def seconds(self):
        return (time.monotonic() - self.began) * 50

    @property
    def timing(self):
        start = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC)
        return Timing(
            lambda: start + dt.timedelta(seconds=self.seconds), lambda: self.seconds, lambda s: time.sleep(s / 50)
        )


def eight_pushers(base, folder):
    """Eight workers do the whole night at once; return the provider and how often a chunk changed hands."""
    import shutil

    shutil.copytree(base, folder)
    clock, lake = FastTime(), Lake.open(str(folder))
    provider = LockedProvider(clock)
    ids = {name: f"e{number}_T" for number, name in enumerate(all_fields(CAMPAIGN.slots), start=1)}
    provider.fields, provider.contacts = ids, {address(user): stale_fields(ids) for user in PLAN}
    start, done = threading.Barrier(8), []

    def work(number):
        ledger = Ledger(f"sqlite:///{folder}/ledger.db", clock.timing.clock)
        delivery = Delivery(lake, CAMPAIGN, RUN, ledger, provider, f"worker-{number}", clock.timing)
        start.wait()
        for _ in range(60):
            try:
                freeze(delivery)
                for chunk in chunk_plans(lake):
                    push_chunk(delivery, chunk.chunk)
                reconcile(delivery)
                schedule_send(delivery)
                done.append(number)
                return
            except (GateError, MailError):  # another worker is ahead
                clock.timing.sleep(1.0)
            except Exception as error:
                if "changed since" not in str(error):
                    done.append(error)
                    raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))
    clock.timing.sleep(60)
    provider._advance()
    assert differences(lake, provider.fields, provider.contacts, list(provider.mails.values())) == []
    ledger = Ledger(f"sqlite:///{folder}/ledger.db", clock.timing.clock)
    return provider, sum(ledger.holder(RUN, chunk.chunk).epoch - 1 for chunk in chunk_plans(lake))


def rounds(base, tmp_path, number):
    requests, takeovers = 0, 0
    for trial in range(number):
        provider, taken = eight_pushers(base, tmp_path / f"round-{trial}")
        assert len(provider.mails) == 1
        requests, takeovers = requests + len(provider.upserts), takeovers + taken
    return requests, takeovers


def test_eight_pushers_at_once_send_once(base, tmp_path):
    rounds(base, tmp_path, 2)


@pytest.mark.scoreboard
def test_eight_pushers_fifty_rounds(base, tmp_path, night, scoreboard):
    night.run()
    requests, takeovers = rounds(base, tmp_path, 50)
    alone = 50 * len(night.provider.upserts)
    assert requests <= alone + takeovers
    scoreboard.add(
        "8 pushers at once x 50 rounds", f"one send each; {requests} requests ({alone} alone), {takeovers} takeovers"
    )


# The pace


def leave_instants(ledger, *, processes, requests, restarts, jumps=()):
    """When requests leave: processes take turns, die after their reservation now and then, and the clock jumps."""
    time_ = VirtualTime()
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    books, left = [RequestBook(ledger, RUN) for _ in range(processes)], []
    for number in range(requests):
        if number % (requests // restarts) == 1:  # this process dies with a reservation, and another one begins
            books[number % processes].begin_call("upsert", "lost", requests_per_second=1.5)
            books[number % processes] = RequestBook(ledger, RUN)
        if number in jumps:
            time_.at += dt.timedelta(hours=jumps[number])
        ticket = books[number % processes].begin_call("upsert", str(number), requests_per_second=1.5)
        time_.sleep(max(0.0, ticket.leave_at - time_.at.timestamp()))
        left.append(time_.seconds)
    return left


def most_in_window(left, seconds):
    starts = np.searchsorted(left, np.array(left) - seconds, side="right")
    return int((np.arange(len(left)) - starts + 1).max())


def test_the_rate_is_used_and_never_exceeded_across_fifty_restarts(ledger):
    left = leave_instants(ledger, processes=4, requests=2_500, restarts=50)
    assert len(left) == 2_500
    for window in (1, 10, 60, 600):
        assert most_in_window(left, window) <= int(np.ceil(window * 1.5)), window
    assert len(left) / (left[-1] - left[0]) >= 0.95 * 1.5


def test_a_clock_that_jumps_an_hour_either_way_is_never_a_burst(ledger):
    left = leave_instants(ledger, processes=4, requests=600, restarts=10, jumps={200: -1.0, 400: 1.0})
    assert most_in_window(left, 60) <= 90
    assert left[-1] < 600 / 1.5 + 2 * shared_pace.HORIZON_SECONDS


def test_when_the_provider_says_wait_everybody_waits(ledger):
    time_ = VirtualTime()
    ledger.start_anew(time_, lambda name: None)
    ledger.freeze_plan(RUN, "digest", {}, [ChunkPlan(0, 0, 0, 1, 0.0)])
    one, other = RequestBook(ledger, RUN), RequestBook(ledger, RUN)
    calls = ProviderCalls(one, time_.timing, requests_per_second=10.0)
    answers = iter([RetryableMailError("429", retry_after_seconds=40.0, may_have_acted=False)])

    def refused():
        raise next(answers)

    with pytest.raises(StopIteration):
        calls.repeat(lambda: calls.write_once("upsert", "x", refused))
    assert time_.seconds >= 40
    ticket = other.begin_call("upsert", "y", requests_per_second=10.0)
    assert ticket.leave_at >= (dt.datetime(2026, 11, 3, 8, 0, 40, tzinfo=dt.UTC)).timestamp()
    assert next(call["outcome"] for call in one.history()) == "failed"


def test_bodies_name_each_contact_once_and_never_nan(night):
    night.run()
    for addresses, body in night.provider.upserts:
        assert len(set(addresses)) == len(addresses)
        json.loads(body, parse_constant=lambda text: pytest.fail(text))
    everybody = list(itertools.chain.from_iterable(addresses for addresses, _ in night.provider.upserts))
    assert len(everybody) == len(set(everybody)) == len([a for a, _ in PLAN.values() if a != "withheld"])


# Plans that are not like those before


def test_a_null_storm_is_stopped_before_anybody_is_cleared():
    """An empty or late input clears a great part of those who hold items: nothing is pushed."""
    gates = DeliveryGates()
    counts = {"upsert": 1_000, "clear": 400}
    assert (
        "400 of 1000 users who hold items would be cleared (40%"
        in strange_in_plan(counts, holders=1_000, recipients_before=[], gates=gates).pop()
    )
    assert strange_in_plan({**counts, "clear": 300}, holders=1_000, recipients_before=[], gates=gates) == []
    assert strange_in_plan({**counts, "clear": 40}, holders=50, recipients_before=[], gates=gates) == []


@pytest.mark.parametrize(
    ("mailed", "is_strange"), [(499, True), (500, False), (2_000, False), (2_001, True), (0, True)]
)
def test_an_audience_unlike_the_last_seven_is_stopped(mailed, is_strange):
    found = strange_in_plan(
        {"upsert": mailed, "clear": 0}, holders=9, recipients_before=[900, 1_000, 1_100], gates=DeliveryGates()
    )
    assert bool(found) == is_strange
    assert (
        strange_in_plan({"upsert": mailed, "clear": 0}, holders=9, recipients_before=[1, 1], gates=DeliveryGates())
        == []
    )


def test_who_left_the_campaigns_group_is_suppressed_like_the_others(night):
    night.provider.suppressed = [("group_unsubscribes", "A@Example.com "), ("bounces", "b@example.com")]
    answers = iter([True, True, False])
    night.provider.down = lambda: next(answers, False)  # the pull is made again where the provider fails
    assert pull_suppressions(night.delivery)["kinds"] == {"group_unsubscribes": 1, "bounces": 1}
    rows = night.lake.read(night.lake.manifest(Partition("suppressions", DATE, "spring")))
    hashed = keyed_hash(pa.array(["a@example.com", "b@example.com"]), night.ledger.key(ADDRESS_KEY)).view(np.int64)
    assert sorted(rows["address_key"].to_pylist()) == sorted(hashed.tolist())


def test_a_contact_that_does_not_hold_what_was_confirmed_stops_the_send(night):
    """Every contact is read back of a night as small as this one; one of them was written by somebody else."""
    push_all(night)
    content, mailed = night.provider.fields["ryml_content"], [u for u, (act, _) in PLAN.items() if act == "upsert"]
    assert len(mailed) > 1
    for user in mailed:
        held = night.provider.contacts[address(user)]
        before = held[content]
        held[content] = "somebody"
        with pytest.raises(GateError, match=r"^1 of "):
            reconcile(night.delivery)
        assert not night.ledger.is_reconciled(RUN)
        held[content] = before
    assert reconcile(night.delivery)["contacts_read_back"] >= len(mailed)
    assert night.ledger.is_reconciled(RUN)
