"""Cuts a client's connection without an answer: what a client sees when the provider's side breaks."""

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connections:
    """The open connections of one server, by the client's address."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """Give the class that uvicorn is to make of each connection (its option `http`)."""
        open_ = self._open

        class Noted(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client is not None:
                    open_[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None:
                    open_.pop(self.client, None)
                super().connection_lost(exc)

        return Noted

    def cut(self, client: tuple[str, int] | None) -> None:
        """Reset the connection of that client."""
        transport = self._open.get(client) if client is not None else None
        if transport is not None:
            transport.abort()


class NoAnswer(Response):
    """Hangs for some seconds, or until the client gives up, and then cuts the connection."""

    def __init__(self, connections: Connections, hang_seconds: float) -> None:
        """Cut through `connections`."""
        super().__init__()
        self._connections = connections
        self._hang_seconds = hang_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing, and come back when the connection is gone."""
        gone = asyncio.ensure_future(_disconnect(receive))
        if self._hang_seconds:
            await asyncio.wait([gone], timeout=self._hang_seconds)
        if not gone.done():
            client: Any = scope.get("client")
            self._connections.cut(tuple(client) if client else None)
        await gone


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
