"""Who sends a request, and whether it may come in: its key, origin and host. Decides, and does no I/O.

Without keys (open mode) everybody who reaches the port may call, and a browser on the same machine reaches
it for every page that it shows. Three checks keep such pages out. `Origin`: pages that ask openly (fetch,
forms) must be allowed, or served from the address that they call. `Host`: a page whose own name resolves to
127.0.0.1 (DNS rebinding) is of the same origin, but its name gives it away. `Sec-Fetch-Site`: what a page
merely embeds (images, scripts, no-cors GETs) carries no Origin, but browsers say where it comes from; it must
not make the providers work.
"""

from __future__ import annotations

import hmac
import time
from functools import lru_cache
from urllib.parse import parse_qs, unquote

from sanic.exceptions import NotFound

from sanic_proxy.config.model import Settings, is_loopback
from sanic_proxy.config.rules import iso_time
from sanic_proxy.dialects.registry import dialect_for
from sanic_proxy.errors import Forbidden, Unauthorized
from sanic_proxy.governance.key_ring import KeyRing
from sanic_proxy.governance.keys import KEY_PREFIX
from sanic_proxy.observability.in_flight import overloaded
from sanic_proxy.observability.record import ANONYMOUS, Client
from sanic_proxy.server.access import check_endpoint
from sanic_proxy.server.request import (
    HeaderFields,
    ProxyRequest,
    Reply,
    header_lines,
    is_own_origin,
    port_of,
)
from sanic_proxy.state import AppState

# The files of pages hold nothing of the installation, and reach no provider.
PAGE_FILES = ("/style.css", "/page.js")  # which all pages use
DOCS_FILES = ("/openapi.json", "/docs/docs.css", "/docs/docs.js", "/docs/fields.js", "/docs/examples.js")
_HEALTH = ("/health", "/healthz", "/health/liveliness", "/health/readiness", "/api/hello")
OPEN_PATHS = frozenset(("/", "/docs", *PAGE_FILES, *DOCS_FILES, *_HEALTH))
# The routes below these demand a key of their own: see `check_admin`.
_ADMIN_PREFIXES = ("/admin/", "/key/", "/spend/", "/ui/")
METRICS_PATH = "/metrics"
UI_PATH = "/ui"
_ADMIN_STARTS = (*_ADMIN_PREFIXES, METRICS_PATH, UI_PATH)
# The admin key opens these as well as a client's.
MODEL_INFO_PATHS = frozenset(("/model/info", "/v1/model/info"))
# These reach no provider, so pages of other sites may lead to them; the front page asks for models.
_LINKED_PATHS = (OPEN_PATHS - {"/"}) | {UI_PATH}


def is_admin_path(path: str) -> bool:
    """Whether the routes at `path` are for administrators, and need the admin key instead of a client's."""
    return path.startswith(_ADMIN_PREFIXES) or path in {METRICS_PATH, UI_PATH}


def offers_admin(settings: Settings, path: str, port: str) -> bool:
    """Whether the admin route at `path` exists, at this port: elsewhere it is like any unknown path."""
    if path == METRICS_PATH and settings.metrics_address is not None:
        return port == "metrics"
    return settings.admin_key is not None and port == ("" if settings.admin_address is None else "admin")


def without_keys(path: str) -> str:
    """A path as the log may show it. Administrators may name a key by itself, and mistype the rest."""
    return "/".join("***" if unquote(part).startswith(KEY_PREFIX) else part for part in path.split("/"))


def let_in(request: ProxyRequest, state: AppState, is_repeated: bool = False) -> Reply | None:
    """Let a request in, note its client, or return the answer to a preflight.

    Raises what refuses the request, UnknownKey as well: the request is let in once more (`is_repeated`) when
    its key has been looked up. No request middleware has seen it until it is let in.
    """
    headers = request.fields
    settings = state.settings
    is_admin = is_offered = False
    if request.path.startswith(_ADMIN_STARTS) and is_admin_path(request.path):
        is_admin, is_offered = True, offers_admin(settings, request.path, port_of(request))
        request.record.path = without_keys(request.path)
    if "origin" in headers and not is_repeated:
        check_origin(settings, headers, request.ip)
        request.answer_lines += header_lines(cors_headers(headers))
        if is_preflight(request.method, headers):
            return Reply(header_lines(preflight_headers(headers)), status=204)
    request.record.client = client = admit(
        settings, state.keys, request.path, headers, request.raw_url, is_admin=is_offered
    )
    rules = client.rules
    if rules.endpoints or rules.team:
        check_endpoint(state.rulebook, client, request.path)
    traffic = state.traffic
    if len(traffic.requests) > traffic.max_requests and request.path not in OPEN_PATHS:
        raise overloaded()
    if is_admin:
        check_offered(request, settings)
    return None


def admit(
    settings: Settings,
    keys: KeyRing,
    path: str,
    headers: HeaderFields,
    url: bytes = b"",
    *,
    is_admin: bool = False,
) -> Client:
    """The client that sends the request. Raises Unauthorized or Forbidden if it may not; see `authenticate`.

    A request with an Origin has passed `check_origin`. The query of `url` may hold the key where the path's
    API has a parameter for it. `is_admin`: the route demands a key of its own.
    """
    if keys.is_empty:
        _check_host(settings, headers.get("host", ""))
        if "sec-fetch-site" in headers:
            _check_site(headers, path)
        return ANONYMOUS
    client = keys.remembered(headers.get("authorization"))
    if client is not None and "authorization" not in headers.repeated:
        expires = client.rules.expires
        if expires is None or expires > time.time():
            return client
    try:
        return authenticate(keys, headers, _key_in_query(path, url))
    except Unauthorized:
        is_open = path in OPEN_PATHS or (path.endswith("/") and path[:-1] in OPEN_PATHS)
        if is_open or is_admin or (path in MODEL_INFO_PATHS and _may_be_admin(settings, headers)):
            return ANONYMOUS
        raise


def _may_be_admin(settings: Settings, headers: HeaderFields) -> bool:
    """Whether a request with no client's key may be an administrator's, which its route checks."""
    key = presented_key(headers)
    return settings.admin_key is not None and (key is None or is_admin_key(settings, key))


def is_admin_key(settings: Settings, key: str) -> bool:
    """Whether that is the admin key."""
    wanted = "" if settings.admin_key is None else settings.admin_key.reveal()
    return bool(wanted) and hmac.compare_digest(key.encode("utf-8", "surrogateescape"), wanted.encode())


def authenticate(keys: KeyRing, headers: HeaderFields, in_query: str | None = None) -> Client:
    """The client whose key the request presents, in its headers or `in_query`. Raises Unauthorized.

    UnknownKey, one kind of it, means that the key has to be looked up in the store.
    """
    key = presented_key(headers) or in_query
    if key is None:
        raise Unauthorized(
            "No API key: send `Authorization: Bearer <key>`, or the key in `x-api-key`, `api-key` or "
            "`x-goog-api-key`"
        )
    client = keys.client_with(key)
    if client is None:
        raise keys.refusal(key)
    if client.rules.expires is not None and client.rules.expires <= time.time():
        raise Unauthorized(f"The API key expired at {iso_time(client.rules.expires)}", code="key_expired")
    # Only a header that holds the key itself: anyone may send one that stands beside a key elsewhere.
    if key == _bearer_key(headers):
        keys.remember(headers["authorization"], client)
    return client


def check_offered(request: ProxyRequest, settings: Settings) -> None:
    """Raises Sanic's NotFound if this admin route does not exist here, as for any unknown path."""
    if not offers_admin(settings, request.path, port_of(request)):
        raise NotFound("No such route")


def check_admin(settings: Settings, headers: HeaderFields) -> None:
    """Let a request to a route for operators pass, by the admin key. Raises Unauthorized."""
    key = presented_key(headers)
    if key is None:
        raise Unauthorized("No admin key: send `Authorization: Bearer <SANIC_PROXY_ADMIN_KEY>`")
    if not is_admin_key(settings, key):
        raise Unauthorized("Incorrect admin key: it is not the one in SANIC_PROXY_ADMIN_KEY")


def check_origin(settings: Settings, headers: HeaderFields, peer: str) -> None:
    """Raises Forbidden if pages of the request's Origin may not call. `peer` is the client's address."""
    origin = headers["origin"]
    if settings.cors_origins.allow(origin) or is_own_origin(origin, headers, peer):
        return
    raise Forbidden(
        f"Pages of the origin {origin[:100]!r} may not call the proxy: its operator can add the origin "
        "to SANIC_PROXY_CORS_ORIGINS",
        code="origin_denied",
    )


def _check_host(settings: Settings, host: str) -> None:
    if not _is_served(host, settings.allowed_hosts):
        raise Forbidden(
            f"The proxy does not serve the host {_without_port(host.lower())[:100]!r}: its operator can add "
            "it to SANIC_PROXY_ALLOWED_HOSTS",
            code="host_denied",
        )


@lru_cache(maxsize=1024)  # clients send the same few with each request
def _is_served(host: str, allowed: frozenset[str]) -> bool:
    name = host.lower()
    bare = _without_port(name)
    return is_loopback(bare) or not allowed.isdisjoint((bare, name, "*"))


def _without_port(host: str) -> str:
    # The connection has checked the header's syntax.
    return host[: host.index("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _check_site(headers: HeaderFields, path: str) -> None:
    site = headers["sec-fetch-site"]
    if site in {"none", "same-origin"} or "origin" in headers or path in _LINKED_PATHS:
        return
    raise Forbidden(
        f"Pages of other sites may not call the proxy (Sec-Fetch-Site: {site[:40]}): its operator can allow "
        "their origins in SANIC_PROXY_CORS_ORIGINS",
        code="origin_denied",
    )


def _bearer_key(headers: HeaderFields) -> str | None:
    """The key in the `Authorization` header, if that is a Bearer token."""
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def presented_key(headers: HeaderFields) -> str | None:
    """The key that a request presents in a header."""
    if "authorization" in headers.repeated:
        return None
    return (
        _bearer_key(headers)
        or headers.get("x-api-key")
        or headers.get("api-key")
        or headers.get("x-goog-api-key")
    )


def _key_in_query(path: str, url: bytes) -> str | None:
    """The key in the query, which only some APIs know. The access log has no query."""
    query = url.partition(b"?")[2]
    if not query or not (parameter := dialect_for(path).key_parameter):
        return None
    values = parse_qs(query.decode("ascii", "replace")).get(parameter, [])
    return values[0] if len(values) == 1 else None


# CORS: with sanic-ext's, a middleware would run on every answer, and the origins would have to be
# known when the app is created.


def is_preflight(method: str, headers: HeaderFields) -> bool:
    return (
        method == "OPTIONS"
        and headers.get("origin") is not None
        and (headers.get("access-control-request-method") is not None)
    )


def preflight_headers(headers: HeaderFields) -> list[tuple[str, str]]:
    """The answer to a preflight whose origin may call. The key comes with the request itself."""
    wanted = headers.get("access-control-request-headers")
    return [
        ("access-control-allow-methods", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("access-control-allow-headers", wanted or "authorization, content-type"),
        ("access-control-max-age", "600"),
    ]


def cors_headers(headers: HeaderFields) -> list[tuple[str, str]]:
    """What a page needs to read an answer; the origin has been allowed before."""
    return [
        ("access-control-allow-origin", headers["origin"]),
        ("access-control-expose-headers", "*, x-request-id, retry-after"),
        ("vary", "Origin"),
    ]
