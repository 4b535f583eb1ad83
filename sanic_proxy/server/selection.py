"""Which provider a request names besides its model: the header `x-provider`, or `?provider=`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_plus

from sanic_proxy.config.catalog import EXAMPLE_MODEL
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.server.request import ProxyRequest, header_lines

HEADER = "x-provider"
PARAMETER = "provider"
DROPPED_HEADER = "x-sanic-proxy-dropped-params"
# Of Azure's clients: the version of an API that the provider may not have.
_AZURES_PATHS, _VERSION = "/openai/", "api-version"
_MAX_NAMES = 32
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAME_CHARS = 64
_QUERY_MARK = ord("?")

# What may go into an upstream's path: RFC 3986's query, escapes included.
_QUERY = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]]*")


def named_provider(request: ProxyRequest) -> str | None:
    """The provider's name; None where the model has to say. Raises InvalidRequest for two different ones."""
    if HEADER not in request.fields and _QUERY_MARK not in request.raw_url:
        return None
    names = set(_parameters(request))
    if HEADER in request.fields:
        names.add(request.fields[HEADER])
    if len(names) > 1 or HEADER in request.fields.repeated:
        raise InvalidRequest("The request names more than one provider", param=HEADER)
    return names.pop() if names else None


def _parameters(request: ProxyRequest) -> list[str]:
    pairs = [pair.partition("=") for pair in _query(request).split("&")]
    return [unquote_plus(value) for key, _, value in pairs if unquote_plus(key) == PARAMETER]


def query_up(request: ProxyRequest) -> str:
    """The query with its `?`, without what was meant for the proxy; "" if nothing is left."""
    pairs = [pair for pair in _query(request).split("&") if pair]
    own = {PARAMETER, _VERSION} if request.path.startswith(_AZURES_PATHS) else {PARAMETER}
    kept = "&".join(pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in own)
    if not _QUERY.fullmatch(kept):
        raise InvalidRequest("The query holds characters that must be escaped")
    return f"?{kept}" if kept else ""


def unnamed() -> InvalidRequest:
    """The error for a request that leaves its provider open."""
    return InvalidRequest(
        f"No provider given: prefix the model (`{EXAMPLE_MODEL}`), or send the header "
        "`x-provider` or the query parameter `provider`",
        param="model",
    )


def route_headers(record: RequestRecord) -> list[tuple[str, str]]:
    """The headers that say which way a request has gone."""
    headers = [("x-sanic-proxy-provider", record.provider)] if record.provider is not None else []
    if route := record.route:
        headers.append(("x-sanic-proxy-route", route))
    return headers


def dropped_headers(names: Sequence[str]) -> list[tuple[str, str]]:
    """The header that names what was dropped of a request, if anything was.

    Clients choose the names, so they are shortened and limited to characters that are safe in a header.
    """
    if not names:
        return []
    safe = [_UNSAFE.sub("_", name[:_MAX_NAME_CHARS]) or "_" for name in names[:_MAX_NAMES]]
    more = [f"and-{len(names) - _MAX_NAMES}-more"] if len(names) > _MAX_NAMES else []
    return [(DROPPED_HEADER, ",".join([*safe, *more]))]


def route_lines(record: RequestRecord) -> str:
    """The same as lines of a head."""
    attempts = record.attempts
    if len(attempts) == 1 and attempts[0].outcome == "ok":  # labels hold nothing that could break a line
        route = attempts[0].text()
        return f"x-sanic-proxy-provider: {record.provider}\r\nx-sanic-proxy-route: {route}\r\n"
    return header_lines(route_headers(record))


def _query(request: ProxyRequest) -> str:
    return request.raw_url.partition(b"?")[2].partition(b"#")[0].decode("ascii", "replace")
