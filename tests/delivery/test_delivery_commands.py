"""Status, resume, cancel, reconcile, quarantine: one command each, on a night that went wrong in the middle."""

import json

import pytest
from small_night import RUN, Death, Night, address, chunk_plans, freeze

from jobs.cancel_send import cancel_send
from jobs.delivery.chunk_push import push_chunk
from jobs.reconcile_ledger import reconcile_ledger
from jobs.reconcile_push import reconcile
from jobs.resume_push import resume_push
from jobs.schedule_send import schedule_send
from jobs.show_delivery import show_delivery
from jobs.show_quarantine import show_quarantine
from schemas.errors import ConfigError, GateError

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def night(base, tmp_path, ledger):
    return Night(base, tmp_path / "lake", ledger)


def test_status_and_resume_after_a_death_in_the_push(base, tmp_path, ledger):
    whole = Night(base, tmp_path / "whole", ledger)
    whole.run()
    cut = [k for k, name in enumerate(whole.points) if name == "upsert was acted upon"][1]
    night = Night(base, tmp_path / "lake", ledger, die_at=cut)
    with pytest.raises(Death):
        night.steps()
    status = show_delivery(night.ledger, RUN)
    assert status["chunks"]["in_flight"] == 1
    assert status["requests"]["intended"] == 1
    assert status["calls"]["upsert unknown"] == 1
    assert [call["outcome"] for call in status["last_failures"]] == ["unknown"]
    json.dumps(status)
    counts = resume_push(night.delivery)
    assert counts["delivered"] > counts["cleared"] > 0
    assert night.provider.mails == {}
    assert schedule_send(night.delivery)["status"] in ("scheduled", "triggered")
    night.time.sleep(60)
    night.provider._advance()
    assert night.differences() == []
    assert show_delivery(night.ledger, RUN)["chunks"] == {"confirmed": len(chunk_plans(night.lake))}


def test_a_resumed_push_keeps_to_the_ramp(night):
    freeze(night.delivery)
    with night.ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE chunks SET offset_seconds = 600 WHERE chunk = 1")
    resume_push(night.delivery)
    instants = [at for at, name in night.provider.calls if name == "upsert"]
    assert instants[0] < 60 < 600 <= instants[-1] < 700


def test_a_send_that_is_cancelled_before_it_leaves_never_does(night):
    freeze(night.delivery)
    resume_push(night.delivery)
    night.provider.random.random = lambda: 0.999  # the provider takes two seconds to trigger what is scheduled for now
    night.delivery.timing.sleep(0)
    send_id = _schedule_without_waiting(night)
    assert cancel_send(night.delivery, "the prices are wrong")["status"] == "draft"
    night.time.sleep(3600)
    night.provider._advance()
    assert night.provider.mails == {}
    assert night.provider.sends[send_id]["send"].status == "draft"
    with pytest.raises(GateError, match=r"cancelled \(the prices are wrong\)"):
        schedule_send(night.delivery)
    assert push_chunk(night.delivery, 0)["state"] == "confirmed"  # what was pushed stays


def _schedule_without_waiting(night):
    from jobs.schedule_send import _choose

    send_id = _choose(night.delivery, night.delivery.calls())
    night.provider.schedule(send_id)
    return send_id


def test_cancelling_in_the_push_stops_it_and_what_is_out_is_said_to_be(night):
    freeze(night.delivery)
    push_chunk(night.delivery, 0)
    assert cancel_send(night.delivery, "the prices are wrong")["status"] == "none"
    before = len(night.provider.upserts)
    assert push_chunk(night.delivery, 1)["state"] == "expired"
    assert len(night.provider.upserts) == before
    with pytest.raises(ConfigError):
        cancel_send(night.delivery, " ")


def test_a_mail_that_is_out_cannot_be_cancelled(night):
    night.run()
    with pytest.raises(GateError, match="is out already"):
        cancel_send(night.delivery, "the prices are wrong")


def test_a_lost_ledger_learns_that_the_date_was_sent(night, ledger):
    night.run()
    ledger.start_anew(night.time, night.point)
    freeze(night.delivery)
    found = reconcile_ledger(night.delivery, "the disk died")
    assert (found["list"], found["single_send"]) == (True, "triggered")
    assert "the disk died" in found["stopped_reason"]
    assert push_chunk(night.delivery, 0)["state"] == "expired"
    assert len(night.provider.mails) == 1


def test_a_lost_ledger_goes_on_with_a_date_that_was_not_sent(night, ledger):
    freeze(night.delivery)
    push_chunk(night.delivery, 0)
    ledger.start_anew(night.time, night.point)
    with pytest.raises(GateError, match="run reconcile_ledger"):
        night.steps()
    reconcile_ledger(night.delivery, "the disk died")
    night.run()
    assert night.differences() == []


def test_quarantine_is_listed_without_ids_or_addresses(night):
    night.provider.invalid, night.provider.poisoned = {address("user-00")}, {address("user-03")}
    night.run()
    found = show_quarantine(night.lake, night.ledger, RUN)
    assert found["reasons"] == {"refused_request": 1, "refused_import": 1}
    assert "user-0" not in json.dumps(found)
    assert len({row["user"] for row in found["quarantined"]}) == 2


def test_reconciling_twice_changes_nothing(night):
    night.run()
    before = night.lake.manifest
    assert reconcile(night.delivery)["delivered"] == reconcile(night.delivery)["delivered"]
    assert before
    assert night.differences() == []
