import datetime as dt
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.rehearsal.intake import read_upsert
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.state import Rehearsal

START = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(tmp_path: Path, clock: Clock) -> Iterator[Rehearsal]:
    """A provider without its thread: what is due is done when a test says so."""
    provider = Rehearsal(tmp_path / "s.sqlite", job_lag_seconds=1, clock=clock)
    provider.fields.create({"name": "title", "field_type": "Text"})
    provider.suppressions.create_group({"name": "Picks", "description": "Picks"})
    yield provider
    provider.stop()


def push(shop: Rehearsal, list_id: str | None, *addresses: str, title: str = "one") -> None:
    contacts = [{"email": address, "custom_fields": {"e1_T": title}} for address in addresses]
    payload = {"list_ids": [list_id] if list_id else [], "contacts": contacts}
    shop.imports.queue(read_upsert(payload, shop.fields.types()), shop.clock())


def work(shop: Rehearsal) -> int:
    done = 0
    while shop.work_once():
        done += 1
    return done


def settle(shop: Rehearsal, clock: Clock) -> None:
    clock.pass_seconds(1)
    assert work(shop)


def draft(shop: Rehearsal, *list_ids: str, **config: Any) -> str:
    email_config = {
        "subject": "Picks", "html_content": "<p>{{title}}</p>", "suppression_group_id": 1, "sender_id": 1, **config,
    }  # fmt: skip
    payload = {"name": "books", "send_to": {"list_ids": list(list_ids)}, "email_config": email_config}
    return str(shop.single_sends.create(payload, shop.clock())["id"])


def status(shop: Rehearsal, send: str) -> str:
    return str(shop.single_sends.get(send)["status"])


def mailed(shop: Rehearsal) -> list[tuple[str, str]]:
    return [(row["email"], row["fields"]) for row in shop.database.rows("SELECT * FROM mails ORDER BY mail")]


def new_list(shop: Rehearsal, name: str = "all") -> str:
    return str(shop.lists.create({"name": name})["id"])


NOW = {"send_at": "now"}


def test_a_draft_never_sends_even_with_a_time(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com")
    settle(shop, clock)
    send = draft(shop, everyone)
    shop.single_sends.change(send, {"send_at": "2026-01-05T09:00:01Z"}, clock())
    clock.pass_seconds(86_400)
    assert work(shop) == 0
    assert (status(shop, send), mailed(shop)) == ("draft", [])


def test_a_send_mails_exactly_its_lists_once_each_as_they_are_at_that_instant(shop: Rehearsal, clock: Clock) -> None:
    first, second = new_list(shop, "first"), new_list(shop, "second")
    push(shop, first, "a@example.com", "b@example.com")
    push(shop, second, "b@example.com", "c@example.com", title="two")
    push(shop, None, "outside@example.com")
    settle(shop, clock)
    send = draft(shop, first, second)
    assert shop.single_sends.schedule(send, NOW, clock()) == {"send_at": "2026-01-05T09:00:01Z", "status": "scheduled"}
    assert (status(shop, send), mailed(shop)) == ("scheduled", [])
    push(shop, first, "a@example.com", "late@example.com", title="three")  # accepted, not applied: too late
    assert work(shop) == 1
    expected = [
        ("a@example.com", '{"e1_T":"one"}'),
        ("b@example.com", '{"e1_T":"two"}'),
        ("c@example.com", '{"e1_T":"two"}'),
    ]
    assert (status(shop, send), mailed(shop)) == ("triggered", expected)
    settle(shop, clock)
    assert mailed(shop) == expected
    with pytest.raises(ApiError, match="triggered already"):
        shop.single_sends.schedule(send, NOW, clock())
    clock.pass_seconds(86_400)
    assert work(shop) == 0
    assert len(mailed(shop)) == 3


def test_a_send_before_its_imports_mails_yesterdays_contacts(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com", title="yesterday")
    settle(shop, clock)
    push(shop, everyone, "a@example.com", title="today")
    clock.pass_seconds(1)  # both are due now
    shop.single_sends.schedule(draft(shop, everyone), NOW, clock())
    work(shop)
    assert mailed(shop) == [("a@example.com", '{"e1_T":"yesterday"}')]


def test_suppressed_people_are_dropped_and_counted(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    kinds = ("bounces", "invalid_emails", "spam_reports", "unsubscribes", "group_unsubscribes")
    push(
        shop,
        everyone,
        *(f"{kind}@example.com" for kind in kinds),
        "blocks@example.com",
        "other@example.com",
        "ok@example.com",
    )
    settle(shop, clock)
    shop.suppressions.create_group({"name": "Other", "description": "Other"})
    at = int(clock().timestamp())
    for kind in kinds:
        shop.suppressions.add(kind, [f"{kind}@Example.com"], at, group=1 if kind == "group_unsubscribes" else 0)
    shop.suppressions.add("spam_reports", ["bounces@example.com", "stranger@example.com"], at)
    shop.suppressions.add("blocks", ["blocks@example.com"], at)
    shop.suppressions.add("group_unsubscribes", ["other@example.com"], at, group=2)
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, NOW, clock())
    work(shop)
    assert {address for address, _ in mailed(shop)} == {"ok@example.com", "blocks@example.com", "other@example.com"}
    counts = shop.single_sends.stats(send)[0]["stats"]
    assert (counts["requests"], counts["delivered"], counts["unsubscribes"]) == (8, 3, 0)
    assert (counts["bounce_drops"], counts["invalid_emails"], counts["spam_report_drops"]) == (1, 1, 1)
    shop.suppressions.add("group_unsubscribes", ["ok@example.com"], at + 5, group=1)
    assert shop.single_sends.stats(send)[0]["stats"]["unsubscribes"] == 1


def test_a_later_time_is_kept_and_can_be_taken_back(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com")
    settle(shop, clock)
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, {"send_at": "2026-01-05T12:00:00+01:00"}, clock())
    clock.pass_seconds(7190)
    assert work(shop) == 0
    assert shop.single_sends.get(send)["send_at"] == "2026-01-05T11:00:00Z"
    assert shop.single_sends.unschedule(send, clock())["status"] == "draft"
    clock.pass_seconds(60)
    assert (work(shop), mailed(shop)) == (0, [])
    with pytest.raises(ApiError, match="not scheduled"):
        shop.single_sends.unschedule(send, clock())
    shop.single_sends.schedule(send, NOW, clock())
    assert (work(shop), len(mailed(shop))) == (1, 1)


def test_a_send_that_is_triggered_while_it_is_scheduled_again_stays_triggered(
    shop: Rehearsal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com")
    settle(shop, clock)
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, NOW, clock())

    def trigger_in_between(row: sqlite3.Row) -> list[Problem]:
        assert work(shop) == 1
        return []

    monkeypatch.setattr(shop.single_sends, "_missing", trigger_in_between)
    with pytest.raises(ApiError, match="triggered already"):
        shop.single_sends.schedule(send, NOW, clock())
    assert (status(shop, send), len(mailed(shop))) == ("triggered", 1)


def test_an_empty_or_deleted_list_mails_nobody(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com")
    settle(shop, clock)
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, {"send_at": "2026-01-05T10:00:00Z"}, clock())
    shop.lists.delete(everyone)
    clock.pass_seconds(3600)
    work(shop)
    assert (status(shop, send), mailed(shop)) == ("triggered", [])


def test_a_deleted_single_send_does_not_send(shop: Rehearsal, clock: Clock) -> None:
    everyone = new_list(shop)
    push(shop, everyone, "a@example.com")
    settle(shop, clock)
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, NOW, clock())
    shop.single_sends.delete(send)
    assert (work(shop), mailed(shop)) == (0, [])
    with pytest.raises(ApiError):
        shop.single_sends.get(send)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"send_to": {"list_ids": []}}, "at least one list"),
        ({"send_to": {"list_ids": ["00000000-0000-4000-8000-000000000000"]}}, "does not exist"),
        ({"email_config": {"subject": ""}}, "subject is required"),
        ({"email_config": {"html_content": ""}}, "html_content is required"),
        ({"email_config": {"sender_id": None}}, "sender_id is required"),
        ({"email_config": {"suppression_group_id": None}}, "custom_unsubscribe_url is required"),
        ({"email_config": {"suppression_group_id": 9}}, "suppression group does not exist"),
    ],
)
def test_what_a_draft_lacks_is_said_when_it_is_scheduled(
    shop: Rehearsal, clock: Clock, change: dict[str, Any], words: str
) -> None:
    send = draft(shop, new_list(shop))
    shop.single_sends.change(send, change, clock())
    with pytest.raises(ApiError, match=words):
        shop.single_sends.schedule(send, NOW, clock())
    assert status(shop, send) == "draft"


@pytest.mark.parametrize("send_at", ["2026-01-05T08:59:59Z", "2026-01-05T10:00:00", "tomorrow", None, 5])
def test_a_time_that_is_none_is_refused(shop: Rehearsal, clock: Clock, send_at: Any) -> None:
    send = draft(shop, new_list(shop))
    with pytest.raises(ApiError, match="send_at"):
        shop.single_sends.schedule(send, {"send_at": send_at}, clock())


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"name": ""}, "1 to 100"),
        ({"name": "x" * 101}, "1 to 100"),
        ({}, "1 to 100"),
        ({"name": "x", "categories": ["c"] * 11}, "categories"),
        ({"name": "x", "send_to": {"list_ids": ["l"] * 51}}, "50 lists"),
        ({"name": "x", "email_config": {"html_content": "{{#each}}"}}, "html_content: line 1"),
        ({"name": "x", "email_config": {"subject": 5}}, "wrong type"),
        ({"name": "x", "email_config": {"sender_id": True}}, "wrong type"),
        ({"name": "x", "email_config": {"design_id": "d"}}, "not part of"),
        ([], "JSON object"),
    ],
)
def test_a_draft_that_may_not_be_is_refused(shop: Rehearsal, clock: Clock, payload: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words):
        shop.single_sends.create(payload, clock())


def test_searching_matches_anywhere_in_the_name(shop: Rehearsal, clock: Clock) -> None:
    for name in ("books 2026-01-05", "old Books 2026-01-05 (copy)", "toys 100%", "toys 100"):
        shop.single_sends.create({"name": name, "categories": [name[:4]]}, clock())

    def found(name: str | None, **filters: Any) -> list[str]:
        wanted = {"statuses": ("draft",), "categories": (), **filters}
        page, count = shop.single_sends.page(name=name, offset=0, size=100, now=clock(), **wanted)
        assert len(page) == count
        return [entry["name"] for entry in page]

    assert found("BOOKS 2026-01-05") == ["old Books 2026-01-05 (copy)", "books 2026-01-05"]
    assert found("100%") == ["toys 100%"]  # no wildcard of SQL's
    assert found("_") == []
    assert len(found(None)) == 4
    assert found(None, categories=("toys", "x")) == ["toys 100", "toys 100%"]
    assert found(None, statuses=("triggered",)) == []
    page, count = shop.single_sends.page(name=None, statuses=("draft",), categories=(), offset=3, size=2, now=clock())
    assert ([entry["name"] for entry in page], count) == (["books 2026-01-05"], 4)


def test_a_send_that_is_broken_off_is_done_once_by_the_next_server(tmp_path: Path, clock: Clock) -> None:
    shop = Rehearsal(tmp_path / "s.sqlite", job_lag_seconds=0, clock=clock)
    shop.fields.create({"name": "title", "field_type": "Text"})
    shop.suppressions.create_group({"name": "Picks", "description": "Picks"})
    everyone = new_list(shop)
    push(shop, everyone, *(f"{number}@example.com" for number in range(500)))
    assert work(shop) == 1
    send = draft(shop, everyone)
    shop.single_sends.schedule(send, NOW, clock())
    with shop.database.write() as connection:  # fails after the mails are in, before the status is
        connection.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON single_sends WHEN new.status = 'triggered' "
            "BEGIN SELECT raise(ABORT, 'full'); END"
        )
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        shop.work_once()
    assert (status(shop, send), mailed(shop)) == ("scheduled", [])
    with shop.database.write() as connection:
        connection.execute("DROP TRIGGER broken")
    shop.stop()
    again = Rehearsal(tmp_path / "s.sqlite", job_lag_seconds=0, clock=clock)
    assert status(again, send) == "scheduled"
    assert work(again) == 1
    assert len(mailed(again)) == len(set(mailed(again))) == 500
    again.stop()
