"""Further listeners of a worker: for the routes below `/admin`, and for `/metrics`.

Sanic could prepare a second server itself, but it would run all listeners once more for it, and it goes on
with a warning if the port is taken. These belong to the worker: each is opened before the worker serves,
and closed with it. Each worker binds the port with SO_REUSEPORT, so the kernel picks the worker that answers.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from sanic.server.protocols.base_protocol import SanicProtocol
from typing_extensions import override

from sanic_proxy.errors import NotFound
from sanic_proxy.server.admission import (
    METRICS_PATH,
    MODEL_INFO_PATHS,
    OPEN_PATHS,
    PAGE_FILES,
    is_admin_path,
)
from sanic_proxy.server.connection import ProxyProtocol
from sanic_proxy.server.request import ProxyRequest

_OPEN = {path for path in OPEN_PATHS if path.startswith("/health")}


class AdminProtocol(ProxyProtocol):
    """A connection to the admin port."""

    __slots__ = ()

    port = "admin"

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.request_handler = self._handle
        if self.conn_info is not None:
            self.conn_info.ctx.port = self.port

    async def _handle(self, request: ProxyRequest) -> None:
        """Serve the routes of this port and the health checks, and nothing else."""
        if self._serves(request.path) or request.path in _OPEN:
            await self.app.handle_request(request)
        else:
            raise NotFound(f"No such route on the {self.port} port")

    def _serves(self, path: str) -> bool:
        return is_admin_path(path) or path in PAGE_FILES or path in MODEL_INFO_PATHS


class MetricsProtocol(AdminProtocol):
    """A connection to the port of the metrics."""

    __slots__ = ()

    port = "metrics"

    @override
    def _serves(self, path: str) -> bool:
        return path == METRICS_PATH


class SidePort:
    """The listener, once `open` has returned."""

    def __init__(self, kind: type[AdminProtocol]) -> None:
        self._kind = kind
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[SanicProtocol] = set()

    async def open(self, app: Any, address: tuple[str, int]) -> None:
        """Listen. Raises OSError if the port is taken or the address does not belong to this machine."""
        loop = asyncio.get_running_loop()
        protocol = partial(self._kind, loop=loop, app=app, connections=self._connections)
        host, port = address
        self._server = await loop.create_server(protocol, host, port, reuse_port=True)

    def close(self) -> None:
        """Take no more connections, and close those that are idle."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for connection in list(self._connections):
                connection.close_if_idle()  # type: ignore[attr-defined]
