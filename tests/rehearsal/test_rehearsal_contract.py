"""Everything that the rehearsal provider speaks is held against SendGrid's published documents."""

import time
from typing import Any

import httpx
import pytest
from openapi_core.exceptions import OpenAPIError
from rehearsal_fixture import Exchange, RehearsalServer
from sendgrid_contract import contract_or_skip

from jobs.rehearsal.api import routes

# Spoken here, and described by none of the documents.
UNDESCRIBED = {"/v3/user/username", "/v3/suppression/{kind}"}
ADDRESS = "ann@example.com"


def talk(api: httpx.Client) -> None:
    """Ask for each operation once, rightly."""

    def ask(method: str, path: str, expected: int, content: Any = None) -> Any:
        answer = api.request(method, path, json=content) if content is not None else api.request(method, path)
        assert answer.status_code == expected, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    marketing = "/v3/marketing"
    field = ask("POST", f"{marketing}/field_definitions", 200, {"name": "title", "field_type": "Text"})["id"]
    ask("GET", f"{marketing}/field_definitions", 200)
    made = ask("POST", f"{marketing}/lists", 201, {"name": "one"})["id"]
    ask("GET", f"{marketing}/lists?page_size=10", 200)
    ask("GET", f"{marketing}/lists/{made}", 200)
    ask("PATCH", f"{marketing}/lists/{made}", 200, {"name": "two"})
    contact = {"email": ADDRESS, "custom_fields": {field: "x"}}
    job = ask("PUT", f"{marketing}/contacts", 202, {"list_ids": [made], "contacts": [contact]})["job_id"]
    deadline = time.monotonic() + 20
    while ask("GET", f"{marketing}/contacts/imports/{job}", 200)["status"] == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ask("GET", f"{marketing}/contacts/count", 200)
    ask("GET", f"{marketing}/lists/{made}/contacts/count", 200)
    ask("PUT", f"{marketing}/contacts/imports", 200, {"file_type": "csv", "field_mappings": ["_rf2_T", None]})
    found = ask("POST", f"{marketing}/contacts/search/emails", 200, {"emails": [ADDRESS]})["result"]
    ask("GET", f"{marketing}/contacts/{found[ADDRESS]['contact']['id']}", 200)
    group = ask("POST", "/v3/asm/groups", 201, {"name": "Picks", "description": "Picks"})["id"]
    ask("GET", "/v3/asm/groups", 200)
    ask("POST", f"/v3/asm/groups/{group}/suppressions", 201, {"recipient_emails": ["bob@example.com"]})
    ask("GET", f"/v3/asm/groups/{group}/suppressions", 200)
    ask("GET", "/v3/asm/suppressions", 200)
    ask("DELETE", f"/v3/asm/groups/{group}/suppressions/bob@example.com", 204)
    ask("POST", "/v3/asm/suppressions/global", 201, {"recipient_emails": ["bob@example.com"]})
    ask("DELETE", "/v3/asm/suppressions/global/bob@example.com", 204)
    for kind in ("bounces", "blocks", "invalid_emails", "spam_reports"):
        api.post(f"/_rehearsal/suppression/{kind}", json={"recipient_emails": ["eve@example.com"]})
        ask("GET", f"/v3/suppression/{kind}?start_time=1&limit=500&offset=0", 200)
    ask("GET", "/v3/suppression/unsubscribes?start_time=1", 200)
    config = {"subject": "x", "html_content": "x", "sender_id": 1, "suppression_group_id": group, "editor": "code"}
    draft = {"name": "books", "send_to": {"list_ids": [made]}, "email_config": config}
    sends = f"{marketing}/singlesends"
    send = ask("POST", sends, 201, draft)["id"]
    ask("GET", sends, 200)
    ask("POST", f"{sends}/search", 200, {"name": "book"})
    ask("GET", f"{sends}/{send}", 200)
    ask("PUT", f"{sends}/{send}/schedule", 201, {"send_at": "2099-01-01T00:00:00Z"})
    ask("DELETE", f"{sends}/{send}/schedule", 200)
    ask("GET", f"{marketing}/stats/singlesends/{send}", 200)
    ask("DELETE", f"{sends}/{send}", 204)
    template = ask("POST", "/v3/templates", 201, {"name": "Picks", "generation": "dynamic"})["id"]
    version = {"name": "v1", "subject": "x", "html_content": "x", "plain_content": "x", "active": 1, "editor": "code"}
    ask("POST", f"/v3/templates/{template}/versions", 201, version)
    ask("GET", f"/v3/templates/{template}", 200)
    ask("GET", "/v3/templates?generations=dynamic&page_size=200", 200)
    batch = ask("POST", "/v3/mail/batch", 201)["batch_id"]
    ask("GET", f"/v3/mail/batch/{batch}", 200)
    message = {
        "from": {"email": "shop@example.com"}, "template_id": template, "batch_id": batch,
        "personalizations": [{"to": [{"email": ADDRESS}], "dynamic_template_data": {"x": [1]}}],
    }  # fmt: skip
    ask("POST", "/v3/mail/send", 202, message)
    ask("DELETE", f"/v3/templates/{template}", 204)
    holds = "/v3/user/scheduled_sends"
    ask("POST", holds, 201, {"batch_id": batch, "status": "pause"})
    ask("GET", holds, 200)
    ask("GET", f"{holds}/{batch}", 200)
    ask("PATCH", f"{holds}/{batch}", 204, {"status": "cancel"})
    ask("DELETE", f"{holds}/{batch}", 204)
    ask("POST", "/v3/recipients/erasejob", 202, {"email_addresses": [ADDRESS]})
    settings = "/v3/user/webhooks/event/settings"
    webhook = ask("POST", settings, 201, {"enabled": False, "url": "http://127.0.0.1:1/", "delivered": True})["id"]
    ask("GET", f"{settings}/all", 200)
    ask("GET", f"{settings}/{webhook}", 200)
    ask("PATCH", f"{settings}/{webhook}", 200, {"enabled": False, "url": "http://127.0.0.1:2/"})
    ask("PATCH", f"{settings}/signed/{webhook}", 200, {"enabled": True})
    ask("GET", f"{settings}/signed/{webhook}", 200)
    ask("DELETE", f"{settings}/{webhook}", 204)
    ask("DELETE", f"{marketing}/lists/{made}/contacts?contact_ids={found[ADDRESS]['contact']['id']}", 202)
    ask("DELETE", f"{marketing}/contacts?ids={found[ADDRESS]['contact']['id']}", 202)
    ask("PATCH", f"{sends}/{ask('POST', sends, 201, draft)['id']}", 202, {"name": "toys"})
    ask("DELETE", f"{marketing}/lists/{made}", 204)


def test_every_operation_is_within_the_published_contract(rehearsal_server: RehearsalServer) -> None:
    contract = contract_or_skip()
    with rehearsal_server.http() as api:
        talk(api)
    exchanges = rehearsal_server.exchanges
    spoken = {
        (method, path)
        for path, methods in routes(rehearsal_server.provider).items()
        for method in methods
        if path.startswith("/v3/") and path not in UNDESCRIBED
    }
    assert len(exchanges) >= len(spoken) >= 54
    described = sum(contract.check(exchange) for exchange in exchanges)
    assert described == len(exchanges)


def test_refusals_are_within_the_published_contract(rehearsal_server: RehearsalServer) -> None:
    contract = contract_or_skip()
    with rehearsal_server.http() as api:
        for method, path in (
            ("PUT", "/v3/marketing/contacts"), ("POST", "/v3/marketing/lists"), ("POST", "/v3/marketing/singlesends"),
            ("POST", "/v3/mail/send"), ("POST", "/v3/recipients/erasejob"), ("PUT", "/v3/marketing/contacts/imports"),
        ):  # fmt: skip
            assert api.request(method, path, json={"x": 1}).status_code == 400, path
        assert api.get("/v3/marketing/singlesends/none").status_code == 404
    with httpx.Client(base_url=rehearsal_server.host, trust_env=False) as stranger:
        assert stranger.get("/v3/marketing/lists").status_code == 401
    checked = [contract.check(exchange, is_request_right=False) for exchange in rehearsal_server.exchanges]
    assert len(checked) == 8
    # 400 of a single send's creation is the one that is not described.
    assert sum(checked) == 7


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b'{"contacts":[]}', 202, b'{"job_id":"x"}'),
        (b'{"contacts":[{"email":7}]}', 202, b'{"job_id":"x"}'),
        (b'{"contacts":[{"email":"a@example.com"}]}', 202, b'{"job_id":7}'),
        (b'{"contacts":[{"email":"a@example.com"}]}', 400, b'{"errors":"x"}'),
    ],
)
def test_the_judge_sees_what_is_wrong(body: bytes, status: int, answer: bytes) -> None:
    contract = contract_or_skip()
    path = "/v3/marketing/contacts"
    with pytest.raises(OpenAPIError):
        contract.check(Exchange("PUT", path, "", "application/json", body, status, answer))
    good = b'{"contacts":[{"email":"a@example.com"}]}'
    assert contract.check(Exchange("PUT", path, "", "application/json", good, 202, b'{"job_id":"x"}'))
    assert not contract.knows("PUT", "/v3/marketing/nothing")
