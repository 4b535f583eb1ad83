"""A request of `InFlight`, for tests."""

from __future__ import annotations

from sanic_proxy.errors import ProxyError


class Request:
    """A request that notes what is done to it."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self.events: list[str] = []

    def end_connection(self) -> None:
        self.events.append("last on its connection")

    def cut(self, error: ProxyError) -> None:
        self.events.append(f"cut: {error.code}")
