"""Imports of contacts by file at the rehearsal provider."""

import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rehearsal_fixture import RehearsalServer

from jobs.rehearsal import csv_files

URL = "/v3/marketing/contacts/imports"
EMAIL, FIRST_NAME = "_rf2_T", "_rf0_T"


@pytest.fixture
def api(rehearsal_server: RehearsalServer) -> Iterator[httpx.Client]:
    with rehearsal_server.http() as client:
        for name, kind in (("title", "Text"), ("price", "Number")):
            client.post("/v3/marketing/field_definitions", json={"name": name, "field_type": kind})
        yield client


def request(api: httpx.Client, mappings: list[str | None], list_ids: tuple[str, ...] = ()) -> dict[str, Any]:
    answer = api.put(URL, json={"file_type": "csv", "field_mappings": mappings, "list_ids": list_ids})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def put(asked: dict[str, Any], content: bytes, **more: str) -> httpx.Response:
    headers = {entry["header"]: entry["value"] for entry in asked["upload_headers"]} | more
    return httpx.put(asked["upload_uri"], content=content, headers=headers, trust_env=False)


def result(served: RehearsalServer, api: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
    served.wait_until_idle()
    job = api.get(f"{URL}/{asked['job_id']}").json()
    return {**job["results"], "status": job["status"]}


def import_file(
    served: RehearsalServer, api: httpx.Client, mappings: list[str | None], content: bytes
) -> dict[str, Any]:
    asked = request(api, mappings)
    assert put(asked, content).status_code == 200
    return result(served, api, asked)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_of_contacts_is_stored(
    rehearsal_server: RehearsalServer, api: httpx.Client, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "ROWS_PER_STEP", 7)
    list_id = api.post("/v3/marketing/lists", json={"name": "one"}).json()["id"]
    asked = request(api, [EMAIL, None, "e1_T", "e2_N"], (list_id,))
    assert api.get(f"{URL}/{asked['job_id']}").json()["status"] == "pending"
    rows = "".join(f'User{n}@example.com,x,"Title, {n} ü\nsecond line",{n}.5\r\n' for n in range(21))
    assert put(asked, pack(f"email,other,title,price\r\n{rows}".encode())).status_code == 200
    job = result(rehearsal_server, api, asked)
    assert (job["status"], job["requested_count"], job["created_count"], job["errored_count"]) == (
        "completed",
        21,
        21,
        0,
    )
    assert api.get(f"/v3/marketing/lists/{list_id}").json()["contact_count"] == 21
    emails = {"emails": ["user20@example.com"]}
    contact = api.post("/v3/marketing/contacts/search/emails", json=emails).json()["result"]["user20@example.com"]
    assert contact["contact"]["custom_fields"] == {"title": "Title, 20 ü\nsecond line", "price": 20.5}
    assert list(rehearsal_server.state_path.parent.glob("*-uploads/*")) == []  # addresses do not stay in files
    assert put(asked, b"x").status_code == 403  # an address is good for one upload
    history = [entry for entry in rehearsal_server.provider.history.all() if entry["path"].startswith("/_uploads")]
    assert [entry["status"] for entry in history] == [200, 403]


def test_rows_that_are_wrong_are_reported_one_by_one(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    rows = [
        "email,first,title,price", "ok@example.com,Ann,x,1", "nobody,Ann,x,1", ",Ann,x,1", "few@example.com,Ann",
        f"long@example.com,{'y' * 51},x,1", f"text@example.com,A,{'x' * 1001},1", "dear@example.com,A,x,dear",
        "fine@example.com,,,2",
    ]  # fmt: skip
    job = import_file(rehearsal_server, api, [EMAIL, FIRST_NAME, "e1_T", "e2_N"], "\n".join(rows).encode())
    assert (job["status"], job["requested_count"], job["created_count"], job["errored_count"]) == ("errored", 8, 2, 6)
    lines = httpx.get(job["errors_url"], trust_env=False).text.splitlines()[1:]
    assert len(lines) == 6
    assert sum("text@example.com" in line for line in lines) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"email;title\na@example.com;x\n",
        b"email,title,more\na@example.com,x,y\n",
        b"\x1f\x8bno gzip",
        b"email,\xff\n",
    ],
)
def test_a_file_that_can_not_be_read_fails(
    rehearsal_server: RehearsalServer, api: httpx.Client, content: bytes
) -> None:
    job = import_file(rehearsal_server, api, [EMAIL, "e1_T"], content)
    assert (job["status"], job["created_count"]) == ("failed", 0)
    assert api.get("/v3/marketing/contacts/count").json()["contact_count"] == 0


def test_a_file_may_have_so_many_contacts(
    rehearsal_server: RehearsalServer, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert csv_files.CONTACTS_PER_FILE == 1_000_000
    monkeypatch.setattr(csv_files, "CONTACTS_PER_FILE", 3)
    rows = "".join(f"u{number}@example.com\n" for number in range(3))
    assert import_file(rehearsal_server, api, [EMAIL], f"email\n{rows}".encode())["status"] == "completed"
    assert import_file(rehearsal_server, api, [EMAIL], f"email\n{rows}x@example.com\n".encode())["status"] == "failed"


def test_an_upload_is_as_a_storage_service_wants_it(api: httpx.Client) -> None:
    asked = request(api, [EMAIL])
    content = b"email\na@example.com\n"
    assert put(asked, content, Authorization="Bearer key").status_code == 400
    assert httpx.put(asked["upload_uri"], content=content, trust_env=False).status_code == 403
    stranger = {**asked, "upload_uri": asked["upload_uri"][:-1] + "x"}
    assert put(stranger, content).status_code == 403
    assert put(asked, content).status_code == 200


def test_what_is_asked_for_is_checked(api: httpx.Client) -> None:
    for payload in (
        {"file_type": "json", "field_mappings": [EMAIL]},
        {"file_type": "csv"},
        {"file_type": "csv", "field_mappings": []},
        {"file_type": "csv", "field_mappings": [EMAIL, "e9_T"]},
        {"file_type": "csv", "field_mappings": ["e1_T"]},  # nothing says who it is
        {"file_type": "csv", "field_mappings": [EMAIL], "list_ids": ["none"]},
    ):
        assert api.put(URL, json=payload).status_code == 400, payload


def test_faults_of_jobs_hold_for_files_too(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    rows = "".join(f"u{number}@example.com,x\n" for number in range(50))
    api.post("/_rehearsal/faults", json={"errored_job": 1, "errored_share": 0.2})
    job = import_file(rehearsal_server, api, [EMAIL, "e1_T"], f"email,title\n{rows}".encode())
    assert job["status"] == "errored"
    assert 1 <= job["errored_count"] == 50 - job["created_count"] < 30
    api.post("/_rehearsal/faults", json={"failed_job": 1})
    assert (
        import_file(rehearsal_server, api, [EMAIL, "e1_T"], f"email,title\n{rows}x,y\n".encode())["status"] == "failed"
    )


@pytest.mark.parametrize(
    ("fault", "answer", "requested"),
    [
        ("drop_before", None, 0),
        ("drop_after", None, 2),
        ("error_before", 503, 0),
        ("error_after", 503, 2),
        ("too_many_requests", 429, 0),
    ],
)
def test_faults_of_requests_meet_uploads_too(
    rehearsal_server: RehearsalServer, api: httpx.Client, fault: str, answer: int | None, requested: int
) -> None:
    api.post("/_rehearsal/faults", json={"script": [{"fault": fault, "path": "/_uploads/*", "status": 503}]})
    asked = request(api, [EMAIL])
    content = b"email\na@example.com\nb@example.com\n"
    if answer is None:
        with pytest.raises(httpx.TransportError):
            put(asked, content)
    else:
        assert put(asked, content).status_code == answer
    assert result(rehearsal_server, api, asked)["requested_count"] == requested
    assert list(rehearsal_server.state_path.parent.glob("*-uploads/*")) == []
    history = [entry for entry in rehearsal_server.provider.history.all() if entry["path"].startswith("/_uploads")]
    assert [(entry["status"], entry["fault"]) for entry in history] == [(answer or 0, fault)]
    again = put(asked, content).status_code
    assert again == (403 if requested else 200)
