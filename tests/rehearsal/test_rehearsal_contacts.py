import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rehearsal_fixture import RehearsalServer, serve

from jobs.rehearsal import limits

URL = "/v3/marketing/contacts"


@pytest.fixture
def api(rehearsal_server: RehearsalServer) -> Iterator[httpx.Client]:
    with rehearsal_server.http() as client:
        for name, kind in (("title", "Text"), ("price", "Number"), ("seen_on", "Date"), ("other", "Text")):
            answer = client.post("/v3/marketing/field_definitions", json={"name": name, "field_type": kind})
            assert answer.status_code == 200, answer.text
        yield client


TITLE, PRICE, SEEN_ON, OTHER = "e1_T", "e2_N", "e3_D", "e4_T"


def put(api: httpx.Client, *contacts: dict[str, Any], list_ids: list[str] | None = None) -> dict[str, Any]:
    """Upsert and wait for the end of the job; give its status and results in one."""
    answer = api.put(URL, json={"list_ids": list_ids or [], "contacts": list(contacts)})
    assert answer.status_code == 202, answer.text
    return finished(api, answer.json()["job_id"])


def finished(api: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while (job := api.get(f"{URL}/imports/{job_id}").json())["status"] == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return {**job["results"], "status": job["status"]}


def refusal(api: httpx.Client, payload: Any, status: int = 400) -> list[str]:
    answer = api.put(URL, json=payload)
    assert answer.status_code == status, answer.text
    return [error["message"] for error in answer.json()["errors"]]


def look(api: httpx.Client, *addresses: str) -> dict[str, Any]:
    answer = api.post(f"{URL}/search/emails", json={"emails": list(addresses)})
    return answer.json()["result"] if answer.status_code == 200 else {}


def test_accepted_is_not_applied(tmp_path: Path) -> None:
    with serve(tmp_path / "s.sqlite", job_lag_seconds=30) as served, served.http() as api:
        job_id = api.put(URL, json={"contacts": [{"email": "a@example.com"}]}).json()["job_id"]
        job = api.get(f"{URL}/imports/{job_id}").json()
        assert (job["status"], job["results"]["created_count"]) == ("pending", 0)
        assert look(api, "a@example.com") == {}
        api.post("/_rehearsal/clock", json={"advance_seconds": 30})
        assert finished(api, job_id)["created_count"] == 1
        assert "a@example.com" in look(api, "a@example.com")


def test_a_job_outlives_its_server(tmp_path: Path) -> None:
    with serve(tmp_path / "s.sqlite", job_lag_seconds=30) as served, served.http() as api:
        job_id = api.put(URL, json={"contacts": [{"email": "a@example.com"}]}).json()["job_id"]
    with serve(tmp_path / "s.sqlite", job_lag_seconds=0) as served, served.http() as api:
        with served.provider.database.write() as connection:
            connection.execute("UPDATE jobs SET due_at = 0")
        served.provider.wake()
        assert finished(api, job_id)["created_count"] == 1


def test_what_is_omitted_stays_and_what_is_given_replaces(api: httpx.Client) -> None:
    put(api, {"email": "Ann@Example.com", "first_name": "Ann", "custom_fields": {TITLE: "old", OTHER: "kept"}})
    job = put(api, {"email": "ANN@example.COM", "city": "Oslo", "custom_fields": {TITLE: ""}})
    assert (job["created_count"], job["updated_count"]) == (0, 1)
    contact = look(api, "ann@EXAMPLE.com")["ann@example.com"]["contact"]
    assert contact["email"] == "ann@example.com"
    assert contact["custom_fields"] == {"title": "", "other": "kept"}
    assert (contact["first_name"], contact["city"]) == ("Ann", "Oslo")


def test_addresses_are_folded_as_unicode_does_it(api: httpx.Client) -> None:
    job = put(api, {"email": "\u212aim@example.com"}, {"email": "kim@example.com"})
    assert (job["created_count"], job["updated_count"]) == (1, 1)


def test_the_later_of_two_rows_for_one_contact_wins(api: httpx.Client) -> None:
    rows = [{"email": "a@example.com", "custom_fields": {TITLE: str(number)}} for number in range(3)]
    job = put(api, *rows)
    assert (job["requested_count"], job["created_count"], job["updated_count"]) == (3, 1, 2)
    assert look(api, "a@example.com")["a@example.com"]["contact"]["custom_fields"] == {"title": "2"}


def test_lists_only_ever_grow_by_upserts(api: httpx.Client) -> None:
    first = api.post("/v3/marketing/lists", json={"name": "first"}).json()["id"]
    second = api.post("/v3/marketing/lists", json={"name": "second"}).json()["id"]
    put(api, {"email": "a@example.com"}, {"email": "b@example.com"}, list_ids=[first])
    put(api, {"email": "b@example.com"}, {"email": "c@example.com"}, list_ids=[first, second])

    def size(list_id: str) -> int:
        return api.get(f"/v3/marketing/lists/{list_id}").json()["contact_count"]

    assert (size(first), size(second)) == (3, 2)
    assert look(api, "b@example.com")["b@example.com"]["contact"]["list_ids"] == [first, second]
    assert api.delete(f"/v3/marketing/lists/{first}").status_code == 204
    assert api.get(f"/v3/marketing/lists/{first}").status_code == 404
    assert look(api, "a@example.com")["a@example.com"]["contact"]["list_ids"] == []
    assert "invalid list ids" in refusal(api, {"list_ids": [first], "contacts": [{"email": "a@example.com"}]})[0]
    again = api.post("/v3/marketing/lists", json={"name": "first"}).json()["id"]
    assert size(again) == 0


def test_a_list_that_is_deleted_while_a_job_waits_gets_nobody(tmp_path: Path) -> None:
    with serve(tmp_path / "s.sqlite", job_lag_seconds=30) as served, served.http() as api:
        gone = api.post("/v3/marketing/lists", json={"name": "gone"}).json()["id"]
        job_id = api.put(URL, json={"list_ids": [gone], "contacts": [{"email": "a@example.com"}]}).json()["job_id"]
        api.delete(f"/v3/marketing/lists/{gone}")
        new = api.post("/v3/marketing/lists", json={"name": "new"}).json()["id"]
        api.post("/_rehearsal/clock", json={"advance_seconds": 30})
        finished(api, job_id)
        assert api.get(f"/v3/marketing/lists/{new}").json()["contact_count"] == 0
        assert served.provider.database.value("SELECT count(*) FROM memberships") == 0


def test_the_request_is_refused_as_a_whole(api: httpx.Client) -> None:
    ok = {"email": "a@example.com"}
    unknown = refusal(api, {"contacts": [{**ok, "custom_fields": {"title": "x", "e9_T": "y"}}]})
    assert unknown == ["invalid custom field ids supplied - e9_T, title"]
    assert refusal(api, {"contacts": [{**ok, "custom_fields": {TITLE: None}}]}) == [
        f'custom field "{TITLE}" cannot be null'
    ]
    assert "identifier" in refusal(api, {"contacts": [ok, {"first_name": "Ann"}]})[0]
    assert refusal(api, {"contacts": [{**ok, "nickname": "A"}]}) == ["unknown property 'nickname'"]
    assert "254" in refusal(api, {"contacts": [{"email": "a" * 250 + "@example.com"}]})[0]
    assert "30000" in refusal(api, {"contacts": [ok] * 30_001})[0]
    assert "JSON" in refusal(api, [1])[0]
    assert api.get(f"{URL}/count").json()["contact_count"] == 0


def test_all_problems_come_at_once(api: httpx.Client) -> None:
    bad = {"first_name": "x" * 51, "custom_fields": {"e9_T": "x", TITLE: None}}
    assert len(refusal(api, {"contacts": [bad, bad]})) == 7


def test_what_is_not_json_is_refused(api: httpx.Client) -> None:
    constant = b'{"contacts":[{"email":"a@example.com"}],"x":NaN}'
    for body in (b"", b"{", constant, b"\xff\xfe", b"[" * 100_000):
        answer = api.put(URL, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, body[:50]


def test_half_a_surrogate_pair_is_refused(api: httpx.Client) -> None:
    body = '{"contacts":[{"email":"a@example.com","custom_fields":{"e1_T":"\\ud800"}}]}'
    answer = api.put(URL, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "surrogate" in answer.text) == (400, True)
    assert api.get("/health").json()["pending_jobs"] == 0


def test_six_million_bytes_are_the_limit(api: httpx.Client) -> None:
    def body(size: int) -> bytes:
        frame = b'{"contacts":[{"email":"a@example.com"}]}'
        return frame[:-1] + b" " * (size - len(frame)) + b"}"

    headers = {"Content-Type": "application/json"}
    assert api.put(URL, content=body(limits.REQUEST_BYTES), headers=headers).status_code == 202
    answer = api.put(URL, content=body(limits.REQUEST_BYTES + 1), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["errors"][0]["message"].startswith("the request body is larger")
    assert api.put(URL, content=body(limits.READ_BYTES + 1), headers=headers).status_code == 413


def test_single_mistakes_are_reported_by_the_job(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    job = put(
        api,
        {"email": "ok@example.com", "custom_fields": {TITLE: "x" * 1000, PRICE: 9.5, SEEN_ON: "01/05/2026"}},
        {"email": "long@example.com", "custom_fields": {TITLE: "x" * 1001}},
        {"email": "word@example.com", "custom_fields": {PRICE: "dear"}},
        {"email": "day@example.com", "custom_fields": {SEEN_ON: "2026-02-30"}},
        {"email": "number@example.com", "custom_fields": {TITLE: 7}},
        {"email": "no at, no dot"},
    )
    assert (job["status"], job["created_count"], job["errored_count"]) == ("errored", 1, 5)
    assert job["errors_url"].startswith(rehearsal_server.host)
    lines = httpx.get(job["errors_url"], trust_env=False).text.splitlines()  # without a key, as from SendGrid
    assert lines[0] == "email,error"
    assert [line.split(",")[0].strip('"') for line in lines[1:]] == [
        "long@example.com", "word@example.com", "day@example.com", "number@example.com", "no at",
    ]  # fmt: skip
    assert "1000 characters" in lines[1]
    assert put(api, {"email": "nobody"})["status"] == "failed"


def test_every_identifier_must_be_there_to_update(api: httpx.Client) -> None:
    put(api, {"email": "a@example.com", "external_id": "A", "custom_fields": {TITLE: "1"}}, {"external_id": "B"})
    job = put(api, {"email": "a@example.com", "custom_fields": {TITLE: "2"}}, {"email": "new@example.com"})
    assert (job["status"], job["created_count"], job["errored_count"]) == ("errored", 1, 1)
    job = put(api, {"email": "a@example.com", "external_id": "B"})
    assert job["status"] == "failed"
    job = put(api, {"email": "a@example.com", "external_id": "A", "custom_fields": {TITLE: "3"}})
    assert (job["status"], job["updated_count"]) == ("completed", 1)
    job = put(api, {"email": "b@example.com", "external_id": "B"}, {"external_id": "A"})
    assert (job["updated_count"], job["errored_count"]) == (1, 1)
    contacts = look(api, "a@example.com", "b@example.com")
    assert contacts["a@example.com"]["contact"]["custom_fields"] == {"title": "3"}
    assert contacts["b@example.com"]["contact"]["external_id"] == "B"
    assert api.get(f"{URL}/count").json()["contact_count"] == 3


def test_a_plain_body_does_not_update_who_has_another_identifier(api: httpx.Client) -> None:
    put(api, {"email": "a@example.com", "external_id": "A", "custom_fields": {TITLE: "1"}})
    rows = [{"email": f"{name}@example.com", "custom_fields": {TITLE: "2"}} for name in "ab"]
    job = put(api, *rows)
    assert (job["status"], job["created_count"], job["updated_count"], job["errored_count"]) == ("errored", 1, 0, 1)
    titles = [found["contact"]["custom_fields"] for found in look(api, "a@example.com", "b@example.com").values()]
    assert titles == [{"title": "1"}, {"title": "2"}]


def test_search_takes_a_hundred_addresses(api: httpx.Client) -> None:
    put(api, {"email": "a@example.com"})
    found = look(api, "a@example.com", "b@example.com", "")
    assert found["b@example.com"] == {"error": "contact not found"}
    assert len(found) == 2
    many = [f"{number}@example.com" for number in range(101)]
    assert api.post(f"{URL}/search/emails", json={"emails": many}).status_code == 400
    assert api.post(f"{URL}/search/emails", json={"emails": many[:100]}).status_code == 404
    assert api.post(f"{URL}/search/emails", json={"emails": "a@example.com"}).status_code == 400


def test_field_names_follow_the_rules(api: httpx.Client) -> None:
    names = ("1st", "a-b", "", "x" * 101, "Email", "TITLE", "é", "a b", "ok\n", None, "external_id")
    for name, kind in [(name, "Text") for name in names] + [("ok", "List"), ("ok", None)]:
        answer = api.post("/v3/marketing/field_definitions", json={"name": name, "field_type": kind})
        assert answer.status_code == 400, name
    assert len(api.get("/v3/marketing/field_definitions").json()["custom_fields"]) == 4


def test_there_are_five_hundred_fields_at_most(rehearsal_server: RehearsalServer) -> None:
    fields = rehearsal_server.provider.fields
    for number in range(limits.CUSTOM_FIELDS):
        fields.create({"name": f"f{number}", "field_type": "Text"})
    with pytest.raises(limits.ApiError, match="500 custom fields"):
        fields.create({"name": "one_more", "field_type": "Text"})


def test_lists_come_in_pages(api: httpx.Client) -> None:
    names = [f"list {number}" for number in range(7)]
    for name in names:
        assert api.post("/v3/marketing/lists", json={"name": name}).status_code == 201
    assert api.post("/v3/marketing/lists", json={"name": "list 3"}).status_code == 400
    found, url, pages = [], "/v3/marketing/lists?page_size=3", 0
    while url:
        answer = api.get(url).json()
        found += [entry["name"] for entry in answer["result"]]
        url, pages = answer["_metadata"].get("next"), pages + 1
    assert (found, pages) == (names, 3)
    assert api.get("/v3/marketing/lists?page_size=1001").status_code == 400


def test_the_state_file_is_for_its_owner_alone(rehearsal_server: RehearsalServer) -> None:
    files = list(rehearsal_server.state_path.parent.glob(rehearsal_server.state_path.name + "*"))
    assert len(files) >= 2
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_unforeseen_mistakes_answer_500_without_detail(
    rehearsal_server: RehearsalServer, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(rehearsal_server.provider.contacts, "count", fail)
    answer = api.get(f"{URL}/count")
    assert (answer.status_code, json.loads(answer.text)) == (500, {"errors": [{"message": "internal server error"}]})
