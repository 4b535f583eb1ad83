"""The operator's page `/ui`: its files, and who is logged in."""

from __future__ import annotations

import hashlib
import time
from importlib import resources

from sanic import HTTPResponse

from sanic_proxy.config.rules import iso_time
from sanic_proxy.errors import InvalidRequest, LimitReached, StoreFailed, Unauthorized, UnsupportedMedia
from sanic_proxy.governance.rates import RateRefusal
from sanic_proxy.governance.sessions import Session, Sessions
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import Client
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.page_files import PAGE_HEADERS, PageFile, serve_file
from sanic_proxy.server import bodies
from sanic_proxy.server.admission import UI_PATH, check_offered
from sanic_proxy.server.request import ProxyRequest, client_address
from sanic_proxy.server.sessions import check_own_origin, session_of, set_cookie
from sanic_proxy.state import AppState, state_of
from sanic_proxy.state_store.base import StoreError

blueprint = Blueprint("ui")

_PAGE = PageFile.read("ui/index.html")
_NO_STORE = {"cache-control": "no-store"}


@blueprint.on_request
async def check_page(request: ProxyRequest) -> None:
    """Without an admin key, and on other ports, none of this exists."""
    check_offered(request, state_of(request.app).settings)


async def page(request: ProxyRequest) -> HTTPResponse:
    """The page, whose URLs are relative to a path without a slash at its end."""
    if request.path.endswith("/"):
        return HTTPResponse(status=308, headers={**PAGE_HEADERS, "location": "../ui"})
    return _PAGE.answer(request)


async def login(request: ProxyRequest) -> HTTPResponse:
    """Begin a session with the admin key, or with the key of a client that may use the page."""
    state = state_of(request.app)
    check_own_origin(request)
    if request.fields.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia("A login is JSON: send `content-type: application/json`")
    key = bodies.json_object(request).get("key")
    if not isinstance(key, str) or not key:
        raise InvalidRequest("The field `key` is missing", param="key")
    sessions = _sessions(state)
    attempt = sessions.attempt(client_address(request.fields, request.ip))
    if isinstance(attempt, RateRefusal):
        raise _limit_reached("failed logins", attempt)
    begun = await _session_with(state, sessions, key)
    if begun is None:
        raise Unauthorized(
            "Incorrect key: it is neither the admin key nor the key of a client that has `ui = true`"
        )
    attempt.settle(0)
    session, client = begun
    if session.kind == "client":
        admitted = sessions.admit_client(session.digest)
        if isinstance(admitted, RateRefusal):
            raise _limit_reached("logins with this key", admitted)
    is_secure = request.fields.get("origin", "").lower().startswith("https://")
    cookie = set_cookie(await sessions.cookie(session), is_secure=is_secure)
    return await _shown(state, session, client, {"set-cookie": cookie})


async def session(request: ProxyRequest) -> HTTPResponse:
    """Who is logged in, and the token that further requests have to carry."""
    state = state_of(request.app)
    found, client = await logged_in(request, state)
    return await _shown(state, found, client, {})


async def logout(request: ProxyRequest) -> HTTPResponse:
    """End the session, in all workers."""
    state = state_of(request.app)
    found, _ = await logged_in(request, state)
    try:
        await _sessions(state).end(found, time.time())
    except StoreError as exc:
        raise StoreFailed(f"The logout could not be stored: {exc}") from exc
    return HTTPResponse(status=204, headers={**_NO_STORE, "set-cookie": set_cookie("", is_secure=False)})


async def logged_in(request: ProxyRequest, state: AppState) -> tuple[Session, Client | None]:
    """The session of the request, and its client if it is not an administrator's. Raises Unauthorized."""
    found = await session_of(request, state)
    if found is not None and found.kind == "admin":
        return found, None
    client = None if found is None else await _client_of(state, bytes.fromhex(found.digest))
    if found is None or client is None:
        raise Unauthorized("Not logged in", code="session_needed")
    return found, client


async def _session_with(
    state: AppState, sessions: Sessions, key: str
) -> tuple[Session, Client | None] | None:
    """A new session, and its client if it is not an administrator's; None if the key opens none."""
    if sessions.is_admin_key(key):
        return sessions.begin("admin", time.time()), None
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    client = await _client_of(state, digest)
    return None if client is None else (sessions.begin("client", time.time(), digest.hex()), client)


def _limit_reached(what: str, refusal: RateRefusal) -> LimitReached:
    wait_s = max(1, round(refusal.wait_s + 0.5))
    return LimitReached(f"Too many {what}; retry in {wait_s} s", retry_after_s=wait_s)


async def _client_of(state: AppState, digest: bytes) -> Client | None:
    client = await state.keys.client_of(digest)
    return client if client is not None and client.rules.ui else None


async def _shown(
    state: AppState, session: Session, client: Client | None, headers: dict[str, str]
) -> HTTPResponse:
    body: Json = {
        "kind": session.kind,
        "name": "admin" if client is None else client.name,
        "csrf": await _sessions(state).csrf(session),
        "expires": iso_time(session.expires),
    }
    return bodies.json_response(body, headers={**_NO_STORE, **headers})


def _sessions(state: AppState) -> Sessions:
    if state.sessions is None:  # pragma: no cover - these routes do not exist then
        raise Unauthorized("There is no admin key")
    return state.sessions


blueprint.add_route(page, UI_PATH, methods=READ, name="page")
blueprint.add_route(login, "/ui/login", methods=["POST"], name="login")
blueprint.add_route(session, "/ui/session", methods=READ, name="session")
blueprint.add_route(logout, "/ui/logout", methods=["POST"], name="logout")
for _file in sorted(
    resources.files("sanic_proxy").joinpath("pages", "ui").iterdir(), key=lambda file: file.name
):
    if _file.name != "index.html":
        serve_file(blueprint, f"/ui/{_file.name}", f"ui/{_file.name}")
