"""Plain bodies are a shorter way to the same end: whatever is asked, contacts are as if each row had been read."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.rehearsal.behaviour import CLEARING, Behaviour, Clearing
from jobs.rehearsal.bodies import PlainIntake, PlainReader
from jobs.rehearsal.clock import Clock
from jobs.rehearsal.faults import FaultSettings
from jobs.rehearsal.limits import ApiError
from jobs.rehearsal.state import Rehearsal

NOW = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
TYPES = {"e1_T": "Text", "e2_T": "Text", "e3_N": "Number", "e4_D": "Date"}
# Each breaks one rule, or is just not plain.
ODD = (
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"x"},"first_name":"A"}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e9_T":"x"}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":null}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":7}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"%s"}}]}' % (b"x" * 1001),
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"\\ud800"}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"\xff"}}]}',
    b'{"contacts":[{"email":"not an address","custom_fields":{"e1_T":"x"}}]}',
    b'{"contacts":[{"email":"a@example.com\\nb@example.com","custom_fields":{"e1_T":"x"}}]}',
    b'{"contacts":[{"email":" a@example.com","custom_fields":{"e1_T":"x"}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e3_N":1}}]}',
    b'{"contacts":[{"custom_fields":{"e1_T":"x"}}]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"x"}}],"x":1}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"x"}},{"email":"b@example.com"}]}',
    b'{"contacts":[]}',
    b'{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"x"}}],"list_ids":null}',
    b"[]",
    b"",
)


def plain(body: bytes, clearing: Clearing = "null_refused") -> PlainIntake | None:
    return PlainReader().read(body, TYPES, clearing)


def test_what_a_push_sends_is_plain() -> None:
    contact = b'{"email":"Ann@Example.com","custom_fields":{"e2_T":"","e1_T":"\xc3\xa9"}}'
    body = b'{"list_ids":["x","x"],"contacts":[%s]}' % contact
    intake = plain(body)
    assert intake is not None
    assert (intake.list_ids, list(intake.emails), intake.keys, intake.requested) == (
        ("x",), ["ann@example.com"], ("e1_T", "e2_T"), 1,
    )  # fmt: skip
    assert plain(body, "empty_ignored") is None
    reader = PlainReader()
    assert reader.read(body, TYPES, "null_refused")
    assert reader.read(body, {"e1_T": "Text"}, "null_refused") is None  # a field that was deleted meanwhile


@pytest.mark.parametrize("body", ODD)
def test_what_is_odd_is_read_row_by_row(body: bytes) -> None:
    assert plain(body) is None


ADDRESSES = st.sampled_from([f"user{number}@example.com" for number in range(6)] + ["User0@Example.COM"])
TEXTS = st.sampled_from(["", "one", "two", 'q"uote', "b\\s", "ü", "x" * 1001, None])
CONTACT = st.fixed_dictionaries(
    {"email": ADDRESSES}, optional={"first_name": st.sampled_from(["A", "B"]), "external_id": st.just("E1")}
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly what a push sends: the same fields for everybody; now and then anything."""
    fields = draw(st.sampled_from([("e1_T",), ("e1_T", "e2_T"), ("e2_T", "e1_T"), ("e2_T",)]))
    contacts = []
    is_plain = draw(st.integers(0, 3)) > 0
    for _ in range(draw(st.integers(1, 5))):
        contact = {"email": draw(ADDRESSES)} if is_plain else draw(CONTACT)
        values = st.sampled_from(["", "one", "two", "ü"]) if is_plain else TEXTS
        contact["custom_fields"] = {field: draw(values) for field in fields}
        contacts.append(contact)
    return {"contacts": contacts, "list_ids": ["one"] if draw(st.booleans()) else []}


FAULTS = FaultSettings(errored_job=0.2, errored_share=0.3, failed_job=0.1)


def play(
    path: Path, asked: list[dict[str, Any]], behaviour: Behaviour, faults: FaultSettings, *, is_plain_read: bool
) -> tuple[Any, int]:
    """Ask a provider one request after the other; give all that can be seen of it, and how many bodies it stored."""
    clock = Clock(lambda: NOW)
    provider = Rehearsal(path, job_lag_seconds=0, clock=clock, faults=faults)
    provider.behaviour = behaviour
    try:
        for name in ("title", "url"):
            provider.fields.create({"name": name, "field_type": "Text"})
        one = provider.lists.create({"name": "one"})["id"]
        if not is_plain_read:
            provider.imports._plain.read = lambda *_: None  # type: ignore[method-assign]
        seen: list[Any] = []
        for number, payload in enumerate(asked):
            payload = {**payload, "list_ids": [one] if payload["list_ids"] else []}
            body = json.dumps(payload, ensure_ascii=False).encode()
            try:
                intake = provider.imports.read(body, provider.fields.types())
                job = provider.imports.queue(intake, clock(), f"{number}")
            except ApiError as error:
                seen.append(error.body())
                continue
            while provider.work_once():
                pass
            status = provider.imports.status(job, lambda job_id: job_id)
            seen.append((status, provider.imports.errors_csv(job)))
            addresses = [f"user{number}@example.com" for number in range(6)]
            try:
                found = provider.contacts.by_email(addresses, provider.fields.names(), clock())
                for entry in found.values():
                    entry.get("contact", {}).pop("id", None)
                seen.append(found)
            except ApiError as error:
                seen.append(error.status)
            seen.append((provider.contacts.count(), provider.lists.get(one, clock())))
        return seen, int(provider.database.value("SELECT count(*) FROM bodies"))
    finally:
        provider.database.close()
        provider.history.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(asked=st.lists(requests(), min_size=1, max_size=8), clearing=st.sampled_from(CLEARING))
def test_contacts_are_as_if_each_row_had_been_read(
    tmp_path_factory: pytest.TempPathFactory, asked: list[dict[str, Any]], clearing: Clearing
) -> None:
    folder = tmp_path_factory.mktemp("providers")
    behaviour = Behaviour(clearing=clearing, contact_limit=5)
    fast, _ = play(folder / "plain", asked, behaviour, FAULTS, is_plain_read=True)
    slow, bodies = play(folder / "rows", asked, behaviour, FAULTS, is_plain_read=False)
    assert bodies == 0
    assert fast == slow


def test_both_ways_are_taken(tmp_path: Path) -> None:
    asked = [
        {
            "list_ids": ["one"],
            "contacts": [{"email": f"user{n}@example.com", "custom_fields": fields} for n in range(3)],
        }
        for fields in ({"e1_T": "a", "e2_T": "b"}, {"e2_T": "c"}, {"e1_T": "d", "e2_T": "e"}, {"e1_T": None})
    ]
    seen, bodies = play(tmp_path / "s", asked, Behaviour(clearing="null_clears"), FaultSettings(), is_plain_read=True)
    assert bodies == 3
    found = [entry for entry in seen if isinstance(entry, dict) and "user1@example.com" in entry]
    contacts = [entry["user1@example.com"]["contact"]["custom_fields"] for entry in found]
    assert contacts == [
        {"title": "a", "url": "b"}, {"title": "a", "url": "c"}, {"title": "d", "url": "e"}, {"url": "e"},
    ]  # fmt: skip
