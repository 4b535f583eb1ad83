"""Whether a request may come in at all: its origin, its host, its key. Decides, and does no I/O."""

from __future__ import annotations

from sanic_proxy.config.model import Settings, is_loopback
from sanic_proxy.errors import Forbidden, InvalidRequest, ProxyError, Unauthorized
from sanic_proxy.server.request import HeaderFields
from sanic_proxy.state import KeyRing

OPEN_PATHS = frozenset(
    {
        *("/", "/docs", "/docs/docs.js", "/openapi.json"),  # they hold nothing of the installation
        *("/health", "/healthz", "/health/liveliness", "/health/readiness"),
    }
)


def refusal(settings: Settings, keys: KeyRing, *, path: str, headers: HeaderFields) -> ProxyError | None:
    """Why the request is refused before routing; None if it may pass."""
    origin = headers.get("origin")
    if (
        origin is None
        and keys.is_known(headers.get("authorization"))
        and "authorization" not in headers.repeated
    ):
        return None
    if origin is not None and not allows_origin(settings, origin):
        return Forbidden(
            "Pages of this origin may not call the proxy (SANIC_PROXY_CORS_ORIGINS)",
            code="origin_denied",
        )
    if keys.is_empty:
        return _host_refusal(settings, headers)
    if path in OPEN_PATHS or (path.endswith("/") and path[:-1] in OPEN_PATHS):
        return None
    return _key_refusal(keys, headers)


def allows_origin(settings: Settings, origin: str) -> bool:
    return settings.cors_origins.allow(origin)


def _host_refusal(settings: Settings, headers: HeaderFields) -> ProxyError | None:
    # Without keys a web page could reach the proxy under a name of its own that resolves to
    # 127.0.0.1 (DNS rebinding): the name in Host gives that away.
    if "host" in headers.repeated:
        return InvalidRequest("The request has more than one Host header")
    name = headers.get("host", "").strip().lower()
    if "," in name:
        return InvalidRequest("The Host header names more than one host")
    bare = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    if is_loopback(bare) or {bare, name, "*"} & settings.allowed_hosts:
        return None
    return Forbidden("This Host is not one of the proxy's (SANIC_PROXY_ALLOWED_HOSTS)", code="host_denied")


def _key_refusal(keys: KeyRing, headers: HeaderFields) -> ProxyError | None:
    presented = _presented_key(headers)
    if presented is None:
        return Unauthorized(
            "No API key: send `Authorization: Bearer <key>`, or the key in `x-api-key` or `api-key`"
        )
    if not keys.opens(presented):
        return Unauthorized("Incorrect API key provided: it is not one of this proxy's keys")
    if (authorization := headers.get("authorization")) is not None:
        keys.remember(authorization)
    return None


def _presented_key(headers: HeaderFields) -> str | None:
    if "authorization" in headers.repeated:
        return None
    if (authorization := headers.get("authorization")) is not None:
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
    return headers.get("x-api-key") or headers.get("api-key")


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
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
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
