"""Keys made at run time: below `/admin/keys`, and the calls of LiteLLM's scripts below `/key`.

Each route demands the admin key. `governance/litellm_keys.py` has the shapes of LiteLLM's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from typing import Any
from urllib.parse import unquote

from sanic import HTTPResponse

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.durations import seconds_of
from sanic_proxy.governance.key_admin import KeyAdmin, key_object
from sanic_proxy.governance.keys import KeyFilter, Order, StoredKey
from sanic_proxy.governance.litellm_keys import KeyRequest, key_info, read_request
from sanic_proxy.json_types import Json
from sanic_proxy.routes.admin import authorise, key_admin
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of

blueprint = Blueprint("key_management")


blueprint.on_request(authorise)

MAX_PAGE = 100
MAX_LISTED = 1000
IGNORED_HEADER = "x-sanic-proxy-ignored-fields"
_OWN_FIELDS = ("name", "key", "blocked")


def _json(value: object, ignored: tuple[str, ...] = (), status: int = 200) -> HTTPResponse:
    headers = {IGNORED_HEADER: ", ".join(ignored)[:1000]} if ignored else {}
    return bodies.json_response(value, status, headers)


# LiteLLM's calls


def _demand_keys(request: ProxyRequest) -> None:
    if state_of(request.app).settings.is_open:
        raise InvalidRequest(
            "With these settings no key is needed, so a new one would have no effect: set "
            "SANIC_PROXY_REQUIRE_KEYS=on, SANIC_PROXY_API_KEYS or [clients]"
        )


async def generate(request: ProxyRequest) -> HTTPResponse:
    """Make a key."""
    _demand_keys(request)
    fields = bodies.json_object(request) if request.body else {}
    asked = read_request(fields)
    admin = key_admin(request)
    key, literal = await admin.create(
        asked.name or "",
        {name: value for name, value in asked.table.items() if value is not None},
        asked.key or None,
        is_blocked=bool(asked.is_blocked),
        user_id=asked.user_id or "",
    )
    return _json(await _generated(admin, key, literal), _printable(asked))


async def info(request: ProxyRequest) -> HTTPResponse:
    """Describe the key in `?key=`: the key itself, its digest, its alias or its id."""
    reference = request.args.get("key")
    if not reference:
        raise InvalidRequest("The query parameter `key` is missing", param="key")
    admin = key_admin(request)
    key = await admin.find(reference)
    return _json({"key": reference, "info": await _described(admin, key)})


async def update(request: ProxyRequest) -> HTTPResponse:
    """Change a key: fields that are left out stay, null removes one."""
    fields = bodies.json_object(request)
    admin = key_admin(request)
    reference = _reference(fields)
    old = await admin.find(reference)
    asked = read_request(fields, old.rules)
    key = await admin.update(
        reference, asked.table, name=asked.name, is_blocked=asked.is_blocked, user_id=asked.user_id
    )
    return _json({"key": reference, **await _described(admin, key)}, _printable(asked))


async def regenerate(request: ProxyRequest, key: str = "") -> HTTPResponse:
    """Replace a key, and change what else the body says."""
    fields = bodies.json_object(request) if request.body else {}
    reference = unquote(key) or _reference(fields)
    admin = key_admin(request)
    old = await admin.find(reference)
    asked = read_request({name: value for name, value in fields.items() if name != "key"}, old.rules)
    if asked.table or asked.name or asked.is_blocked is not None or asked.user_id is not None:
        await admin.update(
            old.id, asked.table, name=asked.name, is_blocked=asked.is_blocked, user_id=asked.user_id
        )
    new, literal = await admin.rotate(old.id, asked.grace_s, asked.key or None)
    return _json(await _generated(admin, new, literal), _printable(asked))


async def delete(request: ProxyRequest) -> HTTPResponse:
    """Delete the keys in `keys` or `key_aliases`."""
    fields = bodies.json_object(request)
    references = fields.get("keys") or fields.get("key_aliases")
    if not isinstance(references, list) or not all(isinstance(each, str) and each for each in references):
        raise InvalidRequest("The body must have `keys` or `key_aliases`, a list of texts", param="keys")
    admin = key_admin(request)
    found = [await admin.find(reference) for reference in references]  # all of them, before any is deleted
    for key in {key.id: key for key in found}.values():
        await admin.delete(key.id)
    return _json({"deleted_keys": references})


async def block(request: ProxyRequest) -> HTTPResponse:
    """Refuse a key until it is unblocked."""
    return await _set_blocked(request, is_blocked=True)


async def unblock(request: ProxyRequest) -> HTTPResponse:
    """Accept a blocked key again."""
    return await _set_blocked(request, is_blocked=False)


async def _set_blocked(request: ProxyRequest, *, is_blocked: bool) -> HTTPResponse:
    reference = _reference(bodies.json_object(request))
    admin = key_admin(request)
    key = await admin.update(reference, {}, is_blocked=is_blocked)
    return _json({"token": key.digest, **await _described(admin, key)})


async def list_keys(request: ProxyRequest) -> HTTPResponse:
    """List keys by pages: their digests, or with `return_full_object=true` all of them."""
    page, size = _number(request, "page", 1, 10**6), _number(request, "size", 10, MAX_PAGE)
    is_part = request.args.get("substring_matching") == "true"
    alias = request.args.get("key_alias", "")
    wanted = KeyFilter(
        name="" if is_part else alias,
        part_of_name=alias if is_part else "",
        team=request.args.get("team_id", ""),
        user_id=request.args.get("user_id", ""),
        digest=request.args.get("key_hash", ""),
        status=_status(request),
        order_by=_order(request),
        is_ascending=request.args.get("sort_order", "desc").lower() == "asc",
    )
    admin = key_admin(request)
    total, found = await admin.listed(wanted, size, (page - 1) * size)
    entries: list[Any] = [key.digest for key in found]
    if found and request.args.get("return_full_object") == "true":
        spending, now = await admin.spending(found), time.time()
        entries = [{"token": key.digest, **key_info(key, spending[key.id], now)} for key in found]
    return _json(
        {
            "keys": entries,
            "total_count": total,
            "current_page": page,
            "total_pages": ceil(total / size),
        }
    )


# LiteLLM's names of columns.
_ORDERS: Mapping[str, Order] = {
    "created_at": "created",
    "updated_at": "updated",
    "expires": "expires",
    "key_alias": "name",
    "team_id": "team",
    "user_id": "user_id",
}


def _order(request: ProxyRequest) -> Order:
    name = request.args.get("sort_by", "created_at")
    if name not in _ORDERS:
        raise InvalidRequest(
            f"The query parameter `sort_by` must be one of {', '.join(_ORDERS)}", param="sort_by"
        )
    return _ORDERS[name]


def _status(request: ProxyRequest) -> str:
    status: str = request.args.get("status", "")
    if status not in {"", "active", "expired", "revoked", "deleted"}:
        raise InvalidRequest(
            "The query parameter `status` must be active, expired, revoked or deleted", param="status"
        )
    return status


def _number(request: ProxyRequest, name: str, default: int, high: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or not 1 <= int(text) <= high:
        raise InvalidRequest(f"The query parameter `{name}` must be a number from 1 to {high}", param=name)
    return int(text)


def _reference(fields: Json) -> str:
    """The key that a body names: itself, its digest, its alias or its id."""
    reference = fields.get("key") or fields.get("key_alias")
    if not isinstance(reference, str) or not reference:
        raise InvalidRequest("The body must have `key` or `key_alias`", param="key")
    return reference


async def _described(admin: KeyAdmin, key: StoredKey) -> Json:
    spending = await admin.spending([key])
    return key_info(key, spending[key.id], time.time())


async def _generated(admin: KeyAdmin, key: StoredKey, literal: str) -> Json:
    described = await _described(admin, key)
    return {"key": literal, "token": key.digest, "token_id": key.digest, **described}


def _printable(asked: KeyRequest) -> tuple[str, ...]:
    """The ignored fields, as far as a header may hold their names."""
    return tuple(name for name in asked.ignored if name.isascii() and name.isidentifier())


# Our own calls


async def make(request: ProxyRequest) -> HTTPResponse:
    """Make a key, with the keys of a `[clients.NAME]` table."""
    _demand_keys(request)
    fields = bodies.json_object(request)
    name, literal, is_blocked = _own(fields)
    key, secret = await key_admin(request).create(name or "", fields, literal, is_blocked=bool(is_blocked))
    return _json({"secret": secret, **key_object(key, time.time())}, status=201)


async def listed(request: ProxyRequest) -> HTTPResponse:
    """List keys, the newest first."""
    wanted = KeyFilter(
        status=_status(request), team=request.args.get("team", ""), name=request.args.get("name", "")
    )
    size = _number(request, "limit", 100, MAX_LISTED)
    page = _number(request, "page", 1, 10**6)
    total, found = await key_admin(request).listed(wanted, size, (page - 1) * size)
    now = time.time()
    return _json({"data": [key_object(key, now) for key in found], "total": total})


async def show(request: ProxyRequest, key: str) -> HTTPResponse:
    """Show a key by its id, name or digest."""
    return _json(key_object(await key_admin(request).find(unquote(key)), time.time()))


async def change(request: ProxyRequest, key: str) -> HTTPResponse:
    """Change what the body has; null removes one."""
    fields = bodies.json_object(request)
    name, literal, is_blocked = _own(fields)
    if literal is not None:
        raise InvalidRequest("A key is replaced by POST .../rotate", param="key")
    changed = await key_admin(request).update(unquote(key), fields, name=name, is_blocked=is_blocked)
    return _json(key_object(changed, time.time()))


async def rotate(request: ProxyRequest, key: str) -> HTTPResponse:
    """Replace a key; the present one stays valid for `grace` (`24h`)."""
    fields = bodies.json_object(request) if request.body else {}
    grace, literal = fields.get("grace", "0s"), fields.get("key")
    if not isinstance(grace, str) or not isinstance(literal, str | None):
        raise InvalidRequest("`grace` must be a duration such as 24h, and `key` a text", param="grace")
    new, secret = await key_admin(request).rotate(unquote(key), seconds_of(grace), literal)
    return _json({"secret": secret, **key_object(new, time.time())})


async def remove(request: ProxyRequest, key: str) -> HTTPResponse:
    """Delete a key."""
    return _json(key_object(await key_admin(request).delete(unquote(key)), time.time()))


def _own(fields: dict[str, Any]) -> tuple[str | None, str | None, bool | None]:
    """Take the fields out that are no keys of a table: name, key, blocked."""
    name, literal, is_blocked = (fields.pop(each, None) for each in _OWN_FIELDS)
    if not isinstance(name, str | None) or not isinstance(literal, str | None):
        raise InvalidRequest("`name` and `key` must be texts", param="name")
    if not isinstance(is_blocked, bool | None):
        raise InvalidRequest("`blocked` must be true or false", param="blocked")
    return name, literal, is_blocked


for _handler, _path, _methods in (
    (generate, "/key/generate", ("POST",)),
    (info, "/key/info", READ),
    (update, "/key/update", ("POST",)),
    (delete, "/key/delete", ("POST",)),
    (list_keys, "/key/list", READ),
    (block, "/key/block", ("POST",)),
    (unblock, "/key/unblock", ("POST",)),
    (regenerate, "/key/regenerate", ("POST",)),
    (regenerate, "/key/<key>/regenerate", ("POST",)),
    (make, "/admin/keys", ("POST",)),
    (listed, "/admin/keys", READ),
    (show, "/admin/keys/<key>", READ),
    (change, "/admin/keys/<key>", ("PATCH",)),
    (rotate, "/admin/keys/<key>/rotate", ("POST",)),
    (remove, "/admin/keys/<key>", ("DELETE",)),
):
    blueprint.add_route(_handler, _path, methods=_methods, name=f"{_handler.__name__}_{_path.count('/')}")
