"""The rehearsal provider as a fixture: a real server on a free port of this machine, in a thread of this process."""

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from jobs.rehearsal.bodies import Bodies
from jobs.rehearsal.database import Database
from jobs.rehearsal.faults import FaultSettings
from jobs.rehearsal.server import Fault, create_app, no_fault
from jobs.rehearsal.state import Rehearsal

API_KEY = "SG.rehearsal-key-of-the-tests"
JOB_LAG_SECONDS = 0.02


@dataclass(frozen=True)
class Exchange:
    """One API request as it was on the wire, and its answer."""

    method: str
    path: str
    query: str
    content_type: str
    body: bytes
    status: int  # 0: the connection was cut without an answer
    answer: bytes

    def answer_json(self) -> Any:
        return json.loads(self.answer)


def held(state_path: Path, rows_of: str, *parameters: Any) -> list[tuple[str, dict[str, Any]]]:
    """Read address and custom fields (id -> value) of contacts or mails from a provider's file, running or not.

    `rows_of` is what follows SELECT * FROM: "contacts", "mails WHERE single_send = ?".
    """
    database = Database(state_path)
    try:
        bodies = Bodies(database)
        rows = database.rows(f"SELECT * FROM {rows_of}", parameters)  # noqa: S608 - written in tests
        return [(row["email"], bodies.fields_of(row)) for row in rows]
    finally:
        database.close()


@dataclass
class RehearsalServer:
    """`host` with scheme and port; `provider` to look inside; `exchanges` of all API requests so far."""

    host: str
    api_key: str
    state_path: Path
    provider: Rehearsal
    exchanges: list[Exchange] = field(default_factory=list)
    fault: Fault = no_fault

    def http(self) -> httpx.Client:
        """A plain client with the key."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.host, headers=headers, trust_env=False, timeout=20)

    def wait_until_idle(self, timeout_seconds: float = 10.0) -> None:
        """Return when no import is pending, and no mail or erasure is due."""
        deadline = time.monotonic() + timeout_seconds
        while self.provider.imports.pending() or self._has_due_work():
            assert time.monotonic() < deadline, "the rehearsal provider is still busy"
            time.sleep(0.005)

    def _has_due_work(self) -> bool:
        parts = (self.provider.single_sends, self.provider.mail_send, self.provider.erasures)
        due_at = min((at for part in parts if (at := part.next_due_at()) is not None), default=None)
        return due_at is not None and due_at <= self.provider.clock().timestamp()


class _Recorder:
    """An ASGI application around the real one that keeps what goes over the wire."""

    def __init__(self, app: Callable[..., Any], exchanges: list[Exchange]) -> None:
        self._app = app
        self._exchanges = exchanges

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v3/"):
            await self._app(scope, receive, send)
            return
        body, answer, status = bytearray(), bytearray(), 0

        def note() -> None:
            kind = dict(scope["headers"]).get(b"content-type", b"").decode()
            query = scope["query_string"].decode()
            self._exchanges.append(
                Exchange(scope["method"], scope["path"], query, kind, bytes(body), status, bytes(answer))
            )

        async def hear() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def say(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            answer.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                note()
            await send(message)

        await self._app(scope, hear, say)
        if not status:  # a connection that was cut
            note()


@contextlib.contextmanager
def serve(
    state_path: Path,
    *,
    job_lag_seconds: float = JOB_LAG_SECONDS,
    limit_per_minute: int | None = None,
    faults: FaultSettings | None = None,
) -> Iterator[RehearsalServer]:
    """Serve a provider with its state at `state_path` until the end of the block."""
    provider = Rehearsal(state_path, job_lag_seconds=job_lag_seconds, faults=faults)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    served = RehearsalServer(f"http://127.0.0.1:{listener.getsockname()[1]}", API_KEY, state_path, provider)
    app = create_app(
        provider,
        api_key=API_KEY,
        fault=lambda method, path: served.fault(method, path),
        limit_per_minute=limit_per_minute,
    )
    config = uvicorn.Config(
        _Recorder(app, served.exchanges), log_config=None, access_log=False, ws="none", lifespan="on",
        timeout_graceful_shutdown=1, http=app.state.connections.protocol(),
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline, "the rehearsal server did not start"
            time.sleep(0.005)
        yield served
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture
def rehearsal_server(tmp_path: Path) -> Iterator[RehearsalServer]:
    """An empty rehearsal provider."""
    with serve(tmp_path / "rehearsal.sqlite") as served:
        yield served


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A receiver of event posts that writes each body into a file, as a shop has to: its URL, and the folder."""
    folder = tmp_path / "posts"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (folder / f"{len(list(folder.iterdir())):05}.json").write_bytes(body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/events", folder
    server.shutdown()
    server.server_close()


def listen(served: RehearsalServer, url: str) -> None:
    """Have the provider post its events of mails to `url`."""
    wanted = dict.fromkeys(("processed", "delivered", "dropped", "bounce", "open", "click"), True)
    with served.http() as api:
        assert api.post("/v3/user/webhooks/event/settings", json={"enabled": True, "url": url, **wanted}).is_success
