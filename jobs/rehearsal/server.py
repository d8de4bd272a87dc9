"""The HTTP side of the rehearsal provider: who may ask, what is noted, and how an answer is put on the wire."""

import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from jobs.rehearsal import limits
from jobs.rehearsal.api import ERRORS_PATH, Answer, Call, Handler, routes
from jobs.rehearsal.contacts import iso
from jobs.rehearsal.history import REQUESTS_PER_PAGE
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.mailbox_pages import PAGE_POLICY, Mailbox, mail_policy
from jobs.rehearsal.pictures import ID_CHARACTERS, picture
from jobs.rehearsal.state import Rehearsal

# The names by which this machine calls itself. A page of the open web that lets its own name resolve to 127.0.0.1
# sends that name as the host, and gets nothing.
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost")
_log = logging.getLogger(__name__)

Fault = Callable[[str, str], Answer | None]
"""Asked with method and path before each API request is handled; an answer replaces the real one."""


def no_fault(method: str, path: str) -> Answer | None:
    """Let every request through."""
    return None


class RateWindow:
    """Counts requests per endpoint and minute, as SendGrid's X-RateLimit headers describe it."""

    def __init__(self, limit_per_minute: int) -> None:
        """Allow `limit_per_minute` requests to each endpoint in each minute of the clock."""
        self._limit = limit_per_minute
        self._minute = 0
        self._counts: dict[str, int] = {}

    def enter(self, endpoint: str, now: datetime) -> tuple[bool, dict[str, str]]:
        """Count a request; say whether it is within the limit, and give the headers of its answer."""
        minute = int(now.timestamp()) // 60
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        count = self._counts[endpoint] = self._counts.get(endpoint, 0) + 1
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - count)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
        return count <= self._limit, headers


def create_app(
    provider: Rehearsal, *, api_key: str, fault: Fault = no_fault, limit_per_minute: int | None = None
) -> Starlette:
    """Make the server's application; its lifespan starts and stops the provider's worker."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        provider.start()
        try:
            yield
        finally:
            await run_in_threadpool(provider.stop)

    window = RateWindow(limit_per_minute) if limit_per_minute else None
    api = [
        Route(path, _endpoint(provider, path, handlers, api_key, fault, window), methods=list(_METHODS))
        for path, handlers in routes(provider).items()
    ]
    api.append(
        Route("/v3/{rest:path}", _endpoint(provider, "/v3/", {}, api_key, fault, window), methods=list(_METHODS))
    )
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_NAMES), www_redirect=False)
    return Starlette(routes=[*api, *_pages(provider)], middleware=[hosts], lifespan=lifespan)


_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def _endpoint(
    provider: Rehearsal,
    path: str,
    handlers: Mapping[str, Handler],
    api_key: str,
    fault: Fault,
    window: RateWindow | None,
) -> Callable[[Request], object]:
    """Wrap the handlers of one path with what every API request goes through."""
    expected = f"Bearer {api_key}".encode()

    def handle(request: Request, body: bytes | None, now: datetime) -> Answer:
        method = request.method
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            raise limits.unauthorized()
        if body is None:
            raise limits.too_large()
        rate_headers: dict[str, str] = {}
        if window is not None:
            is_within, rate_headers = window.enter(f"{method} {path}", now)
            if not is_within:
                return Answer(429, limits.too_many_requests().body(), rate_headers)
        answer = fault(method, request.url.path)
        if answer is None:
            if not handlers:
                raise limits.not_found()
            if method not in handlers:
                raise ApiError(405, Problem("method not allowed"))
            if body and not request.headers.get("content-type", "").startswith("application/json"):
                raise ApiError(415, Problem("Content-Type should be application/json."))
            answer = handlers[method](
                Call(request.path_params, request.query_params, body, str(request.url), _host(request), now)
            )
        return Answer(answer.status, answer.content, {**rate_headers, **answer.headers})

    def respond(request: Request, body: bytes | None, now: datetime) -> Answer:
        try:
            return handle(request, body, now)
        except ApiError as error:
            return Answer(error.status, error.body())
        except Exception:
            _log.exception("the rehearsal provider failed at %s %s", request.method, path)
            return Answer(500, {"errors": [{"message": "internal server error"}]})

    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        now = provider.clock()
        try:
            body, received = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)
        answer = await run_in_threadpool(respond, request, body, now)
        # An address in a path is replaced by the name of its place.
        shown = request.url.path if "@" not in request.url.path else path
        await run_in_threadpool(
            provider.history.add,
            received_at=iso(now),
            method=request.method,
            path=shown,
            status=answer.status,
            body_bytes=received,
            milliseconds=(time.perf_counter() - started) * 1000,
        )
        headers = dict(answer.headers)
        if answer.content is None:
            return Response(status_code=answer.status, headers=headers)
        return JSONResponse(answer.content, status_code=answer.status, headers=headers)

    return endpoint


async def _read(request: Request) -> tuple[bytes | None, int]:
    """Read the body; None in its place if it is larger than anything that could be accepted."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limits.READ_BYTES:
            parts.append(part)
    return (b"".join(parts) if size <= limits.READ_BYTES else None), size


def _host(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _pages(provider: Rehearsal) -> list[Route]:
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
            return Response(provider.contacts.job_errors_csv(request.path_params["job_id"]), media_type="text/csv")
        except ApiError as error:
            return PlainTextResponse(error.problems[0].message, status_code=error.status)

    def history(request: Request) -> Response:
        try:
            after = limits.whole_number(request.query_params.get("after"), field="after", default=0)
            limit = limits.page_size(request.query_params.get("limit"), REQUESTS_PER_PAGE, "limit")
        except ApiError as error:
            return JSONResponse(error.body(), status_code=error.status)
        return JSONResponse(provider.history.page(after=after, limit=limit))

    def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "pending_jobs": provider.contacts.pending_jobs()})

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
        Route("/history", history),
        Route("/health", health),
    ]
