"""Mail Send, templates, batches, deletion and erasure at the rehearsal provider."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rehearsal_fixture import RehearsalServer

from jobs.rehearsal import mail_send
from jobs.rehearsal.erasure import ERASURES_PER_MINUTE

SEND, CONTACTS = "/v3/mail/send", "/v3/marketing/contacts"


@pytest.fixture
def api(rehearsal_server: RehearsalServer) -> Iterator[httpx.Client]:
    with rehearsal_server.http() as client:
        yield client


@pytest.fixture
def template(api: httpx.Client) -> str:
    made = api.post("/v3/templates", json={"name": "Picks", "generation": "dynamic"}).json()
    version = {
        "name": "first",
        "subject": "Hello {{{name}}}",
        "html_content": "{{#each items}}<a href=\"{{url}}\">{{title}}</a>{{/each}}<a href='{{{unsubscribe}}}'>x</a>",
        "plain_content": "{{#each items}}{{{title}}} {{/each}}",
    }
    answer = api.post(f"/v3/templates/{made['id']}/versions", json=version)
    assert (answer.status_code, answer.json()["active"]) == (201, 1)
    return str(made["id"])


def message(template: str, people: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "from": {"email": "shop@example.com"},
        "template_id": template,
        "personalizations": [
            {
                "to": [{"email": f"User{number}@example.com"}],
                "dynamic_template_data": {
                    "name": f"U{number}",
                    "items": [{"title": "<b>", "url": "https://e.example"}],
                },
                "custom_args": {"ryml_uid": f"uid{number}"},
            }
            for number in range(people)
        ],
        **more,
    }


def mails(served: RehearsalServer) -> list[str]:
    served.wait_until_idle()
    return [row["email"] for row in served.provider.database.rows("SELECT email FROM mails ORDER BY mail")]


def test_a_message_becomes_a_mail_per_recipient(
    rehearsal_server: RehearsalServer, api: httpx.Client, template: str
) -> None:
    answer = api.post(SEND, json=message(template))
    assert (answer.status_code, answer.content, len(answer.headers["x-message-id"])) == (202, b"", 22)
    assert mails(rehearsal_server) == ["user0@example.com", "user1@example.com"]
    page = httpx.get(f"{rehearsal_server.host}/mailbox/2/html", trust_env=False).text
    assert '<a href="https://e.example">&lt;b&gt;</a>' in page
    assert "Hello U1" in httpx.get(f"{rehearsal_server.host}/mailbox", trust_env=False).text


def test_who_asks_twice_mails_twice(rehearsal_server: RehearsalServer, api: httpx.Client, template: str) -> None:
    api.post("/_rehearsal/faults", json={"script": [{"method": "POST", "path": SEND, "fault": "drop_after"}]})
    with pytest.raises(httpx.TransportError):
        api.post(SEND, json=message(template, 1))
    first = api.post(SEND, json=message(template, 1)).headers["x-message-id"]
    assert mails(rehearsal_server) == ["user0@example.com"] * 2
    assert api.post(SEND, json=message(template, 1)).headers["x-message-id"] != first


def test_suppressed_people_are_not_mailed(rehearsal_server: RehearsalServer, api: httpx.Client, template: str) -> None:
    group = api.post("/v3/asm/groups", json={"name": "Picks", "description": "Picks"}).json()["id"]
    api.post(f"/v3/asm/groups/{group}/suppressions", json={"recipient_emails": ["user0@example.com"]})
    api.post("/_rehearsal/suppression/bounces", json={"recipient_emails": ["user1@example.com"]})
    api.post(SEND, json=message(template, 3, asm={"group_id": group}))
    assert mails(rehearsal_server) == ["user2@example.com"]
    api.post(SEND, json=message(template, 3))  # another group, or none: a group holds for itself alone
    assert mails(rehearsal_server)[1:] == ["user0@example.com", "user2@example.com"]


def test_the_sandbox_checks_and_sends_nothing(
    rehearsal_server: RehearsalServer, api: httpx.Client, template: str
) -> None:
    sandbox = {"sandbox_mode": {"enable": True}}
    assert api.post(SEND, json=message(template, mail_settings=sandbox)).status_code == 200
    assert mails(rehearsal_server) == []
    assert api.post(SEND, json=message("d-none", mail_settings=sandbox)).status_code == 400


def test_documented_limits_of_a_message(api: httpx.Client, template: str) -> None:
    now = int(time.time())
    many = [{"email": f"u{number}@example.com"} for number in range(1001)]
    wrong: list[dict[str, Any]] = [
        message(template, mail_send.PERSONALIZATIONS + 1),
        message(template, 0),
        message(template) | {"personalizations": [{"to": many[:600]}, {"to": many[:401]}]},
        message(template) | {"personalizations": [{"to": []}]},
        message(template) | {"personalizations": [{"to": [{"email": "nobody"}]}]},
        message(template) | {"from": {"email": "größe@example.com"}},
        message(template, send_at=(now + 73 * 3600)),
        message(template, send_at=now * 1000),  # milliseconds
        message(template, send_at=str(now)),
        message(template, batch_id="none"),
        message(template, categories=["x"] * 11),
        message(template, custom_args={"x": "y" * 10_000}),
        {name: value for name, value in message(template).items() if name != "template_id"},
    ]
    for payload in wrong:
        answer = api.post(SEND, json=payload)
        assert answer.status_code == 400, payload
        assert answer.json()["errors"][0]["message"]
    assert api.post(SEND, json=message(template, mail_send.PERSONALIZATIONS)).status_code == 202
    big = message(template, 1) | {"content": [{"type": "text/plain", "value": "x" * mail_send.MESSAGE_BYTES}]}
    assert api.post(SEND, json=big).status_code == 413


def test_a_batch_is_paused_lifted_and_cancelled(
    rehearsal_server: RehearsalServer, api: httpx.Client, template: str
) -> None:
    api.post("/_rehearsal/clock", json={"is_held": True})
    now = int(rehearsal_server.provider.clock().timestamp())
    batch, other = (api.post("/v3/mail/batch").json()["batch_id"] for _ in range(2))
    assert api.get(f"/v3/mail/batch/{batch}").json() == {"batch_id": batch}
    assert api.post(SEND, json=message(template, 1, batch_id=batch, send_at=now + 3600)).status_code == 202
    assert api.post(SEND, json=message(template, 2, batch_id=other, send_at=now + 3600)).status_code == 202
    holds = "/v3/user/scheduled_sends"
    assert api.post(holds, json={"batch_id": batch, "status": "pause"}).status_code == 201
    assert api.post(holds, json={"batch_id": batch, "status": "pause"}).status_code == 400
    assert api.post(holds, json={"batch_id": other, "status": "pause"}).status_code == 201
    assert api.patch(f"{holds}/{other}", json={"status": "cancel"}).status_code == 204
    assert len(api.get(holds).json()) == 2
    api.post("/_rehearsal/clock", json={"advance_seconds": 7200})
    assert mails(rehearsal_server) == []
    assert api.delete(f"{holds}/{batch}").status_code == 204
    assert api.get(f"{holds}/{batch}").json() == []
    assert mails(rehearsal_server) == ["user0@example.com"]
    for _ in range(mail_send.HELD_BATCHES - 1):
        made = api.post("/v3/mail/batch").json()["batch_id"]
        assert api.post(holds, json={"batch_id": made, "status": "cancel"}).status_code == 201
    assert api.post(holds, json={"batch_id": batch, "status": "cancel"}).status_code == 400


def finish(served: RehearsalServer, api: httpx.Client, job_id: str) -> dict[str, Any]:
    served.wait_until_idle()
    return dict(api.get(f"{CONTACTS}/imports/{job_id}").json())


def test_contacts_are_deleted_by_id_and_leave_their_lists(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    list_id = api.post("/v3/marketing/lists", json={"name": "one"}).json()["id"]
    addresses = [f"user{number}@example.com" for number in range(3)]

    def upsert() -> dict[str, Any]:
        contacts = [{"email": address} for address in addresses]
        job = api.put(CONTACTS, json={"list_ids": [list_id], "contacts": contacts}).json()["job_id"]
        return finish(rehearsal_server, api, job)

    upsert()
    found = api.post(f"{CONTACTS}/search/emails", json={"emails": addresses}).json()["result"]
    ids = [found[address]["contact"]["id"] for address in addresses]
    assert api.get(f"{CONTACTS}/{ids[0]}").json()["email"] == addresses[0]
    for query in ("", "?ids=", f"?ids={ids[0]}&delete_all_contacts=true", "?delete_all_contacts=false"):
        assert api.delete(CONTACTS + query).status_code == 400, query
    answer = api.delete(f"{CONTACTS}?ids={ids[0]},{ids[2]},no-id")
    job = finish(rehearsal_server, api, answer.json()["job_id"])
    assert (answer.status_code, job["job_type"], job["results"]["deleted_count"]) == (202, "delete", 2)
    assert api.get(f"/v3/marketing/lists/{list_id}").json()["contact_count"] == 1
    assert api.get(f"{CONTACTS}/{ids[0]}").status_code == 404
    again = upsert()["results"]
    assert (again["created_count"], again["updated_count"]) == (2, 1)
    found = api.post(f"{CONTACTS}/search/emails", json={"emails": addresses}).json()["result"]
    assert {found[address]["contact"]["id"] for address in addresses}.isdisjoint({ids[0], ids[2]})  # none comes back
    assert api.get(f"{CONTACTS}/count").json()["contact_count"] == 3
    everyone = api.delete(f"{CONTACTS}?delete_all_contacts=true").json()["job_id"]
    assert finish(rehearsal_server, api, everyone)["results"]["deleted_count"] == 3
    assert api.get(f"{CONTACTS}/count").json()["contact_count"] == 0


def test_erasure_has_its_limits_and_leaves_no_mail(
    rehearsal_server: RehearsalServer, api: httpx.Client, template: str
) -> None:
    path = "/v3/recipients/erasejob"
    api.post(SEND, json=message(template, 2))
    assert len(mails(rehearsal_server)) == 2
    api.post("/_rehearsal/clock", json={"is_held": True})
    assert api.post(path, json={"email_addresses": ["USER1@example.com"]}).status_code == 202
    api.post("/_rehearsal/clock", json={"advance_seconds": 2})
    assert mails(rehearsal_server) == ["user0@example.com"]
    for wrong in ([], "x", [f"{number}@e.example" for number in range(5001)], ["x" * 256_000], [7]):
        assert api.post(path, json={"email_addresses": wrong}).status_code == 400
    codes = [api.post(path, json={"email_addresses": ["x@example.com"]}).status_code for _ in range(100)]
    assert (codes.count(202), codes[-1]) == (ERASURES_PER_MINUTE - 1, 429)
    api.post("/_rehearsal/clock", json={"advance_seconds": 61})
    assert api.post(path, json={"email_addresses": ["x@example.com"]}).status_code == 202


def test_an_account_without_credits_is_refused_as_with_a_wrong_key(api: httpx.Client, template: str) -> None:
    api.post("/_rehearsal/behaviour", json={"has_credits": False, "username": "shop", "user_id": 42})
    for answer in (api.post(SEND, json=message(template)), api.put(CONTACTS, json={})):
        assert (answer.status_code, answer.json()["errors"][0]["message"]) == (401, "Maximum credits exceeded")
    assert api.get("/v3/user/username").json() == {"username": "shop", "user_id": 42}
    assert api.post("/_rehearsal/behaviour", json={"has_credit": True}).status_code == 400


def test_a_plan_has_a_contact_limit(rehearsal_server: RehearsalServer, api: httpx.Client) -> None:
    api.post("/_rehearsal/behaviour", json={"contact_limit": 2})

    def upsert(*names: str) -> dict[str, Any]:
        contacts = [{"email": f"{name}@example.com"} for name in names]
        return finish(rehearsal_server, api, api.put(CONTACTS, json={"contacts": contacts}).json()["job_id"])

    assert upsert("a", "b")["status"] == "completed"
    over = upsert("b", "c")
    assert (over["status"], over["results"]["errored_count"]) == ("failed", 2)
    assert "contact limit" in httpx.get(over["results"]["errors_url"], trust_env=False).text
    assert upsert("a")["status"] == "completed"
    assert api.get(f"{CONTACTS}/count").json()["contact_count"] == 2


def test_a_rate_is_limited_per_window_of_any_length(api: httpx.Client) -> None:
    api.post("/_rehearsal/clock", json={"is_held": True, "set_to": "2026-01-05T09:00:00Z"})
    api.post("/_rehearsal/behaviour", json={"rate_limit_requests": 3, "rate_limit_seconds": 2})
    lists = "/v3/marketing/lists"
    for _ in range(3):
        assert [api.get(lists).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        api.post("/_rehearsal/clock", json={"advance_seconds": 2})
    answer = api.get(lists)
    assert answer.headers["x-ratelimit-reset"] == str(1767603600 + 6 + 2)
    assert answer.headers["x-ratelimit-limit"] == "3"


def test_a_pause_holds_only_what_is_due_ten_minutes_later(
    rehearsal_server: RehearsalServer, api: httpx.Client, template: str
) -> None:
    api.post("/_rehearsal/clock", json={"is_held": True})
    now = int(rehearsal_server.provider.clock().timestamp())
    batch = api.post("/v3/mail/batch").json()["batch_id"]
    api.post("/v3/user/scheduled_sends", json={"batch_id": batch, "status": "pause"})
    assert api.post(SEND, json=message(template, 1, batch_id=batch, send_at=now + 599)).status_code == 202
    assert api.post(SEND, json=message(template, 2, batch_id=batch)).status_code == 202  # at once: nothing holds it
    assert api.post(SEND, json=message(template, 3, batch_id=batch, send_at=now + 601)).status_code == 202
    api.post("/_rehearsal/clock", json={"advance_seconds": 3600})
    assert sorted(mails(rehearsal_server)) == ["user0@example.com", "user0@example.com", "user1@example.com"]
    api.post("/_rehearsal/clock", json={"advance_seconds": 73 * 3600})
    assert api.delete(f"/v3/user/scheduled_sends/{batch}").status_code == 204
    assert len(mails(rehearsal_server)) == 3  # what was paused for three days past its time is discarded


def test_templates_are_listed_by_generation_in_pages(api: httpx.Client, template: str) -> None:
    for name in ("A", "B"):
        api.post("/v3/templates", json={"name": name, "generation": "dynamic"})
    api.post("/v3/templates", json={"name": "old"})
    first = api.get("/v3/templates?generations=dynamic&page_size=2").json()
    assert [entry["name"] for entry in first["result"]] == ["Picks", "A"]
    token = first["_metadata"]["next"].rsplit("=", 1)[1]
    rest = api.get(f"/v3/templates?generations=dynamic&page_size=2&page_token={token}").json()
    assert [entry["name"] for entry in rest["result"]] == ["B"]
    assert "next" not in rest["_metadata"]
    assert [entry["name"] for entry in api.get("/v3/templates?page_size=9").json()["result"]] == ["old"]
    assert api.get("/v3/templates?page_size=201").status_code == 400
