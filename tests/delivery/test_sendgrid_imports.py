"""Imports by file at SendGrid's API, and the upload to a storage service that is none of it."""

import csv
import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rehearsal_fixture import RehearsalServer
from sendgrid_contract import contract_or_skip

from jobs.delivery import file_upload
from jobs.delivery.client import ImportPlace
from jobs.delivery.file_upload import upload_file
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.rehearsal.api import Answer
from schemas.errors import GateError, MailAuthError, MailError, RejectedMailError, RetryableMailError

ROWS = 'email,ryml_1_title\n"Ann@example.com","Кофе, ""the"" one"\n"bob@example.com",""\n"nobody","x"\n'


@pytest.fixture
def provider(rehearsal_server: RehearsalServer) -> SendGridProvider:
    return SendGridProvider(rehearsal_server.api_key, rehearsal_server.host, timeout_seconds=10)


def asked(provider: SendGridProvider, list_ids: tuple[str, ...] = ()) -> ImportPlace:
    ids = provider.ensure_fields(["ryml_1_title"])
    return provider.request_import([provider.email_field(), ids["ryml_1_title"]], list_ids)


def upload(provider: SendGridProvider, place: ImportPlace, text: str = ROWS) -> None:
    content = gzip.compress(text.encode())
    provider.upload_import(place, iter([content[:40], content[40:]]), len(content))


def test_an_import_by_file_is_within_the_published_contract(
    rehearsal_server: RehearsalServer, provider: SendGridProvider
) -> None:
    contract = contract_or_skip()
    list_id = provider.ensure_list("ryml 2026-01-05")
    place = asked(provider, (list_id,))
    assert provider.import_job(place.job_id).status == "pending"
    upload(provider, place)
    rehearsal_server.wait_until_idle()
    job = provider.import_job(place.job_id)
    assert (job.status, job.requested, job.created, job.errored) == ("errored", 3, 2, 1)
    assert job.errors_url is not None
    assert provider.import_errors(job.errors_url) == {"nobody": "email is not valid"}
    found = provider.contacts_by_email(["ann@example.com", "bob@example.com"])
    assert [found[address].custom_fields["ryml_1_title"] for address in sorted(found)] == ['Кофе, "the" one', ""]
    assert provider.list_size(list_id) == 2
    assert sum(contract.check(exchange) for exchange in rehearsal_server.exchanges) == len(rehearsal_server.exchanges)
    paths = [(exchange.method, exchange.path) for exchange in rehearsal_server.exchanges]
    assert paths.count(("PUT", "/v3/marketing/contacts/imports")) == 1
    assert len(paths) >= 9


def test_a_place_is_good_for_one_upload_and_never_shown(provider: SendGridProvider) -> None:
    place = asked(provider)
    upload(provider, place)
    with pytest.raises(RetryableMailError, match="Ask for another one") as caught:
        upload(provider, place)
    for text in (repr(place), str(caught.value)):
        assert place.upload_uri not in text
        assert "aws" not in text


def test_what_is_wrong_with_a_request_is_said(provider: SendGridProvider) -> None:
    with pytest.raises(RejectedMailError, match="field_mappings"):
        provider.request_import([provider.email_field(), "e9_T"], ())
    with pytest.raises(RejectedMailError, match="invalid list ids"):
        asked(provider, ("no-such-list",))


@pytest.mark.parametrize(
    "answer", [{}, {"job_id": "1"}, [], {"job_id": "1", "upload_uri": "x", "upload_headers": [{"value": 1}]}]
)
def test_an_answer_without_a_place_is_asked_for_again(
    rehearsal_server: RehearsalServer, provider: SendGridProvider, answer: object
) -> None:
    rehearsal_server.fault = lambda method, path: Answer(200, answer, {})
    with pytest.raises(RetryableMailError, match="nothing was uploaded"):
        provider.request_import(["_rf2_T"], ())


def test_an_upload_that_ends_in_the_middle_stores_nothing(
    rehearsal_server: RehearsalServer, provider: SendGridProvider
) -> None:
    """What stops the worker stops the upload, and is not taken for something that the wire did."""
    place = asked(provider)
    content, folder = gzip.compress(ROWS.encode()), rehearsal_server.state_path.parent

    def until(*, is_there: bool) -> None:
        deadline = time.monotonic() + 10
        while bool(list(folder.glob("*-uploads/*"))) != is_there:
            assert time.monotonic() < deadline, "half a file of addresses is left" if not is_there else "nothing came"
            time.sleep(0.01)

    def parts() -> Iterator[bytes]:
        yield content[:40]
        until(is_there=True)
        raise GateError("the worker was replaced")

    with pytest.raises(GateError, match="replaced"):
        provider.upload_import(place, parts(), len(content))
    until(is_there=False)
    assert provider.import_job(place.job_id).status == "pending"
    upload(provider, place)
    rehearsal_server.wait_until_idle()
    assert provider.import_job(place.job_id).requested == 3


# The storage service


@dataclass
class Storage:
    """A storage service that answers as its path's last word says, and what it was sent."""

    host: str
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def storage() -> Iterator[Storage]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            kept.heard.append((dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"]))))
            how = self.path.rsplit("/", 1)[1]
            if how == "slow":
                time.sleep(0.6)
            if how in ("slow", "hang"):
                self.connection.close()
                return
            self.send_response(int(how))
            self.send_header("Content-Length", "0")
            if how == "307":
                self.send_header("Location", f"{kept.host}/200")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        kept = Storage(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


def test_the_upload_has_the_headers_it_was_given_and_not_the_key(storage: Storage) -> None:
    provider = SendGridProvider("SG.key", storage.host)
    headers = {"x-amz-server-side-encryption": "aws:kms", "X-Other": "1"}
    provider.upload_import(ImportPlace("1", f"{storage.host}/200", headers), iter([b"abc", b"", b"de"]), 5)
    ((sent, body),) = storage.heard
    assert body == b"abcde"
    by_name = {name.lower(): value for name, value in sent.items()}
    assert {name: by_name[name] for name in ("content-length", "x-amz-server-side-encryption", "x-other")} == {
        "content-length": "5", "x-amz-server-side-encryption": "aws:kms", "x-other": "1",
    }  # fmt: skip
    assert not {"authorization", "content-type", "transfer-encoding", "content-encoding"} & set(by_name)
    assert "SG.key" not in str(sent)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("201", None), ("307", RejectedMailError), ("400", RejectedMailError), ("403", RetryableMailError),
        ("401", RetryableMailError), ("500", RetryableMailError), ("503", RetryableMailError),
        ("slow", RetryableMailError), ("hang", RetryableMailError),
    ],
)  # fmt: skip
def test_what_a_storage_service_may_answer(storage: Storage, how: str, kind: type[Exception] | None) -> None:
    provider = SendGridProvider("SG.key", storage.host, timeout_seconds=0.3)
    place = ImportPlace("1", f"{storage.host}/{how}", {})
    if kind is None:
        provider.upload_import(place, [b"abc"], 3)
    else:
        with pytest.raises(kind) as caught:
            provider.upload_import(place, [b"abc"], 3)
        assert not isinstance(caught.value, MailAuthError)  # no key was sent that could be wrong
        assert storage.host not in str(caught.value)
    assert len(storage.heard) == 1  # no redirect was followed


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "https://169.254.169.254/x", "https://127.0.0.1/x",
        "https://localhost/x", "https://[::1]/x", "http://storage.example.com/x", "file:///etc/passwd",
        "https://intranet/x", "",
    ],
)  # fmt: skip
def test_a_file_goes_nowhere_else(url: str) -> None:
    with pytest.raises(RejectedMailError, match="upload of an import's file"):
        upload_file(
            ImportPlace("1", url, {}), [b"abc"], 3, api_host="https://api.sendgrid.com", timeout_seconds=0.1,
            clock=time.time,
        )  # fmt: skip


def a_type_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """urllib calls the file a form."""
    patch.delattr(file_upload._Put, "has_header")


def a_place_refused_for_good(patch: pytest.MonkeyPatch) -> None:
    """A place whose time is over is taken for a wrong key."""
    patch.setattr(file_upload, "_PLACE_REFUSED", ())


def the_api_s_headers(patch: pytest.MonkeyPatch) -> None:
    """The key goes wherever an answer says."""
    made = file_upload._Put
    patch.setattr(
        file_upload, "_Put",
        lambda url, parts, headers, method: made(url, parts, {**headers, "Authorization": "SG.key"}, method=method),
    )  # fmt: skip


def anywhere(patch: pytest.MonkeyPatch) -> None:
    """Every address is as good as another."""
    patch.setattr(file_upload, "checked_host", lambda url, api_host, what: urlsplit(url).hostname or "")


WRONG: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Storage], None]]] = [
    (a_type_of_its_own, test_the_upload_has_the_headers_it_was_given_and_not_the_key),
    (the_api_s_headers, test_the_upload_has_the_headers_it_was_given_and_not_the_key),
    (
        a_place_refused_for_good,
        lambda storage: test_what_a_storage_service_may_answer(storage, "403", RetryableMailError),
    ),
    (anywhere, lambda storage: test_a_file_goes_nowhere_else("https://127.0.0.1/x")),
]


@pytest.mark.parametrize(("mutant", "test"), WRONG, ids=[mutant.__name__ for mutant, _ in WRONG])
def test_a_wrong_upload_is_caught(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    mutant: Callable[[pytest.MonkeyPatch], None],
    test: Callable[[Storage], None],
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, MailError)):
        test(storage)


@pytest.mark.parametrize("headers", [{"X-A": "1\r\nX-B: 2"}, {"X-A\n": "1"}, {"X-é": "1"}])
def test_headers_that_are_none_are_refused(storage: Storage, headers: dict[str, str]) -> None:
    provider = SendGridProvider("SG.key", storage.host)
    with pytest.raises(RejectedMailError, match="is no header"):
        provider.upload_import(ImportPlace("1", f"{storage.host}/200", headers), [b"abc"], 3)
    assert storage.heard == []


def test_a_large_file_goes_out_in_parts(storage: Storage, tmp_path: Path) -> None:
    """Nobody holds it whole: each part is read when the one before it is on its way."""
    parts, drawn = [bytes([n]) * 65_536 for n in range(64)], []

    def one_by_one() -> Iterator[bytes]:
        for part in parts:
            drawn.append(len(drawn))
            yield part

    provider = SendGridProvider("SG.key", storage.host)
    provider.upload_import(ImportPlace("1", f"{storage.host}/200", {}), one_by_one(), 64 * 65_536)
    assert storage.heard[0][1] == b"".join(parts)
    assert len(drawn) == 64


def test_what_the_rows_above_say() -> None:
    assert [len(row) for row in csv.reader(ROWS.splitlines())] == [2, 2, 2, 2]
