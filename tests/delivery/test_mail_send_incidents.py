"""What goes wrong with Mail Send, one test each; nobody is mailed twice, too early, late, or after a no."""

import dataclasses
import datetime as dt
import json

import pytest
from mail_night import DEADLINE_MINUTES, ERASED, MAIL_CAMPAIGN, UPSERTS, MailNight, minutes, users_of
from small_night import DATE, PLAN, RUN, address, chunk_plans

from jobs.cancel_send import cancel_send
from jobs.delivery import mail_sender
from jobs.delivery.chunk_lease import take_chunk
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import Run
from jobs.delivery.mail_book import MailBook
from jobs.delivery.people_book import bury, hashes_of
from jobs.fold_profiles import _mailed_lists
from jobs.reconcile_ledger import reconcile_ledger
from jobs.reconcile_push import reconcile
from jobs.resume_push import resume_push
from jobs.schedule_send import schedule_send
from jobs.show_delivery import show_delivery
from schemas.campaign import Campaign
from schemas.errors import GateError, MailAuthError, MailError, RetryableMailError
from schemas.layout import Partition

pytestmark = pytest.mark.usefixtures("small", "small_mails")


@pytest.fixture
def night(mail_base, tmp_path, ledger):
    return MailNight(mail_base, tmp_path / "lake", ledger)


def not_heard(night, numbers, *, acted):
    """Let the n-th requests for mails go without an answer, acted upon or not."""
    send, count = night.provider.send_mails, iter(range(1_000))

    def sometimes(body):
        if next(count) not in numbers:
            return send(body)
        if acted:
            send(body)
        raise RetryableMailError("POST /v3/mail/send: no answer (TimeoutError)")

    night.provider.send_mails = sometimes


@pytest.mark.parametrize("acted", [True, False])
def test_a_request_without_an_answer_is_never_repeated(night, tmp_path, acted):
    not_heard(night, {0}, acted=acted)
    night.push()
    lost = users_of(night.lake, "unknown")
    assert 1 <= len(lost) <= 2
    status = show_delivery(night.ledger, RUN)
    assert status["users"]["unknown"] == len(lost)
    assert status["requests"]["unknown"] == 1
    json.dumps(status)
    # Nobody repeats it: not the task that is cleared, not who resumes, not who balances the books again.
    for chunk in chunk_plans(night.lake):
        push_chunk(night.delivery, chunk.chunk)
    resume_push(night.delivery)
    reconcile(night.delivery)
    assert schedule_send(night.delivery)["unknown"] == len(lost)
    night.finish()
    assert night.differences() == []
    assert {user for user in lost if night.truth[user]} == (lost if acted else set())
    result = night.settle(tmp_path / "events")
    assert result["unknown_requests"] == 0
    assert users_of(night.lake, "delivered" if acted else "not_sent") >= lost
    assert night.differences() == []
    resume_push(night.delivery)
    night.finish()
    assert night.differences() == []


def test_who_may_have_been_mailed_counts_as_mailed_until_it_is_settled(night, tmp_path):
    not_heard(night, {0}, acted=False)
    night.push()
    lost = users_of(night.lake, "unknown")
    schedule_send(night.delivery)
    night.finish()

    def mailed():
        receipts = night.lake.manifest(Partition("receipts", DATE, "spring"))
        buckets = range(night.lake.buckets)
        tables = [_mailed_lists(night.lake, receipts, bucket).rows for bucket in buckets]
        return {user for table in tables for user in table["user_id"].to_pylist()}

    assert mailed() >= lost > set()
    night.settle(tmp_path / "events")
    assert not mailed() & lost


def test_a_worker_that_wakes_up_after_its_replacement_mails_nobody_twice(night):
    """It was stopped between its last look at the ledger and the socket: its request leaves, and is nobody else's."""
    night.freeze()
    send, woken = night.provider.send_mails, []

    def replaced_meanwhile(body):
        if not woken:
            woken.append(body)
            night.time.sleep(30)
            claim = take_chunk(night.ledger, night.delivery.run, 0, night.delivery.timing)
            night.delivery.ledger.release(RUN, claim)
            push_chunk(night.delivery, 0)
        return send(body)

    night.provider.send_mails = replaced_meanwhile
    with pytest.raises(GateError, match="replaced"):
        push_chunk(night.delivery, 0)
    assert woken
    push_chunk(night.delivery, 1)
    reconcile(night.delivery)
    schedule_send(night.delivery)
    night.finish()
    assert night.differences() == []
    assert users_of(night.lake, "unknown") == set()  # its 202 was written down, replaced or not


def test_a_request_over_the_limit_was_not_looked_at_and_comes_again(night):
    send, count = night.provider.send_mails, iter(range(1_000))

    def limited(body):
        if next(count) in (0, 2, 3):
            raise RetryableMailError("429", retry_after_seconds=7.0, may_have_acted=False)
        return send(body)

    night.provider.send_mails = limited
    night.run()
    assert night.differences() == []
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED}
    assert sum(night.time.slept) >= 21


def test_a_refused_address_is_quarantined_alone(night, monkeypatch):
    monkeypatch.setattr(mail_sender, "MAILS_PER_REQUEST", 1_000)
    bad = UPSERTS[1]
    night.provider.invalid = {address(bad)}
    night.run()
    assert night.differences() == []
    assert users_of(night.lake, "quarantined") == {bad}
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED, bad}


def test_a_request_that_is_too_large_is_halved(night, monkeypatch):
    monkeypatch.setattr(mail_sender, "MAILS_PER_REQUEST", 1_000)
    night.provider.max_mails = 1
    night.run()
    assert night.differences() == []
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED}


def test_a_body_keeps_to_the_bytes_of_a_message(night, monkeypatch):
    monkeypatch.setattr(mail_sender, "MESSAGE_BYTES", 1_150)
    monkeypatch.setattr(mail_sender, "MAILS_PER_REQUEST", 1_000)
    night.run()
    assert night.differences() == []
    assert len(night.provider.bodies) >= 5
    assert max(len(body) for body in night.provider.bodies) <= 1_150


def test_a_wrong_key_takes_nothing_and_leaves_everybody_open(night):
    send = night.provider.send_mails

    def refused(body):
        raise MailAuthError("401")

    night.provider.send_mails = refused
    with pytest.raises(MailAuthError):
        night.push()
    assert show_delivery(night.ledger, RUN)["users"]["unknown"] == 0
    night.provider.send_mails = send
    night.run()
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED}
    assert night.differences() == []


def test_an_outage_costs_few_users_and_ends_in_a_stop(night, monkeypatch):
    monkeypatch.setattr(mail_sender, "MAILS_PER_REQUEST", 1)
    not_heard(night, {0, 1, 2}, acted=True)
    night.freeze()
    chunk = max(chunk_plans(night.lake), key=lambda chunk: chunk.users)
    assert chunk.users >= 3
    with pytest.raises(MailError, match="3 answers in a row"):
        push_chunk(night.delivery, chunk.chunk)
    assert show_delivery(night.ledger, RUN)["users"]["unknown"] == 3
    night.run()  # the next try, when the provider answers again
    assert night.differences() == []
    assert len(users_of(night.lake, "unknown")) == 3


def test_a_death_right_after_the_provider_took_the_mails_repeats_none(mail_base, tmp_path, ledger):
    whole = MailNight(mail_base, tmp_path / "whole", ledger)
    whole.run()
    taken = [k for k, name in enumerate(whole.points) if name == "send_mails was acted upon"]
    assert len(taken) >= 3
    for k in taken[:2]:
        night = MailNight(mail_base, tmp_path / f"lake-{k}", ledger, die_at=k)
        night.run()
        assert night.differences() == []
        assert 1 <= len(users_of(night.lake, "unknown")) <= 2


def test_after_an_answer_that_was_not_heard_nothing_leaves_before_the_provider_answers(night):
    not_heard(night, {0}, acted=False)
    looks, real = [], night.provider.batch_hold

    def down_for_a_while(batch_id):
        looks.append(night.time.seconds)
        if 1 < len(looks) < 6:
            raise RetryableMailError("500")
        return real(batch_id)

    night.provider.batch_hold = down_for_a_while
    night.run()
    assert night.differences() == []
    assert len(looks) > 6
    assert len(users_of(night.lake, "unknown")) <= 2


# The hold


def test_nothing_leaves_before_the_send_however_late_it_is(night):
    night.push()
    assert len(night.provider.messages) >= 3
    assert all(m["body"]["send_at"] == int(night.send_at.timestamp()) for m in night.provider.messages)
    night.finish(60 * 60 * 20)
    assert night.provider.mailed == []
    schedule_send(night.delivery)
    night.finish(1)
    assert night.differences() == []
    assert users_of(night.lake, "delivered") == set(UPSERTS) - {ERASED}


def test_mails_that_are_released_early_leave_at_their_time(night):
    night.push()
    assert schedule_send(night.delivery)["status"] == "scheduled"
    before = (night.send_at - night.time.at).total_seconds()
    assert before > DEADLINE_MINUTES * 60
    night.finish(before - 1)
    assert night.provider.mailed == []
    night.finish(2)
    assert len(night.provider.mailed) == len(UPSERTS) - 1
    assert schedule_send(night.delivery)["status"] == "triggered"


def test_every_mail_is_held_for_ten_minutes_at_least(night):
    """What is handed over up to the deadline has a pause that the provider promises to keep."""
    night.freeze()
    night.time.sleep(DEADLINE_MINUTES * 60 - 1)
    push_chunk(night.delivery, 0)
    night.time.sleep(5)
    assert push_chunk(night.delivery, 1)["state"] == "expired"
    reconcile(night.delivery)
    assert len(night.provider.messages) >= 1
    for message in night.provider.messages:
        _, since = night.provider.holds[message["body"]["batch_id"]]
        assert message["due_at"] - since >= 600
    night.finish(3600)
    assert night.provider.mailed == []


def test_a_send_that_was_refused_mails_nobody(night, tmp_path):
    """A person said no: the run ends green after its barrier, and nothing is asked of the provider."""
    night.push()
    night.finish(73 * 3600)
    assert night.provider.mailed == []
    later = night.ledger, dataclasses.replace(RUN, send_date=DATE + dt.timedelta(days=1))
    assert MailBook(*later).batches_before()[0][0] == RUN


def test_templates_of_long_ago_are_deleted(night):
    night.provider.templates = {
        "d-old": {"name": MAIL_CAMPAIGN.send_name(DATE - dt.timedelta(days=15))},
        "d-young": {"name": MAIL_CAMPAIGN.send_name(DATE - dt.timedelta(days=14))},
    }
    night.push()
    assert "d-old" not in night.provider.templates
    assert len(night.provider.templates) == 2


def test_a_batch_that_was_never_released_is_cancelled_by_the_next_date(night):
    night.push()
    tomorrow = _tomorrow(night)
    assert MailBook(night.ledger, RUN).batch().state == "cancelled"
    with pytest.raises(GateError, match="cancelled"):
        schedule_send(night.delivery)
    night.finish(5 * 24 * 3600)
    assert night.provider.mailed == []
    from jobs.delivery.run_batch import ensure_run_batch

    _plan(night, DATE + dt.timedelta(days=6))
    ensure_run_batch(_on(night, DATE + dt.timedelta(days=6)))
    assert len(night.provider.holds) == 1  # the newest date's: of these an account has ten
    assert MailBook(night.ledger, RUN).batch().state == "lifted"
    assert tomorrow.state == "made"


def _on(night, date):
    return dataclasses.replace(night.delivery, run=Run("spring", date))


def _plan(night, date):
    night.ledger.freeze_plan(Run("spring", date), "x", {"upsert": 0}, [], deadline_minutes=45)


def _tomorrow(night):
    from jobs.delivery.run_batch import ensure_run_batch

    _plan(night, DATE + dt.timedelta(days=1))
    return ensure_run_batch(_on(night, DATE + dt.timedelta(days=1)))


@pytest.mark.parametrize("when", ["in the push", "before the release", "after the release"])
def test_a_batch_that_is_cancelled_mails_nobody(night, tmp_path, when):
    night.freeze()
    push_chunk(night.delivery, 0)
    if when != "in the push":
        push_chunk(night.delivery, 1)
        reconcile(night.delivery)
    if when == "after the release":
        assert schedule_send(night.delivery)["status"] == "scheduled"
    result = cancel_send(night.delivery, "the prices are in cents")
    assert (result["status"], result["is_certain"]) == ("cancelled", True)
    before = len(night.provider.bodies)
    push_chunk(night.delivery, 1)
    assert len(night.provider.bodies) == before
    with pytest.raises(GateError):
        schedule_send(night.delivery)
    night.finish()
    assert night.provider.mailed == []
    if when == "before the release":
        night.settle(tmp_path / "events")
        assert users_of(night.lake, "not_sent") == set(UPSERTS) - {ERASED}
        assert night.differences() == []


def test_what_is_out_is_said_to_be_out(night):
    night.run()
    with pytest.raises(GateError, match="nothing can take them back"):
        cancel_send(night.delivery, "an afterthought")


def test_a_cancellation_right_before_the_send_says_that_it_is_not_certain(night):
    night.push()
    schedule_send(night.delivery)
    night.time.sleep((night.send_at - night.time.at).total_seconds() - 300)
    assert cancel_send(night.delivery, "an afterthought")["is_certain"] is False


def test_nobody_is_mailed_late(night):
    night.push()
    with pytest.raises(GateError, match="nobody is mailed late"):
        schedule_send(night.delivery, not_after=night.send_at - minutes(1))
    assert MailBook(night.ledger, RUN).batch().state == "cancelled"
    night.finish()
    assert night.provider.mailed == []


def test_a_pause_that_somebody_lifted_stops_the_push(night):
    night.freeze()
    push_chunk(night.delivery, 0)
    before = len(night.provider.bodies)
    night.provider.holds.clear()
    with pytest.raises(GateError, match="not held at the provider"):
        push_chunk(night.delivery, 1)
    assert len(night.provider.bodies) == before
    with pytest.raises(GateError, match="not confirmed"):
        schedule_send_after_reconcile(night)


def schedule_send_after_reconcile(night):
    reconcile(night.delivery)
    schedule_send(night.delivery)


def test_nothing_is_released_before_the_books_balance(night):
    night.freeze()
    push_chunk(night.delivery, 0)
    with pytest.raises(GateError, match="not reconciled"):
        schedule_send(night.delivery)
    night.finish()
    assert night.provider.mailed == []


# People, the ledger, the plan


def test_who_is_erased_or_unsubscribes_after_the_push_gets_no_mail(night):
    night.push()
    gone, left = UPSERTS[0], UPSERTS[1]
    bury(night.ledger, {"address": hashes_of(night.ledger, [address(gone)], "address")})
    night.provider.suppressed = [("group_unsubscribes", address(left))]
    night.provider.dropped = {address(left)}  # the provider's own doing
    result = schedule_send(night.delivery)
    night.finish()
    assert result["withdrawn"] == 2
    assert {user for user, is_mailed in night.truth.items() if is_mailed} == set(UPSERTS) - {ERASED, gone, left}


def test_a_lost_ledger_stops_the_push_and_the_run_is_given_up(night, ledger):
    night.push()
    ledger.start_anew(night.time, night.point)
    night.delivery = night.open()
    before = len(night.provider.bodies)
    with pytest.raises(GateError, match="run reconcile_ledger"):
        night.push()
    assert len(night.provider.bodies) == before
    assert reconcile_ledger(night.delivery, "its disk died")["template"] is True
    push_chunk(night.delivery, 0)
    assert len(night.provider.bodies) == before
    night.finish(80 * 3600)
    assert night.provider.mailed == []


def test_the_method_is_the_plans_whatever_the_file_says_by_now(night):
    night.freeze()
    push_chunk(night.delivery, 0)
    contacts = Campaign(**{**MAIL_CAMPAIGN.model_dump(), "push": {"method": "contacts", "requests_per_second": 100.0}})
    night.delivery = dataclasses.replace(night.delivery, campaign=contacts)
    push_chunk(night.delivery, 1)
    reconcile(night.delivery)
    schedule_send(night.delivery)
    night.finish()
    assert night.differences() == []
    assert night.provider.upserts == []
    assert night.provider.lists == {}


def test_stages_without_a_meaning_are_skipped_with_a_word(night):
    counts = night.push()
    assert "mirror" in counts["skipped"]
    assert night.lake.find(Partition("mirror", DATE, "spring")) is None
    names = {name for _, name in night.provider.calls}
    assert not names & {"upsert", "ensure_list", "find_list", "list_size", "contacts_by_email", "ensure_fields"}


def test_a_mail_carries_nothing_of_its_reader_but_the_address(night):
    night.run()
    seen = set()
    for body in night.provider.bodies:
        data = json.loads(body)
        for entry in data["personalizations"]:
            assert set(entry) == {"to", "custom_args", "dynamic_template_data"}
            assert [set(one) for one in entry["to"]] == [{"email"}]  # one each: nobody sees another's address
            tokens = entry["custom_args"]
            assert set(tokens) == {"ryml_run", "ryml_request", "ryml_uid"}
            assert all(len(token) == 16 and int(token, 16) >= 0 for token in tokens.values())
            seen.add(tokens["ryml_uid"])
        assert not any(user in json.dumps(data).replace(address(user), "") for user in PLAN)
    assert len(seen) == len(UPSERTS) - 1


# Settling


def test_silence_says_nothing_while_events_are_missing(night, tmp_path):
    not_heard(night, {0}, acted=False)
    night.run()
    events = night.provider.events
    some = {event["ryml_request"] for event in events}
    assert len(some) >= 2
    without_one = [event for event in events if event["ryml_request"] != min(some)]
    assert night.settle(tmp_path / "one-missing", events=without_one)["unknown_requests"] == 1
    assert night.settle(tmp_path / "none", events=[])["unknown_requests"] == 1
    assert night.settle(tmp_path / "all", hours=0)["unknown_requests"] == 0
    assert night.differences() == []


def test_silence_says_nothing_before_two_days_and_an_event_says_all_at_once(night, tmp_path):
    not_heard(night, {0}, acted=False)
    night.run()
    assert night.settle(tmp_path / "early", hours=40)["unknown_requests"] == 1
    assert night.settle(tmp_path / "late", hours=8)["unknown_requests"] == 0


def test_a_post_that_cannot_be_read_is_counted_and_silence_says_nothing(night, tmp_path):
    not_heard(night, {0}, acted=False)
    night.run()
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "torn.json").write_text('[{"event": "processed", ', "utf-8")
    lines = "\n".join(json.dumps(event) for event in night.provider.events)
    (tmp_path / "events" / "lines.jsonl").write_text(lines, "utf-8")
    night.time.sleep(72 * 3600)
    from jobs.settle_mails import settle_mails

    result = settle_mails(night.lake, night.ledger, RUN, [tmp_path / "events"])
    assert (result["unreadable"], result["unknown_requests"]) == (1, 1)
    assert result["events_of_run"] == len(night.provider.events)


def test_events_of_another_run_settle_nothing(night, tmp_path):
    not_heard(night, {0}, acted=True)
    night.run()
    foreign = [{**event, "ryml_run": "0" * 16} for event in night.provider.events]
    assert night.settle(tmp_path / "foreign", events=foreign)["unknown_requests"] == 1


def test_an_event_has_the_last_word_over_silence(night, tmp_path):
    not_heard(night, {0}, acted=True)
    night.run()
    lost = users_of(night.lake, "unknown")
    early = [event for event in night.provider.events if event["email"] not in {address(user) for user in lost}]
    night.settle(tmp_path / "early", events=early)
    assert users_of(night.lake, "not_sent") == lost
    night.settle(tmp_path / "late", hours=0)
    assert users_of(night.lake, "not_sent") == set()
    assert night.differences() == []
