"""What goes wrong at the rehearsal provider: that it does, that the seed decides it, and what took effect."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from rehearsal_fixture import RehearsalServer, serve

from jobs import serve_rehearsal
from jobs.rehearsal.faults import REQUEST_FAULTS, Faults, FaultSettings, rehearsed_faults
from jobs.rehearsal.history import fault_counts
from schemas.errors import ConfigError

CONTACTS, LISTS = "/v3/marketing/contacts", "/v3/marketing/lists"
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)


@pytest.fixture
def api(rehearsal_server: RehearsalServer) -> Iterator[httpx.Client]:
    with rehearsal_server.http() as client:
        yield client


def set_faults(api: httpx.Client, **settings: Any) -> None:
    answer = api.post("/_rehearsal/faults", json=settings)
    assert answer.status_code == 200, answer.text


def script(fault: str, method: str, path: str, nth: int = 1) -> list[dict[str, Any]]:
    return [{"fault": fault, "method": method, "path": path, "nth": nth}]


def outcomes(faults: Faults, requests: int) -> list[str | None]:
    found = []
    for number in range(requests):
        fault = faults.of_request("PUT", CONTACTS, str(number), NOW)
        found.append(fault.name if fault else None)
    return found


EVERY_KIND = dict.fromkeys(REQUEST_FAULTS, 0.1)


def test_each_fault_comes_as_often_as_it_was_asked_for() -> None:
    counts = Counter(outcomes(Faults(FaultSettings(seed=1, **EVERY_KIND)), 5000))
    assert set(counts) == {*REQUEST_FAULTS, None}
    # 500 of 5,000 expected, with a standard deviation of 21: five of these on either side.
    assert all(395 < counts[name] < 605 for name in REQUEST_FAULTS), counts
    assert set(outcomes(Faults(), 100)) == {None}


def test_the_seed_decides_and_the_order_of_requests_does_not() -> None:
    def fates(faults: Faults, bodies: list[str]) -> dict[tuple[str, int], Any]:
        nth: Counter[str] = Counter()
        found = {}
        for body in bodies:
            nth[body] += 1
            found[body, nth[body]] = faults.of_request("PUT", CONTACTS, body, NOW)
        return found

    bodies = [str(number % 50) for number in range(400)]
    settings = FaultSettings(seed=7, **EVERY_KIND)
    first = fates(Faults(settings), bodies)
    assert fates(Faults(settings), bodies[::-1]) == first
    assert fates(Faults(FaultSettings(seed=8, **EVERY_KIND)), bodies) != first
    assert len({fate for fate in first.values() if fate}) > 5


def test_each_repeat_of_a_request_is_decided_anew() -> None:
    faults = Faults(FaultSettings(seed=1, drop_before=0.5, most_in_a_row=99))
    met = [faults.of_request("PUT", CONTACTS, "x", NOW) is not None for _ in range(200)]
    assert 60 < sum(met) < 140  # 100 expected, with a standard deviation of 7


def test_one_request_meets_so_many_faults_in_a_row_and_no_more() -> None:
    faults = Faults(FaultSettings(drop_before=1, most_in_a_row=2))
    met = [faults.of_request("PUT", CONTACTS, "x", NOW) is not None for _ in range(7)]
    assert met == [True, True, False, True, True, False, True]


def test_rates_that_exceed_one_together_are_refused(api: httpx.Client) -> None:
    with pytest.raises(ValidationError, match="at most 1"):
        FaultSettings(drop_before=0.6, error_after=0.5)
    with pytest.raises(ValidationError, match="least first"):
        FaultSettings(job_lag_seconds=(2, 1))
    for body in ({"drop_before": 2}, {"drop_bfore": 0.1}, [], {"script": [{"fault": "explode"}]}):
        answer = api.post("/_rehearsal/faults", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["errors"]
    assert api.get("/_rehearsal/faults").json() == FaultSettings().model_dump(mode="json")


@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
def test_a_cut_connection_gives_no_answer(rehearsal_server: RehearsalServer, api: httpx.Client, fault: str) -> None:
    set_faults(api, script=script(fault, "POST", LISTS, nth=2))
    assert api.post(LISTS, json={"name": "one"}).status_code == 201
    with pytest.raises(httpx.TransportError):
        api.post(LISTS, json={"name": "two"})
    names = [entry["name"] for entry in api.get(LISTS).json()["result"]]
    assert names == (["one", "two"] if fault == "drop_after" else ["one"])
    assert [(entry["method"], entry["status"], entry["fault"]) for entry in rehearsal_server.provider.history.all()][
        1:
    ] == [("POST", 201, None), ("POST", 0, fault), ("GET", 200, None)]
    assert [exchange.status for exchange in rehearsal_server.exchanges] == [201, 0, 200]


def test_a_connection_may_hang_until_the_client_gives_up(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    set_faults(api, script=script("drop_after", "POST", LISTS), hang_seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        api.post(LISTS, json={"name": "one"}, timeout=1.0)
    assert [entry["name"] for entry in api.get(LISTS).json()["result"]] == ["one"]


@pytest.mark.parametrize(("fault", "is_done"), [("error_before", False), ("error_after", True)])
def test_an_error_may_come_before_or_after_the_effect(api: httpx.Client, fault: str, is_done: bool) -> None:
    set_faults(api, script=[{**script(fault, "POST", "/v3/*")[0], "status": 504}])
    answer = api.post(LISTS, json={"name": "one"})
    assert (answer.status_code, "errors" in answer.json()) == (504, True)
    assert len(api.get(LISTS).json()["result"]) == is_done


def test_rates_may_hold_for_some_requests_only(api: httpx.Client) -> None:
    set_faults(api, error_before=1, most_in_a_row=9, only=["PUT /v3/marketing/contacts", "GET */imports/*"])
    assert api.post(LISTS, json={"name": "one"}).status_code == 201
    assert api.put(CONTACTS, json={"contacts": [{"email": "a@example.com"}]}).status_code in (500, 502, 503, 504)
    assert api.get(f"{CONTACTS}/imports/x").status_code in (500, 502, 503, 504)


@pytest.mark.parametrize("kind", ["seconds", "date", "missing", "absurd"])
def test_too_many_requests_says_when_to_come_back_or_not(api: httpx.Client, kind: str) -> None:
    set_faults(api, script=script("too_many_requests", "POST", LISTS), retry_after=kind, retry_after_seconds=7)
    answer = api.post(LISTS, json={"name": "one"})
    assert answer.status_code == 429
    value = answer.headers.get("retry-after")
    if kind == "date":
        assert 4 < parsedate_to_datetime(value).timestamp() - time.time() <= 7
    else:
        assert value == {"seconds": "7", "missing": None, "absurd": "31536000"}[kind]
    assert api.get(LISTS).json()["result"] == []


def test_an_outage_lasts_as_long_as_the_clock_says(api: httpx.Client, rehearsal_server: RehearsalServer) -> None:
    now = rehearsal_server.provider.clock()
    outage = {"begins_at": now.isoformat(), "ends_at": (now + timedelta(minutes=18)).isoformat(), "status": 500}
    set_faults(api, outages=[outage])
    assert [api.get(LISTS).status_code for _ in range(5)] == [500] * 5
    assert api.post("/_rehearsal/clock", json={"advance_seconds": 17 * 60}).is_success
    assert api.get(LISTS).status_code == 500
    assert api.post("/_rehearsal/clock", json={"advance_seconds": 60}).is_success
    assert api.get(LISTS).status_code == 200


def upsert(api: httpx.Client, first: int, count: int, list_id: str) -> str:
    contacts = [{"email": f"user{first + number}@example.com"} for number in range(count)]
    return str(api.put(CONTACTS, json={"list_ids": [list_id], "contacts": contacts}).json()["job_id"])


def final(api: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while True:
        answer = api.get(f"{CONTACTS}/imports/{job_id}")
        if answer.status_code == 404 or answer.json()["status"] != "pending":
            return dict(answer.json())
        assert time.monotonic() < deadline
        time.sleep(0.005)


def size(api: httpx.Client, list_id: str) -> int:
    return int(api.get(f"{LISTS}/{list_id}").json()["contact_count"])


def test_a_failed_job_stores_nobody_and_says_no_more(api: httpx.Client) -> None:
    list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
    set_faults(api, failed_job=1)
    job = final(api, upsert(api, 0, 10, list_id))
    assert (job["status"], job["results"]["errored_count"], "errors_url" in job["results"]) == ("failed", 10, False)
    set_faults(api)
    assert final(api, upsert(api, 0, 10, list_id))["status"] == "completed"
    assert size(api, list_id) == 10


def test_an_errored_job_stores_the_others_and_names_those_that_it_does_not(api: httpx.Client) -> None:
    list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
    set_faults(api, errored_job=1, errored_share=0.2)
    job = final(api, upsert(api, 0, 200, list_id))
    errored = job["results"]["errored_count"]
    assert job["status"] == "errored"
    assert 15 < errored < 70
    lines = httpx.get(job["results"]["errors_url"], trust_env=False).text.splitlines()[1:]
    assert len(lines) == errored == 200 - size(api, list_id)
    refused = [line.split(",")[0] for line in lines]
    answer = api.post(f"{CONTACTS}/search/emails", json={"emails": refused})
    assert answer.status_code == 404
    set_faults(api, errored_job=1, errored_share=0)
    assert final(api, upsert(api, 500, 5, list_id))["results"]["errored_count"] == 1  # an errored job has an error


def test_jobs_may_be_lost_or_never_end(api: httpx.Client) -> None:
    list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
    set_faults(api, lost_job=1)
    assert "errors" in final(api, upsert(api, 0, 3, list_id))
    set_faults(api, stuck_job=1)
    stuck = upsert(api, 3, 3, list_id)
    set_faults(api)
    assert final(api, upsert(api, 6, 3, list_id))["status"] == "completed"
    assert api.get(f"{CONTACTS}/imports/{stuck}").json()["status"] == "pending"
    assert size(api, list_id) == 3


def test_jobs_may_pass_one_another(tmp_path: Path) -> None:
    settings = FaultSettings(seed=4, job_lag_seconds=(0.1, 0.4))
    with serve(tmp_path / "s.sqlite", faults=settings) as served, served.http() as api:
        api.post("/_rehearsal/clock", json={"is_held": True})
        field = api.post("/v3/marketing/field_definitions", json={"name": "title", "field_type": "Text"}).json()["id"]
        for number in range(12):
            contact = {"email": "a@example.com", "custom_fields": {field: str(number)}}
            assert api.put(CONTACTS, json={"contacts": [contact]}).status_code == 202
        api.post("/_rehearsal/clock", json={"advance_seconds": 1})
        served.wait_until_idle()
        answer = api.post(f"{CONTACTS}/search/emails", json={"emails": ["a@example.com"]}).json()
        assert answer["result"]["a@example.com"]["contact"]["custom_fields"]["title"] != "11"


def test_the_same_requests_have_the_same_ids_and_fates_elsewhere(tmp_path: Path) -> None:
    def night(name: str) -> list[tuple[str, str]]:
        settings = FaultSettings(seed=5, failed_job=0.3, errored_job=0.3, job_lag_seconds=(0, 0))
        with serve(tmp_path / name, faults=settings) as served, served.http() as api:
            list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
            jobs = [upsert(api, number, 4, list_id) for number in range(20)]
            return [(job, final(api, job)["status"]) for job in jobs]

    first = night("a")
    assert night("b") == first
    assert {status for _, status in first} == {"completed", "errored", "failed"}


def test_sizes_of_lists_may_lag_behind(api: httpx.Client) -> None:
    api.post("/_rehearsal/clock", json={"is_held": True})
    list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
    set_faults(api, count_lag_seconds=60, job_lag_seconds=[0, 0])
    final(api, upsert(api, 0, 3, list_id))
    assert size(api, list_id) == 0
    api.post("/_rehearsal/clock", json={"advance_seconds": 30})
    final(api, upsert(api, 3, 4, list_id))
    api.post("/_rehearsal/clock", json={"advance_seconds": 31})
    assert size(api, list_id) == 3
    assert api.get(f"{LISTS}/{list_id}/contacts/count").json()["contact_count"] == 3
    api.post("/_rehearsal/clock", json={"advance_seconds": 30})
    assert size(api, list_id) == 7


def test_searches_may_lag_behind(api: httpx.Client) -> None:
    api.post("/_rehearsal/clock", json={"is_held": True})
    set_faults(api, search_lag_seconds=10, job_lag_seconds=[0, 0])
    list_id = api.post(LISTS, json={"name": "one"}).json()["id"]
    send = api.post("/v3/marketing/singlesends", json={"name": "books 2026-01-05"}).json()["id"]
    final(api, upsert(api, 0, 1, list_id))

    def found() -> tuple[int, int]:
        sends = api.post("/v3/marketing/singlesends/search", json={"name": "books"}).json()["result"]
        contacts = api.post(f"{CONTACTS}/search/emails", json={"emails": ["user0@example.com"]})
        return len(sends), contacts.status_code

    assert found() == (0, 404)
    assert api.get(f"/v3/marketing/singlesends/{send}").json()["id"] == send  # by its id it is there at once
    api.post("/_rehearsal/clock", json={"advance_seconds": 10})
    assert found() == (1, 200)


def test_the_clock_is_held_set_and_let_go(api: httpx.Client, rehearsal_server: RehearsalServer) -> None:
    clock = rehearsal_server.provider.clock
    order = {"is_held": True, "set_to": "2026-01-05T09:00:00+01:00", "advance_seconds": 90}
    assert api.post("/_rehearsal/clock", json=order).json() == {"now": "2026-01-05T08:01:30+00:00"}
    assert clock() == clock() == datetime(2026, 1, 5, 8, 1, 30, tzinfo=UTC)
    api.post("/_rehearsal/clock", json={"is_held": False})
    assert datetime(2026, 1, 5, 8, 1, 30, tzinfo=UTC) < clock() < datetime(2026, 1, 5, 8, 2, tzinfo=UTC)
    assert api.post("/_rehearsal/clock", json={"advance_seconds": "soon"}).status_code == 400
    with httpx.Client(base_url=rehearsal_server.host, trust_env=False) as stranger:
        assert stranger.post("/_rehearsal/clock", json={}).status_code == 401


def test_faults_are_set_from_the_command_line(tmp_path: Path) -> None:
    assert serve_rehearsal._read_faults(None) == FaultSettings()
    assert serve_rehearsal._read_faults("12") == rehearsed_faults(12)
    assert serve_rehearsal._read_faults(json.dumps({"drop_after": 0.5})).drop_after == 0.5
    for wrong in ("-1", "often", '{"drop_after": 2}', '{"x": 1}'):
        with pytest.raises(ConfigError, match="--faults"):
            serve_rehearsal._read_faults(wrong)


def test_what_was_met_can_be_counted_afterwards(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    set_faults(api, error_before=1, most_in_a_row=1, only=["GET *"])
    for _ in range(4):
        api.get(LISTS)
    counts = fault_counts(rehearsal_server.state_path.with_name(rehearsal_server.state_path.name + "-history"))
    assert counts == {"requests": 5, "error_before": 2}
