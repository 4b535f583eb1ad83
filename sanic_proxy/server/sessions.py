"""Sessions in requests: the cookie, and what a request has to show beside it.

A browser sends the cookie with every request to the proxy's host, whichever page causes it. Three checks keep
the requests of other pages out, besides `SameSite=Strict`, which does not cover other ports and subdomains.
The origin must be the proxy's own wherever the browser names one. `Sec-Fetch-Site` must be `same-origin`, or
`none`, if it is there. A request that changes something must carry the session's CSRF token, which only the
page can read. A request that presents a key has no session.
"""

from __future__ import annotations

import hmac
import time

from sanic_proxy.errors import Forbidden
from sanic_proxy.governance.sessions import COOKIE, LIFETIME_S, Session
from sanic_proxy.server.admission import presented_key
from sanic_proxy.server.request import ProxyRequest, is_own_origin
from sanic_proxy.state import AppState

CSRF_HEADER = "x-csrf-token"
_SAFE_METHODS = frozenset({"GET", "HEAD"})


async def session_of(request: ProxyRequest, state: AppState) -> Session | None:
    """The session of the request; None if it presents a key, or no valid session.

    Raises Forbidden if another page may have caused it.
    """
    sessions, fields = state.sessions, request.fields
    if sessions is None or "cookie" not in fields or presented_key(fields) is not None:
        return None
    for value in _values(fields["cookie"]):
        session = await sessions.read(value, time.time())
        if session is not None:
            _check_site(request)
            if request.method not in _SAFE_METHODS:
                _check_token(request, await sessions.csrf(session))
            return session
    return None


def set_cookie(value: str, *, is_secure: bool) -> str:
    """The header `Set-Cookie` of a login; an empty `value` deletes the cookie."""
    age_s = LIFETIME_S if value else 0
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={value}; Max-Age={age_s}; Path=/; HttpOnly; SameSite=Strict{secure}"


def check_own_origin(request: ProxyRequest) -> None:
    """Raises Forbidden unless the request says that it comes from a page of the proxy.

    TLS may end at a reverse proxy on another machine, which is not trusted with the scheme: the host decides
    then. Such an origin has come in only if the operator allows it (`admission.check_origin`).
    """
    origin = request.fields.get("origin", "")
    plain = origin.lower().replace("https://", "http://", 1)
    if not any(is_own_origin(one, request.fields, request.ip) for one in (origin, plain)):
        raise Forbidden(
            "This request needs the header `Origin` with the address of the proxy itself",
            code="origin_denied",
        )


def _values(cookies: str) -> list[str]:
    """The values of the cookie: other hosts of the same domain can set more of them."""
    pairs = [cookie.strip().partition("=") for cookie in cookies.split(";")]
    return [value for name, _, value in pairs if name == COOKIE]


def _check_site(request: ProxyRequest) -> None:
    fields = request.fields
    site = fields.get("sec-fetch-site", "none")
    if site not in {"same-origin", "none"}:
        raise Forbidden(
            f"Pages of other sites may not use the session (Sec-Fetch-Site: {site[:40]})",
            code="origin_denied",
        )
    if "origin" in fields:
        check_own_origin(request)


def _check_token(request: ProxyRequest, wanted: str) -> None:
    check_own_origin(request)
    given = request.fields.get(CSRF_HEADER, "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, wanted.encode()):
        raise Forbidden(
            f"The header `{CSRF_HEADER}` has to hold the session's token: GET ui/session returns it",
            code="csrf_denied",
        )
