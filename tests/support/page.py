"""A browser's side of the operator's page: a login, and the events of `/admin/events`."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.admin import ADMIN_KEY
from tests.support.proxy import GENEROUS_S, Proxy, Reply


class Login(NamedTuple):
    """A session: the cookie as a browser sends it, and the token for requests that change something."""

    cookie: str
    csrf: str
    origin: str

    @property
    def reading(self) -> dict[str, str]:
        """The headers of a request that reads."""
        return {"cookie": self.cookie, "sec-fetch-site": "same-origin"}

    @property
    def changing(self) -> dict[str, str]:
        """The headers of a request that changes something."""
        return {**self.reading, "origin": self.origin, "x-csrf-token": self.csrf}


def log_in(proxy: Proxy, key: object = ADMIN_KEY, headers: Mapping[str, str] | None = None) -> Reply:
    """The answer to a login from a page of the proxy."""
    return proxy.request("POST", "/ui/login", {"key": key}, {"origin": proxy.url, **(headers or {})})


def logged_in(proxy: Proxy, key: str = ADMIN_KEY) -> Login:
    """A session with `key`."""
    reply = log_in(proxy, key)
    assert reply.status == 200, reply.body
    return Login(reply.headers["set-cookie"].partition(";")[0], reply.json["csrf"], proxy.url)


class Event(NamedTuple):
    """One event: its id ("" without), its type and its data. A comment has the type ":"."""

    id: str
    type: str
    data: Any


class Listener:
    """An open stream of events."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._answer = answer
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}

    def events(self) -> Iterator[Event]:
        """The events as they come, until the proxy ends the stream. Fails if it breaks off."""
        fields: dict[str, str] = {}
        while line := self._answer.readline():
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(":")
                fields[name] = value.strip()
                continue
            if "event" in fields:
                yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            elif "" in fields:
                yield Event("", ":", fields[""])
            fields = {}
        assert self._answer.isclosed()

    def requests(self) -> Iterator[Event]:
        """The events of requests that have ended."""
        return (event for event in self.events() if event.type == "request")

    def take(self, count: int, kind: str = "request") -> list[Event]:
        """The next events of one type."""
        found = (event for event in self.events() if event.type == kind)
        return [next(found) for _ in range(count)]


@contextlib.contextmanager
def listening(
    proxy: Proxy, headers: Mapping[str, str], query: str = "?types=request", timeout_s: float = GENEROUS_S
) -> Iterator[Listener]:
    """A listener to the proxy's events."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout_s)
    try:
        connection.request("GET", f"/admin/events{query}", headers=dict(headers))
        yield Listener(connection, connection.getresponse())
    finally:
        connection.close()
