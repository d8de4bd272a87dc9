"""What is particular to a push by file: two calls a file, the method of the plan, parts of an upload, no halving."""

import itertools
from dataclasses import replace

import pytest
from fake_provider import NO_FAULTS, some_faults
from small_night import CAMPAIGN, PLAN, RUN, Death, Night, address, chunk_plans, freeze

from jobs.delivery import carriers, csv_file
from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import ChunkPlan
from jobs.reconcile_push import reconcile
from jobs.show_delivery import show_delivery
from schemas.errors import BadContentMailError, GateError, MailError, RejectedMailError, RetryableMailError
from schemas.layout import Partition

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def night(base, tmp_path, ledger):
    return Night(base, tmp_path / "lake", ledger, method="csv_import")


def push_all(night):
    freeze(night.delivery, method=night.method)
    for chunk in chunk_plans(night.lake):
        push_chunk(night.delivery, chunk.chunk)


def calls(night, *names):
    return [name for _, name in night.provider.calls if name in names]


def ends_well(night):
    night.run()
    assert night.differences() == []


# Whose word the method is


def test_the_method_is_the_plans_whatever_the_campaigns_file_says(night):
    assert CAMPAIGN.push.method == "contacts"
    push_all(night)
    assert set(calls(night, "upsert", "request_import", "upload_import")) == {"request_import", "upload_import"}
    assert show_delivery(night.ledger, RUN)["method"] == "csv_import"


def test_the_method_of_a_plan_that_was_begun_stays(night):
    freeze(night.delivery, method="contacts")
    freeze(night.delivery, method="csv_import")
    assert night.ledger.method(RUN) == "csv_import"  # the same plan, of which nothing was pushed
    push_chunk(night.delivery, 0)
    night.ledger.freeze_plan(RUN, "another", {}, [ChunkPlan(0, 0, 0, 1, 0.0)], method="contacts")
    assert night.ledger.method(RUN) == "csv_import"
    push_chunk(night.delivery, 1)
    assert calls(night, "upsert") == []


# Two calls a file


def test_a_file_that_is_taken_up_again_is_the_same_bytes(base, tmp_path, ledger):
    whole = Night(base, tmp_path / "whole", ledger, method="csv_import")
    whole.run()
    for last in ("request_import was acted upon", "upload_import was acted upon"):
        night = Night(base, tmp_path / last, ledger, method="csv_import", die_at=whole.points.index(last))
        with pytest.raises(Death):
            night.steps()
        push_chunk(night.delivery, 0)
        sent = [body for _, body in night.provider.upserts]
        assert sent.count(sent[0]) == (2 if last.startswith("upload") else 1)
        assert len(calls(night, "request_import")) == len(set(sent)) + 1


def test_an_upload_that_nobody_answered_goes_to_another_place(night, monkeypatch):
    upload, failed = night.provider.upload_import, []

    def unheard(place, parts, size):
        upload(place, parts, size)
        if not failed:
            failed.append(place.job_id)
            raise RetryableMailError("no answer")

    monkeypatch.setattr(night.provider, "upload_import", unheard)
    ends_well(night)
    assert failed
    bodies = [body for _, body in night.provider.upserts]
    assert bodies[0] == bodies[1]
    assert night.provider.jobs[failed[0]].status == "completed"  # it was acted upon all the same
    history = [call for call in night.delivery.book.history() if call["operation"].endswith("_import")]
    assert [(call["operation"], call["outcome"]) for call in history[:4]] == [
        ("request_import", "ok"), ("upload_import", "unknown"), ("request_import", "ok"), ("upload_import", "ok"),
    ]  # fmt: skip
    assert len({call["detail"] for call in history if call["operation"] == "request_import"}) == len(bodies)


def test_each_call_of_a_file_keeps_the_pace(night):
    push_all(night)
    instants = [at for at, name in night.provider.calls if name in ("request_import", "upload_import")]
    assert len(instants) >= 8
    rate = CAMPAIGN.push.requests_per_second
    assert all(later - earlier >= 1 / rate for earlier, later in itertools.pairwise(instants))


# Signs of life


def test_a_worker_that_is_replaced_during_its_upload_stops_in_the_middle(night, monkeypatch):
    monkeypatch.setattr(csv_file, "_PART_BYTES", 20)
    upload, heard = night.provider.upload_import, []

    def slow(place, parts, size):
        if heard:
            return upload(place, parts, size)
        heard.append(next(iter(parts)))
        night.time.sleep(60.0)
        night.steps()
        night.sent_meanwhile = len(night.provider.upserts)
        heard.extend(parts)
        raise AssertionError("the upload went on to its end")

    monkeypatch.setattr(night.provider, "upload_import", slow)
    freeze(night.delivery, method="csv_import")
    with pytest.raises(GateError, match="was replaced"):
        push_chunk(night.delivery, 0)
    assert len(heard) == 1
    night.time.sleep(60)
    night.provider._advance()
    assert night.differences() == []
    assert len(night.provider.upserts) == night.sent_meanwhile > 0


def test_a_worker_that_packs_for_long_gives_signs_of_life(night, monkeypatch):
    write, beats = carriers.write_file, []

    def slow(header, render, rows, *, between):
        for _ in range(10):
            night.time.sleep(3.0)
            between()
            beats.append(night.ledger.holder(RUN, 0).beats)
        return write(header, render, rows, between=between)

    monkeypatch.setattr(carriers, "write_file", slow)
    freeze(night.delivery, method="csv_import")
    push_chunk(night.delivery, 0)
    assert len(beats) >= 20
    assert len(set(beats)) == len(beats)


# What the provider does not take


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_refused_rows_are_quarantined_alone(base, tmp_path, ledger, seed):
    faults = NO_FAULTS if seed is None else some_faults(seed)
    night = Night(base, tmp_path / "lake", ledger, faults=faults, method="csv_import")
    night.provider.poisoned = {address("user-00"), address("user-03")}
    ends_well(night)
    receipts = night.lake.read(night.lake.manifest(Partition("receipts", RUN.send_date, "spring"))).to_pylist()
    reasons = {row["user_id"]: row["reason"] for row in receipts if row["outcome"] == "quarantined"}
    assert reasons == {"user-00": "refused_import", "user-03": "refused_import"}


def test_an_import_that_is_refused_is_not_taken_apart(night, monkeypatch):
    """Its request names lists and fields, and no row: halves of it would be refused as well."""

    def refuse(field_ids, list_ids):
        night.provider.calls.append((0, "request_import"))
        raise BadContentMailError("400: no such list")

    monkeypatch.setattr(night.provider, "request_import", refuse)
    freeze(night.delivery, method="csv_import")
    with pytest.raises(RejectedMailError, match="no such list"):
        push_chunk(night.delivery, 0)
    assert len(calls(night, "request_import")) == 1


def test_a_file_that_was_read_in_another_way_is_not_taken_for_stored(night, monkeypatch):
    """An import that says that it is completed, of fewer rows than there are."""
    look = night.provider.import_job
    monkeypatch.setattr(night.provider, "import_job", lambda job: replace(look(job), requested=1))
    freeze(night.delivery, method="csv_import")
    with pytest.raises(MailError, match=r"failed 5 times \(completed, 1 of 2 contacts read, 0 refused\)"):
        push_chunk(night.delivery, 0)
    assert night.ledger.holder(RUN, 0).state == "released"


# What a provider may make of empty cells


@pytest.mark.parametrize("method", ["contacts", "csv_import"])
def test_an_item_of_yesterday_in_a_slot_that_is_empty_stops_the_send(base, tmp_path, ledger, method):
    night = Night(base, tmp_path / "lake", ledger, method=method)
    push_all(night)
    short = [user for user, (action, items) in PLAN.items() if action == "upsert" and len(items) == 1]
    assert short
    title = night.provider.fields["ryml_2_title"]
    held = night.provider.contacts[address(short[0])]
    held[title] = "yesterday's"
    with pytest.raises(GateError, match=r"^1 of "):
        reconcile(night.delivery)
    held[title] = "-"
    assert reconcile(night.delivery)["contacts_read_back"] > 1
