"""The HTTP side of the rehearsal provider: who may ask, what is noted, and how an answer is put on the wire."""

import hashlib
import hmac
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from jobs.rehearsal import limits
from jobs.rehearsal.api import ERRORS_PATH, routes
from jobs.rehearsal.behaviour import Behaviour
from jobs.rehearsal.calls import Answer, Call, Handler
from jobs.rehearsal.connections import Connections, NoAnswer
from jobs.rehearsal.csv_files import FILE_BYTES
from jobs.rehearsal.csv_imports import UPLOAD_PATH
from jobs.rehearsal.faults import RequestFault
from jobs.rehearsal.history import REQUESTS_PER_PAGE
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.mail_api import no_credits
from jobs.rehearsal.mailbox_pages import PAGE_POLICY, Mailbox, mail_policy
from jobs.rehearsal.pictures import ID_CHARACTERS, picture
from jobs.rehearsal.state import Rehearsal

# The names by which this machine calls itself. A page of the open web that lets its own name resolve to 127.0.0.1
# sends that name as the host, and gets nothing.
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost")
CONTROLS_PATH: Final = "/_rehearsal/"  # no limits and no faults: what sets them must get through
COSTS_CREDITS: Final = (
    "POST /v3/mail/send",
    "PUT /v3/marketing/contacts",
    "PUT /v3/marketing/contacts/imports",
    "PUT /v3/marketing/singlesends/{id}/schedule",
)
_log = logging.getLogger(__name__)

Fault = Callable[[str, str], Answer | None]
"""Asked with method and path before each API request is handled; an answer replaces the real one."""


def no_fault(method: str, path: str) -> Answer | None:
    """Let every request through."""
    return None


class RateWindow:
    """Counts requests per endpoint and window of the clock, as SendGrid's X-RateLimit headers describe it."""

    def __init__(self) -> None:
        self._window = (0, 0.0)
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def enter(self, endpoint: str, now: datetime, limit: int, seconds: float) -> tuple[bool, dict[str, str]]:
        """Count a request; say whether it is among the `limit` first ones, and give the headers of its answer."""
        number = int(now.timestamp() // seconds)
        with self._lock:
            if (number, seconds) != self._window:
                self._window, self._counts = (number, seconds), {}
            count = self._counts[endpoint] = self._counts.get(endpoint, 0) + 1
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - count)),
            "X-RateLimit-Reset": str(math.ceil((number + 1) * seconds)),
        }
        return count <= limit, headers


def create_app(
    provider: Rehearsal, *, api_key: str, fault: Fault = no_fault, limit_per_minute: int | None = None
) -> Starlette:
    """Make the server's application; its lifespan starts and stops the provider's worker.

    It is to be served by uvicorn with `http=app.state.connections.protocol()`, or faults could not cut a connection.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        provider.start()
        try:
            yield
        finally:
            await run_in_threadpool(provider.stop)

    if limit_per_minute:
        provider.behaviour = Behaviour(rate_limit_requests=limit_per_minute)
    window = RateWindow()
    connections = Connections()

    def endpoint(path: str, handlers: Mapping[str, Handler]) -> Callable[[Request], object]:
        return _Endpoint(provider, path, handlers, api_key, fault, window, connections).answer

    api = [Route(path, endpoint(path, handlers), methods=list(_METHODS)) for path, handlers in routes(provider).items()]
    api.append(Route("/v3/{rest:path}", endpoint("/v3/", {}), methods=list(_METHODS)))
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_NAMES), www_redirect=False)
    app = Starlette(routes=[*api, *_pages(provider, connections)], middleware=[hosts], lifespan=lifespan)
    app.state.connections = connections
    return app


_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class _Endpoint:
    """The handlers of one path, and what every API request goes through before and after them."""

    def __init__(
        self,
        provider: Rehearsal,
        path: str,
        handlers: Mapping[str, Handler],
        api_key: str,
        fault: Fault,
        window: RateWindow,
        connections: Connections,
    ) -> None:
        self._provider = provider
        self._path = path
        self._handlers = handlers
        self._expected = f"Bearer {api_key}".encode()
        self._fault = fault
        self._window = window
        self._connections = connections

    async def answer(self, request: Request) -> Response:
        """Read the request, note it, and put its answer on the wire, or cut the connection."""
        started = time.perf_counter()
        now = self._provider.clock()
        try:
            body, received = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)
        digest = await run_in_threadpool(_digest, body)
        answer, fault = await run_in_threadpool(self._respond, request, body, digest, now)
        is_cut = fault is not None and fault.is_cut
        # An address in a path is replaced by the name of its place.
        shown = request.url.path if "@" not in request.url.path else self._path
        await run_in_threadpool(
            self._provider.history.add,
            received_at=now,
            method=request.method,
            path=shown,
            status=0 if is_cut else answer.status,
            fault=fault.name if fault is not None else None,
            digest=digest,
            body_bytes=received,
            milliseconds=(time.perf_counter() - started) * 1000,
        )
        if is_cut:
            return NoAnswer(self._connections, self._provider.faults.settings.hang_seconds)
        headers = dict(answer.headers)
        if answer.content is None:
            return Response(status_code=answer.status, headers=headers)
        return JSONResponse(answer.content, status_code=answer.status, headers=headers)

    def _respond(
        self, request: Request, body: bytes | None, digest: str, now: datetime
    ) -> tuple[Answer, RequestFault | None]:
        """Give the answer and the fault that the request met; with a fault that is cut nobody gets the answer."""
        fault: RequestFault | None = None
        headers: dict[str, str] = {}
        try:
            self._authorise(request)
            if body is None:
                raise limits.too_large()
            if not self._path.startswith(CONTROLS_PATH):
                behaviour, endpoint = self._provider.behaviour, f"{request.method} {self._path}"
                if (limit := behaviour.rate_limit_requests) is not None:
                    is_within, headers = self._window.enter(endpoint, now, limit, behaviour.rate_limit_seconds)
                    if not is_within:
                        return Answer(429, limits.too_many_requests().body(), headers), None
                if not behaviour.has_credits and endpoint in COSTS_CREDITS:
                    raise no_credits()
                fault = self._provider.faults.of_request(request.method, request.url.path, digest, now)
            if fault is None or fault.is_handled:
                answer = self._handle(request, body, digest, now)
                if fault is None:
                    return Answer(answer.status, answer.content, {**headers, **answer.headers}), None
        except ApiError as error:
            return Answer(error.status, error.body(), headers), fault
        except Exception:
            _log.exception("the rehearsal provider failed at %s %s", request.method, self._path)
            return Answer(500, {"errors": [{"message": "internal server error"}]}), fault
        if fault.name == "too_many_requests":
            reset = {"X-RateLimit-Limit": "0", "X-RateLimit-Remaining": "0"}
            if fault.retry_after is not None:
                reset |= {"Retry-After": fault.retry_after}
            return Answer(429, limits.too_many_requests().body(), {**headers, **reset}), fault
        return Answer(fault.status, {"errors": [{"message": "internal server error"}]}, headers), fault

    def _authorise(self, request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            raise limits.unauthorized()

    def _handle(self, request: Request, body: bytes, digest: str, now: datetime) -> Answer:
        method = request.method
        if (answer := self._fault(method, request.url.path)) is not None:
            return answer
        if not self._handlers:
            raise limits.not_found()
        if method not in self._handlers:
            raise ApiError(405, Problem("method not allowed"))
        if body and not request.headers.get("content-type", "").startswith("application/json"):
            raise ApiError(415, Problem("Content-Type should be application/json."))
        return self._handlers[method](
            Call(request.path_params, request.query_params, body, str(request.url), _host(request), now, digest)
        )


async def _read(request: Request) -> tuple[bytes | None, int]:
    """Read the body; None in its place if it is larger than anything that could be accepted."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limits.READ_BYTES:
            parts.append(part)
    return (b"".join(parts) if size <= limits.READ_BYTES else None), size


def _digest(body: bytes | None) -> str:
    return hashlib.sha256(body).hexdigest() if body else ""


def _host(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _pages(provider: Rehearsal, connections: Connections) -> list[Route]:
    """Make the routes of the pages for people, which need no key."""
    mailbox = Mailbox(provider)
    page_headers = {
        "Content-Security-Policy": PAGE_POLICY,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    def shown(render: Callable[[], str]) -> Response:
        try:
            return HTMLResponse(render(), headers=page_headers)
        except ApiError as error:
            page = mailbox.error_page(error.status, error.problems[0].message)
            return HTMLResponse(page, status_code=error.status, headers=page_headers)

    def overview(request: Request) -> Response:
        def number(name: str) -> int:
            return limits.whole_number(request.query_params.get(name), field=name, default=0)

        return shown(
            lambda: mailbox.overview(
                send_id=request.query_params.get("send", ""),
                address=request.query_params.get("address", "").strip()[:254],
                before=number("before"),
                page=number("page"),
                host=_host(request),
            )
        )

    def mail(request: Request) -> Response:
        is_remote = request.query_params.get("pictures") == "remote"
        return shown(
            lambda: mailbox.mail_page(request.path_params["mail"], _host(request), is_remote_allowed=is_remote)
        )

    def mail_html(request: Request) -> Response:
        is_remote = request.query_params.get("pictures") == "remote"
        try:
            content = mailbox.mail(request.path_params["mail"], _host(request)).html
        except ApiError as error:
            return PlainTextResponse(error.problems[0].message, status_code=error.status)
        # Links of a mail open beside it, as in a mail program.
        content = content.replace("<head>", '<head><base target="_blank">', 1)
        policy = mail_policy(is_remote_allowed=is_remote)
        return HTMLResponse(content, headers={**page_headers, "Content-Security-Policy": policy})

    def unsubscribe(request: Request) -> Response:
        number = request.path_params["mail"]
        if request.method == "GET":
            return shown(lambda: mailbox.unsubscribe_page(number, _host(request), is_done=False))

        def done() -> str:
            mailbox.unsubscribe(number)
            return mailbox.unsubscribe_page(number, _host(request), is_done=True)

        return shown(done)

    def stylesheet(request: Request) -> Response:
        return Response(mailbox.stylesheet(), media_type="text/css", headers={"Cache-Control": "max-age=60"})

    def image(request: Request) -> Response:
        item = request.path_params["item"]
        if len(item) > ID_CHARACTERS:
            return PlainTextResponse("the item id is too long", status_code=404)
        headers = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "max-age=86400"}
        return Response(picture(item), media_type="image/svg+xml", headers=headers)

    def import_errors(request: Request) -> Response:
        try:
            return Response(provider.imports.errors_csv(request.path_params["job_id"]), media_type="text/csv")
        except ApiError as error:
            return PlainTextResponse(error.problems[0].message, status_code=error.status)

    async def upload(request: Request) -> Response:
        """Take a file, of any size that is allowed, onto the disk."""
        token, now = request.path_params["token"], provider.clock()
        received, status, message = 0, 200, ""
        fault: RequestFault | None = None
        partial: Path | None = None
        try:
            path = await run_in_threadpool(provider.csv_imports.upload_path, token, request.headers)
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                async for part in request.stream():
                    received += len(part)
                    if received <= FILE_BYTES:
                        file.write(part)
            if received > FILE_BYTES:
                raise limits.bad_request("EntityTooLarge")
            fault = provider.faults.of_request("PUT", request.url.path, "", now)
            if fault is None or fault.is_handled:
                partial.rename(path)
                await run_in_threadpool(provider.csv_imports.uploaded, token, now)
                provider.wake()
            if fault is not None:
                status = 0 if fault.is_cut else fault.status
        except ApiError as error:
            status, message = error.status, error.problems[0].message
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if partial is not None:
                partial.unlink(missing_ok=True)
        await run_in_threadpool(
            provider.history.add, received_at=now, method="PUT", path=UPLOAD_PATH, status=status,
            fault=fault.name if fault is not None else None, digest="", body_bytes=received, milliseconds=0,
        )  # fmt: skip
        if not status:
            return NoAnswer(connections, provider.faults.settings.hang_seconds)
        return PlainTextResponse(message, status_code=status)

    def history(request: Request) -> Response:
        try:
            after = limits.whole_number(request.query_params.get("after"), field="after", default=0)
            limit = limits.page_size(request.query_params.get("limit"), REQUESTS_PER_PAGE, "limit")
        except ApiError as error:
            return JSONResponse(error.body(), status_code=error.status)
        return JSONResponse(provider.history.page(after=after, limit=limit))

    def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "pending_jobs": provider.imports.pending()})

    def home(request: Request) -> Response:
        return RedirectResponse("/mailbox")

    return [
        Route("/", home),
        Route("/mailbox", overview),
        Route("/mailbox.css", stylesheet),
        Route("/mailbox/{mail:int}", mail),
        Route("/mailbox/{mail:int}/html", mail_html),
        Route("/unsubscribe/{mail:int}", unsubscribe, methods=["GET", "POST"]),
        Route("/images/{item:path}.svg", image),
        Route(ERRORS_PATH, import_errors),
        Route(UPLOAD_PATH, upload, methods=["PUT"]),
        Route("/history", history),
        Route("/health", health),
    ]
