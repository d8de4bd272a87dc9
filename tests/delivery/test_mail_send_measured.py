"""Measuring a send of Mail Send: by its receipts, as they are after events have settled them; from when mails left."""

import dataclasses
import datetime as dt

import pyarrow as pa
import pytest
from mail_night import DEADLINE_MINUTES, ERASED, UPSERTS, MailNight, users_of
from small_night import DATE, PLAN, write

from jobs import measure_campaign
from jobs.delivery.run_context import Delivery
from jobs.lake.lake import Lake
from schemas.errors import RetryableMailError
from schemas.layout import Partition
from schemas.mail_send import HOLD_MINUTES
from schemas.tables import EVENTS, FUNNEL

pytestmark = pytest.mark.usefixtures("small", "small_mails")


@pytest.fixture
def measure(monkeypatch, tmp_path):
    def run(night):
        opened = dataclasses.replace(night.delivery, run_id="measure")
        monkeypatch.setattr(Delivery, "open", lambda **options: opened)
        return measure_campaign.main(lake="", date=DATE, run_id="x", campaign=tmp_path, ledger="", provider=None)

    return run


def test_a_send_of_mails_is_measured_by_its_receipts(mail_base, tmp_path, ledger, measure):
    night = MailNight(mail_base, tmp_path / "lake", ledger)
    night.run()
    found = measure(night)
    assert found["mails_delivered"] == found["recipients"] == len(UPSERTS) - 1
    assert (found["mails_withheld"], found["mails_unknown"]) == (1, 0)
    assert found["users_planned_upsert"] == len(UPSERTS)
    assert not any(name.startswith(("contacts_", "mail_")) for name in found)
    rows = Lake.open(str(tmp_path / "lake")).read(night.lake.manifest(Partition(FUNNEL.name, DATE, "spring")))
    assert "mails_unknown" in rows["measure"].to_pylist()
    assert ERASED in UPSERTS


def test_who_turns_out_as_not_sent_is_no_recipient(mail_base, tmp_path, ledger, measure):
    """Unknown counts as mailed until events say otherwise; what is delivered, shown and followed is what is known."""
    night = MailNight(mail_base, tmp_path / "lake", ledger)
    real = night.provider.send_mails

    def lost_once(content):
        night.provider.send_mails = real
        raise RetryableMailError("the connection was cut before anything arrived")

    night.provider.send_mails = lost_once
    night.run()
    lost = len(users_of(night.lake, "unknown"))
    before = measure(night)
    assert 1 <= lost <= 2  # the mails of one request
    assert (before["mails_unknown"], before["recipients"]) == (lost, before["mails_delivered"] + lost)
    night.settle(tmp_path / "events")
    after = measure(night)
    assert (after["mails_unknown"], after["mails_not_sent"]) == (0, lost)
    assert after["recipients"] == after["mails_delivered"] == len(night.provider.mails_per_address)
    assert night.ledger.send(night.delivery.run)[2] == before["recipients"]  # the ledger keeps what was released
    assert after["mean_list_length"] == before["mean_list_length"] > 0  # unknown lists were not counted as shown


@pytest.mark.parametrize("minutes", [-1, 1])
def test_what_was_bought_before_the_mails_left_does_not_follow_them(mail_base, tmp_path, ledger, measure, minutes):
    """They leave an hour after the campaign's hour: purchases within it were counted."""
    night = MailNight(mail_base, tmp_path / "lake", ledger)
    night.run()
    leaves_at = dt.datetime(2026, 11, 3, 8, tzinfo=dt.UTC) + dt.timedelta(minutes=DEADLINE_MINUTES + HOLD_MINUTES)
    assert night.send_at == leaves_at
    buyer = next(user for user in UPSERTS if user != ERASED)
    bought = {
        "user_id": buyer, "item_id": f"{PLAN[buyer][1][0]:03}", "event_type": "purchase", "quantity": 1, "price": None,
        "occurred_at": leaves_at + dt.timedelta(minutes=minutes),
    }  # fmt: skip
    write(night.lake, Partition("events", DATE + dt.timedelta(days=1)), pa.Table.from_pylist([bought], EVENTS.schema))
    found = measure(night)
    assert (found["follow_up_buyers"], found["follow_up_purchases"]) == ((0, 0) if minutes < 0 else (1, 1))
