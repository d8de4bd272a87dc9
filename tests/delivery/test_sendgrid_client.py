import datetime as dt
import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from rehearsal_fixture import Exchange, RehearsalServer, serve
from sendgrid_contract import contract_or_skip

from jobs.delivery.client import ImportJob, MailProvider, SingleSend
from jobs.delivery.error_file import download_errors, read_errors
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.rehearsal.api import Answer
from jobs.rehearsal.server import no_fault
from schemas.errors import ConfigError, MailAuthError, MailError, RejectedMailError, RetryableMailError
from schemas.mail_fields import all_fields

NAMES = all_fields(6)


@pytest.fixture
def provider(rehearsal_server: RehearsalServer) -> SendGridProvider:
    return SendGridProvider(rehearsal_server.api_key, rehearsal_server.host, timeout_seconds=10)


@pytest.fixture(scope="module")
def failing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalServer]:
    """A provider whose state does not matter, as something is put in the place of its answers."""
    with serve(tmp_path_factory.mktemp("failing") / "rehearsal.sqlite") as served:
        yield served


def upsert(provider: SendGridProvider, addresses: list[str], list_id: str, title: str = "Кофе & чай") -> str:
    ids = provider.ensure_fields(NAMES)
    values = {ids[name]: "" for name in NAMES} | {ids["ryml_1_title"]: title, ids["ryml_run"]: "2026-01-05"}
    contacts = [{"email": address, "custom_fields": values} for address in addresses]
    return provider.upsert(json.dumps({"list_ids": [list_id], "contacts": contacts}, ensure_ascii=False).encode())


def finished(provider: SendGridProvider, job_id: str) -> ImportJob:
    deadline = time.monotonic() + 10
    while (job := provider.import_job(job_id)).status == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return job


def draft(provider: SendGridProvider, name: str, list_id: str) -> SingleSend:
    return provider.create_draft(
        name=name,
        list_id=list_id,
        subject="Picked for you",
        html="<p>{{ryml_1_title}}</p><a href='{{{unsubscribe}}}'>Unsubscribe</a>",
        text="{{{ryml_1_title}}}",
        suppression_group_id=provider.ensure_suppression_group("Recommendations"),
        sender_id=7,
    )


def test_the_whole_conversation_is_within_the_published_contract(
    rehearsal_server: RehearsalServer, provider: SendGridProvider
) -> None:
    contract = contract_or_skip()
    as_protocol: MailProvider = provider
    list_id = as_protocol.ensure_list("ryml 2026-01-05")
    job = finished(provider, upsert(provider, ["Ann@example.com", "bob@example.com"], list_id))
    assert (job.status, job.requested, job.created, job.updated, job.errored) == ("completed", 2, 2, 0, 0)
    assert provider.list_size(list_id) == 2
    found = provider.contacts_by_email(["ANN@example.com", "nobody@example.com"])
    assert found.keys() == {"ann@example.com"}
    assert found["ann@example.com"].custom_fields["ryml_1_title"] == "Кофе & чай"
    assert found["ann@example.com"].list_ids == (list_id,)
    assert provider.contacts_by_email(["nobody@example.com"]) == {}
    send = draft(provider, "books 2026-01-05", list_id)
    assert (send.status, send.send_at) == ("draft", None)
    assert provider.single_send_stats(send.id).requests == 0
    provider.schedule(send.id)
    rehearsal_server.wait_until_idle()
    assert provider.single_send(send.id).status == "triggered"
    assert provider.single_send_stats(send.id).delivered == 2
    assert provider.find_single_send("books 2026-01-05") == provider.single_send(send.id)
    assert list(provider.suppressed_addresses(group_id=1)) == []
    provider.delete_list(list_id)
    provider.delete_list(list_id)  # gone already is fine
    with pytest.raises(RejectedMailError):
        provider.list_size(list_id)
    with pytest.raises(RejectedMailError):
        provider.single_send("no-such-id")

    described = 0
    seen = set()
    for exchange in rehearsal_server.exchanges:
        if (exchange.method, exchange.status) == ("GET", 404) and "/lists/" in exchange.path:
            continue  # the documents give an array of errors for this answer alone, against every example of SendGrid's
        described += contract.check(exchange)
        seen.add((exchange.method, exchange.path.rsplit("/", 1)[0]))
    assert described == len(rehearsal_server.exchanges) - 1 >= 50
    assert len(seen) >= 12


def test_a_body_goes_out_as_it_is_in_utf8(rehearsal_server: RehearsalServer, provider: SendGridProvider) -> None:
    ids = provider.ensure_fields(["ryml_1_title"])
    fields = '{"%s":"Кофе"}'.replace("%s", ids["ryml_1_title"])
    body = f'{{"contacts":[{{"email":"a@example.com",  "custom_fields":{fields}}}]}}'
    provider.upsert(body.encode())
    sent = [exchange for exchange in rehearsal_server.exchanges if exchange.method == "PUT"]
    assert [exchange.body for exchange in sent] == [body.encode()]
    assert sent[0].content_type == "application/json; charset=utf-8"
    provider.ensure_list("after it")  # a header of one call stays in that call
    looked = [exchange for exchange in rehearsal_server.exchanges if exchange.method == "GET"]
    assert looked[-1].content_type == ""


def test_ensuring_twice_creates_once(rehearsal_server: RehearsalServer, provider: SendGridProvider) -> None:
    assert provider.ensure_fields(NAMES) == provider.ensure_fields(NAMES)
    assert provider.ensure_list("one") == provider.ensure_list("one")
    assert provider.ensure_suppression_group("one") == provider.ensure_suppression_group("one")
    posts = [exchange.path for exchange in rehearsal_server.exchanges if exchange.method == "POST"]
    assert len(posts) == len(NAMES) + 2


def test_ensuring_at_once_in_many_threads_creates_once(provider: SendGridProvider) -> None:
    with ThreadPoolExecutor(8) as pool:
        fields = list(pool.map(lambda _: tuple(provider.ensure_fields(NAMES[:5]).items()), range(16)))
        lists = list(pool.map(lambda n: provider.ensure_list(f"list {n % 2}"), range(16)))
        groups = list(pool.map(lambda _: provider.ensure_suppression_group("one"), range(16)))
    assert (len(set(fields)), len(set(lists)), len(set(groups))) == (1, 2, 1)


def test_a_field_of_another_type_or_case_is_refused(
    rehearsal_server: RehearsalServer, provider: SendGridProvider
) -> None:
    with rehearsal_server.http() as http_client:
        http_client.post("/v3/marketing/field_definitions", json={"name": "ryml_count", "field_type": "Number"})
        http_client.post("/v3/marketing/field_definitions", json={"name": "RYML_run", "field_type": "Text"})
    with pytest.raises(ConfigError, match=r"ryml_count.*Number.*RYML_run"):
        provider.ensure_fields(NAMES)


def test_only_the_exact_name_is_found_among_those_that_match(provider: SendGridProvider) -> None:
    list_id = provider.ensure_list("all")
    for name in ("books 2026-01-05 test", "BOOKS 2026-01-05", "old books 2026-01-05"):
        draft(provider, name, list_id)
    assert provider.find_single_send("books 2026-01-05") is None
    wanted = draft(provider, "books 2026-01-05", list_id)
    assert provider.find_single_send("books 2026-01-05") == wanted


def test_the_exact_name_is_found_past_the_first_page(provider: SendGridProvider) -> None:
    list_id = provider.ensure_list("all")
    wanted = draft(provider, "books", list_id)
    for number in range(105):
        draft(provider, f"books {number}", list_id)
    assert provider.find_single_send("books") == wanted


def test_of_several_with_the_name_the_furthest_is_found(
    rehearsal_server: RehearsalServer, provider: SendGridProvider
) -> None:
    list_id = provider.ensure_list("all")
    sends = [draft(provider, "books", list_id) for _ in range(3)]
    later = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=2)
    provider.schedule(sends[2].id, later)
    found = provider.find_single_send("books")
    assert found == SingleSend(sends[2].id, "books", "scheduled", later)
    provider.schedule(sends[1].id)
    rehearsal_server.wait_until_idle()
    found = provider.find_single_send("books")
    assert found is not None
    assert found.id == sends[1].id


def test_refused_contacts_come_back_with_reasons(provider: SendGridProvider) -> None:
    list_id = provider.ensure_list("all")
    job = finished(provider, upsert(provider, ["ok@example.com", "not-an-address", "x@example.com"], list_id))
    assert (job.status, job.requested, job.created, job.errored) == ("errored", 3, 2, 1)
    assert job.errors_url is not None
    assert provider.import_errors(job.errors_url) == {"not-an-address": "email is not valid"}
    job = finished(provider, upsert(provider, ["long@example.com"], list_id, title="x" * 1001))
    assert job.status == "failed"


def test_suppressions_are_read_page_by_page(rehearsal_server: RehearsalServer, provider: SendGridProvider) -> None:
    group = provider.ensure_suppression_group("Recommendations")
    other = provider.ensure_suppression_group("Other")
    store = rehearsal_server.provider.suppressions
    expected = set()
    for kind, count in (("bounces", 1203), ("invalid_emails", 2), ("spam_reports", 500), ("unsubscribes", 1000)):
        addresses = [f"{kind}-{number}@example.com" for number in range(count)]
        store.add(kind, addresses, created_at=1_700_000_000)
        expected |= {(kind, address) for address in addresses}
    store.add("blocks", ["blocked@example.com"], created_at=1_700_000_000)
    store.add("group_unsubscribes", ["Left@example.com"], 1_700_000_000, group=group)
    store.add("group_unsubscribes", ["elsewhere@example.com"], 1_700_000_000, group=other)
    found = list(provider.suppressed_addresses(group_id=group))
    assert len(found) == len(set(found)) == 2706
    assert set(found) == expected | {("group_unsubscribes", "left@example.com")}
    store.add("bounces", ["new@example.com"], created_at=1_800_000_000)
    since = dt.datetime.fromtimestamp(1_700_000_001, dt.UTC)
    assert list(provider.suppressed_addresses(since)) == [("bounces", "new@example.com")]


def answering(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[str, str], Answer | None]:
    return lambda method, path: Answer(status, json.loads(body) if body else {}, headers or {})


ERRORS = b'{"errors":[{"field":"contacts[0].email","message":"email ann@example.com is not valid"}]}'


@pytest.mark.parametrize(
    ("status", "body", "kind", "wait"),
    [
        (400, ERRORS, RejectedMailError, None),
        (404, b"", RejectedMailError, None),
        (413, b"", RejectedMailError, None),
        (401, b'{"errors":[{"field":null,"message":"authorization required"}]}', MailAuthError, None),
        (401, b'{"errors":[{"field":null,"message":"Maximum credits exceeded"}]}', MailAuthError, None),
        (403, b'{"errors":[{"field":null,"message":"access forbidden"}]}', MailAuthError, None),
        (403, b'{"errors":[{"field":"SG.rehearsal-key-of-the-tests","message":"no"}]}', MailAuthError, None),
        (429, b"", RetryableMailError, 30.0),
        (500, b"", RetryableMailError, None),
        (502, b"", RetryableMailError, None),
        (503, b"", RetryableMailError, None),
        (307, b"", RejectedMailError, None),
    ],
)
def test_answers_become_the_errors_of_the_schema(
    failing_server: RehearsalServer, status: int, body: bytes, kind: type[MailError], wait: float | None
) -> None:
    headers = {"X-RateLimit-Reset": "1030"} if status == 429 else {}
    if status == 307:
        headers = {"Location": "http://127.0.0.1:1/elsewhere"}
    failing_server.fault = answering(status, body, headers)
    provider = SendGridProvider(failing_server.api_key, failing_server.host, clock=lambda: 1000.0)
    with pytest.raises(MailError) as caught:
        provider.upsert(b'{"contacts":[]}')
    assert isinstance(caught.value, kind)
    message = str(caught.value)
    assert str(status) in message
    assert "@" not in message
    assert failing_server.api_key not in message
    if isinstance(caught.value, RetryableMailError):
        assert caught.value.retry_after_seconds == wait
    assert ("credits left" in message) == (b"credits" in body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:17:10 GMT", 30.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None)],
)
def test_the_provider_says_when_to_come_back(
    failing_server: RehearsalServer, value: str, expected: float | None
) -> None:
    failing_server.fault = answering(503, b"", {"Retry-After": value})
    provider = SendGridProvider(failing_server.api_key, failing_server.host, clock=lambda: 1000.0)
    with pytest.raises(RetryableMailError) as caught:
        provider.list_size("x")
    assert caught.value.retry_after_seconds == expected


def test_a_wrong_key_is_named_as_such(failing_server: RehearsalServer) -> None:
    failing_server.fault = no_fault
    provider = SendGridProvider("SG.another", failing_server.host)
    with pytest.raises(MailAuthError, match="key is not accepted"):
        provider.ensure_list("x")


def test_nothing_listening_is_retryable_and_quick() -> None:
    provider = SendGridProvider("SG.key", "http://127.0.0.1:1", timeout_seconds=2)
    with pytest.raises(RetryableMailError, match="ConnectionRefusedError"):
        provider.ensure_list("x")


@pytest.fixture
def odd_server() -> Iterator[tuple[str, dict[str, str]]]:
    """A server that behaves as its path's last word says, and notes the headers that it got."""
    heard: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.update(self.headers.items())
            if "slow" in self.path:
                time.sleep(0.6)
            elif "cut" in self.path:
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"{")
            elif "hang" in self.path:
                self.connection.close()
            else:
                content = b"email,error\nA@example.com,too long\n" if "csv" in self.path else b"<html>proxy</html>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["slow", "cut", "hang", "html"])
def test_a_broken_wire_is_retryable(odd_server: tuple[str, dict[str, str]], how: str) -> None:
    provider = SendGridProvider("SG.key", odd_server[0], timeout_seconds=0.2)
    with pytest.raises(RetryableMailError, match="unknown"):
        provider.single_send(how)


def test_a_redirect_is_not_followed_with_the_key(
    failing_server: RehearsalServer, odd_server: tuple[str, dict[str, str]]
) -> None:
    elsewhere, heard = odd_server
    failing_server.fault = answering(302, b"", {"Location": f"{elsewhere}/csv"})
    provider = SendGridProvider(failing_server.api_key, failing_server.host)
    with pytest.raises(RejectedMailError, match="302"):
        provider.list_size("x")
    with pytest.raises(RejectedMailError, match="307"):
        provider.import_errors(f"{failing_server.host}/")  # leads to /mailbox
    assert heard == {}


def test_no_proxy_stands_between_this_machine_and_itself(
    odd_server: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, rehearsal_server: RehearsalServer
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    provider = SendGridProvider(rehearsal_server.api_key, rehearsal_server.host)
    assert provider.ensure_list("x")


def test_threads_never_see_each_others_headers(rehearsal_server: RehearsalServer, provider: SendGridProvider) -> None:
    provider.ensure_fields(["ryml_1_title"])
    list_id = provider.ensure_list("all")
    rehearsal_server.exchanges.clear()

    def work(number: int) -> None:
        if number % 2:
            provider.list_size(list_id)
        else:
            upsert(provider, [f"u{number}@example.com"], list_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))

    def is_right(exchange: Exchange) -> bool:
        return exchange.content_type == ("" if exchange.method == "GET" else "application/json; charset=utf-8")

    assert len(rehearsal_server.exchanges) >= 60
    assert all(is_right(exchange) for exchange in rehearsal_server.exchanges)


def test_the_key_and_the_addresses_are_never_logged(
    rehearsal_server: RehearsalServer, provider: SendGridProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("python_http_client").setLevel(logging.DEBUG)
    list_id = provider.ensure_list("all")
    upsert(provider, ["canary@example.com"], list_id)
    logging.getLogger("ryml").debug("a record, so that the check is not of nothing")
    assert caplog.records
    assert rehearsal_server.api_key not in caplog.text
    assert "canary" not in caplog.text
    assert rehearsal_server.api_key not in repr(provider)


@pytest.mark.parametrize(
    "host",
    [
        "http://api.sendgrid.com",
        "ftp://127.0.0.1",
        "api.sendgrid.com",
        "https://",
        "https://user@example.com",
        "https://example.com/v3",
    ],
)
def test_a_host_that_would_leak_the_key_is_refused(host: str) -> None:
    with pytest.raises(ConfigError):
        SendGridProvider("SG.key", host)


@pytest.mark.parametrize("key", ["", "a b", "key\nX-Other: 1", "clé"])
def test_a_key_that_is_no_header_value_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SendGridProvider(key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "http://example.com/x",
        "file:///etc/passwd",
        "https://intranet/x",
        "",
    ],
)
def test_an_error_file_elsewhere_is_not_fetched(url: str) -> None:
    with pytest.raises(RejectedMailError, match="error file"):
        download_errors(url, api_host="https://api.sendgrid.com", timeout_seconds=0.1, clock=time.time)


def test_the_error_file_is_fetched_without_the_key(odd_server: tuple[str, dict[str, str]]) -> None:
    host, heard = odd_server
    provider = SendGridProvider("SG.key", host)
    assert provider.import_errors(f"{host}/csv") == {"a@example.com": "too long"}
    assert heard
    assert "Authorization" not in heard


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", {}),
        ("email,error\n", {}),
        ("reason,email\nbad,B@example.com\n", {"b@example.com": "bad"}),
        ('identifier,x,error_message\n"a@example.com",1,"no, really"\nshort\n', {"a@example.com": "no, really"}),
    ],
)
def test_error_files_are_read_by_their_header(content: str, expected: dict[str, str]) -> None:
    assert read_errors(content) == expected


def test_more_than_a_hundred_addresses_are_refused_before_the_wire() -> None:
    provider = SendGridProvider("SG.key")
    with pytest.raises(ValueError, match="101"):
        provider.contacts_by_email([f"u{number}@example.com" for number in range(101)])


def test_an_instant_without_a_time_zone_is_refused() -> None:
    provider = SendGridProvider("SG.key")
    with pytest.raises(ValueError, match="time zone"):
        provider.schedule("x", dt.datetime(2026, 1, 5))  # noqa: DTZ001 - that is the point
