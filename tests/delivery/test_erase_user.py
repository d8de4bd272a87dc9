"""Erased people never come back: not as a contact, in no plan, mirror or mail, also if the shop exports them again."""

import datetime as dt
import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from small_night import DATE, PLAN, RUN, Night, PointedLedger, address, base_lake, small_requests, write
from test_delta import TOMORROW, send_tomorrow

from jobs.delivery.people_book import erased
from jobs.delivery.sendgrid_account import ADDRESSES_PER_ERASURE, ERASURE_BYTES
from jobs.erase_user import _erasures, erase, read_addresses
from jobs.fold_profiles import _fold_bucket
from jobs.profiles.fold import Caps
from schemas.errors import ConfigError, MailError
from schemas.layout import Partition
from schemas.tables import EVENTS

ROOT = Path(__file__).resolve().parents[2]
GONE = "user-00"  # mailed every night of the small shop


@pytest.fixture
def night(tmp_path, monkeypatch):
    small_requests(monkeypatch)
    return Night(base_lake(tmp_path), tmp_path / "night", PointedLedger())


def test_who_is_erased_is_in_no_later_plan_mirror_or_mail_although_the_shop_exports_them_again(night):
    night.run()
    assert address(GONE) in next(iter(night.provider.mails.values()))
    result = erase(night.delivery, read_addresses([address(GONE).upper() + "\n", "\n"]))
    assert result == {"rows": 1, "user_ids": 1, "contacts_deleted": 1}
    assert address(GONE) not in night.provider.contacts
    assert night.provider.erased == [address(GONE)]
    send_tomorrow(night)  # its users table has everybody, GONE among them
    reasons = rows(night, "chunks", TOMORROW, "reason")
    assert reasons[GONE] == "erased"
    assert set(PLAN) <= set(reasons)
    assert GONE not in rows(night, "mirror", TOMORROW, "send_date")
    assert GONE in rows(night, "mirror", DATE, "send_date")
    assert address(GONE) not in night.provider.contacts
    assert address(GONE) not in list(night.provider.mails.values())[-1]
    assert len(list(night.provider.mails.values())[-1]) >= 4


def test_another_address_of_the_same_account_is_erased_too_and_nobody_else(night):
    erase(night.delivery, [address(GONE)])
    gone = erased(night.ledger)
    ids = pa.array([GONE, GONE, "user-01"])
    others = pa.array(["new@example.com", None, address("user-01")])
    assert gone.has(ids, others).tolist() == [True, True, False]
    assert gone.has(pa.array(["user-77"]), pa.array([address(GONE)])).tolist() == [True]


def test_the_tombstone_is_there_before_the_provider_is_asked(night):
    def down(addresses):
        raise MailError("down")

    night.provider.contacts_by_email = down
    with pytest.raises(MailError):
        erase(night.delivery, [address(GONE)])
    assert len(erased(night.ledger)) == 2


def test_contacts_that_stay_are_an_error_that_says_so(night):
    night.run()
    night.provider.delete_contacts = lambda ids: None
    with pytest.raises(MailError, match="1 contacts are still at the provider"):
        erase(night.delivery, [address(GONE)])


def test_parts_respect_the_documented_limits():
    short, long = [f"{n}@e.de" for n in range(12_001)], [f"{'é' * 60}{n}@example.com" for n in range(5_000)]
    assert [len(part) for part in _erasures(short)] == [5_000, 5_000, 2_001]
    for people in (short, long):
        parts = list(_erasures(people))
        assert [one for part in parts for one in part] == people
        assert max(map(len, parts)) <= ADDRESSES_PER_ERASURE
        bodies = [json.dumps({"email_addresses": part}, ensure_ascii=False, separators=(",", ":")) for part in parts]
        assert max(len(body.encode()) for body in bodies) <= ERASURE_BYTES
    assert len(list(_erasures(long))) == 3


def test_an_erased_persons_profile_is_not_carried_on(night):
    at = dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC)
    events = [
        {"user_id": user, "item_id": "001", "event_type": "view", "quantity": 1, "occurred_at": at}
        for user in sorted(PLAN)
    ]
    day = write(night.lake, Partition("events", DATE), pa.Table.from_pylist(events, schema=EVENTS.schema))
    erase(night.delivery, [address(GONE)])

    def folded(gone):
        attempt, users = night.lake.attempt(Partition("profiles", DATE), "test"), []
        for bucket in range(night.lake.buckets):
            entry, _ = _fold_bucket(attempt, None, day, [], Caps(views=10, states=10), gone, bucket)
            users += attempt.read(entry)["user_id"].to_pylist()
        return set(users)

    assert folded(None) - folded(erased(night.ledger)) == {GONE}


@pytest.mark.parametrize("text", ["", "\n \n", "ann", "ann@example.com\nbob, eve@example.com", "a@b@c"])
def test_what_is_no_address_erases_nobody_and_is_not_repeated(text):
    with pytest.raises(ConfigError) as error:
        read_addresses(io.StringIO(text))
    assert "example" not in str(error.value)


def test_the_command_takes_addresses_from_standard_input_over_the_real_api(tmp_path, rehearsal_server):
    base = base_lake(tmp_path)
    campaign = tmp_path / "spring.toml"
    campaign.write_text('title = "S"\n[mail]\nsubject = "S"\nsuppression_group = "S"\n', encoding="utf-8")
    with rehearsal_server.http() as api:
        api.put("/v3/marketing/contacts", json={"contacts": [{"email": address(GONE)}, {"email": "x@example.com"}]})
    rehearsal_server.wait_until_idle()
    connection = {"conn_type": "http", "host": rehearsal_server.host, "password": rehearsal_server.api_key}
    done = subprocess.run(
        [
            sys.executable, "-m", "jobs.erase_user", "--lake", base, "--date", DATE.isoformat(), "--run-id", "by-hand",
            "--campaign", campaign, "--ledger", f"sqlite:///{tmp_path}/ledger.db",
        ],
        input=address(GONE), capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
        env={**os.environ, "AIRFLOW_CONN_SENDGRID_DEFAULT": json.dumps(connection)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rows": 1, "user_ids": 1, "contacts_deleted": 1}
    rehearsal_server.wait_until_idle()
    assert rehearsal_server.provider.contacts.count() == 1
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        dump = "\n".join(connection.iterdump())
    assert address(GONE) not in dump + done.stdout + done.stderr
    assert GONE not in dump
    assert dump.count('INSERT INTO "tombstones"') == 2


def rows(night, table, date, column):
    found = night.lake.read(night.lake.manifest(Partition(table, date, RUN.campaign))).to_pylist()
    return {row["user_id"]: row[column] for row in found}
