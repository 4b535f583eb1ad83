"""Stored responses: get, delete and cancel one, and list the items of its input.

A response that a provider stores is the provider's to answer for, with the key that made it.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.errors import ClientError, InvalidRequest, NotFound
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import Row
from sanic_proxy.providers.base import Call
from sanic_proxy.routes import passthrough
from sanic_proxy.routes.background import JSON_LINES
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.response_following import follow
from sanic_proxy.routes.response_keeping import reading
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.server.selection import query_up
from sanic_proxy.state import AppState
from sanic_proxy.state_store.responses import ResponseStore, StoredResponse, UnknownItem
from sanic_proxy.translation.responses.replay import UNFINISHED
from sanic_proxy.translation.responses.stored import listed, page_options

blueprint = Blueprint("stored_responses")

_PATH = "/responses/<id>"
_GET = Row("GET", _PATH, body="none")
_DELETE = Row("DELETE", _PATH, body="none", is_once=True)
_CANCEL = Row("POST", f"{_PATH}/cancel", body="none", is_once=True)
_ITEMS = Row("GET", f"{_PATH}/input_items", body="none")
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,9}")


async def retrieve(request: ProxyRequest, response_id: str) -> Reply | None:
    """Answer with a stored response, or with its events."""
    store, stored = await _found(request, response_id)
    if stored.provider:
        return await _at_provider(request, _GET, stored)
    query = _query(request)
    if query.get("stream", "false").lower() in {"", "false"}:
        return Reply(JSON_LINES, stored.body)
    after = query.get("starting_after", "")
    if after and not _SEQUENCE_NUMBER.fullmatch(after):
        raise InvalidRequest(
            "The parameter `starting_after` must be the `sequence_number` of an event", param="starting_after"
        )
    await follow(request, RESPONSES, store, response_id, int(after) if after else -1)
    return None


async def delete(request: ProxyRequest, response_id: str) -> Reply | None:
    """Delete a stored response."""
    store, stored = await _found(request, response_id)
    reply = await _at_provider(request, _DELETE, stored) if stored.provider else None
    await reading(store.delete(request.record.client.id, response_id))
    _check_background(request)
    if reply is not None:
        return reply
    return Reply(JSON_LINES, codec.dumps({"id": response_id, "object": "response", "deleted": True}))


async def cancel(request: ProxyRequest, response_id: str) -> Reply | None:
    """Cancel a background response. One that is finished stays as it is."""
    store, stored = await _found(request, response_id)
    if stored.provider:
        return await _at_provider(request, _CANCEL, stored)
    if not stored.is_background:
        raise InvalidRequest("Only a response that was created with `background: true` can be cancelled")
    if stored.status in UNFINISHED:
        body = codec.dumps({**codec.loads_tolerant(stored.body), "status": "cancelled"})
        if await reading(store.advance(request.record.client.id, response_id, "cancelled", body)):
            _check_background(request)
            return Reply(JSON_LINES, body)
        _, stored = await _found(request, response_id)  # it has just finished
    return Reply(JSON_LINES, stored.body)


async def list_input_items(request: ProxyRequest, response_id: str) -> Reply | None:
    """List the items that a response was made of, those of the responses before it included."""
    store, stored = await _found(request, response_id)
    if stored.provider:
        return await _at_provider(request, _ITEMS, stored)
    options = page_options(_query(request))
    try:
        page = await reading(store.input_page(request.record.client.id, response_id, options))
    except UnknownItem:
        raise InvalidRequest(
            "The parameter `after` is not the id of one of the items", param="after"
        ) from None
    if page is None:
        raise NotFound("The beginning of this conversation is not stored any more")
    return Reply(JSON_LINES, codec.dumps(listed(page)))


async def _found(request: ProxyRequest, response_id: str) -> tuple[ResponseStore, StoredResponse]:
    """The client's response of that id. Raises NotFound, also for one of another client."""
    state: AppState = request.state
    record = request.record
    record.dialect = "responses"
    if state.responses is None:
        raise NotFound("Responses are not stored: the proxy's operator can set SANIC_PROXY_RESPONSE_STORE")
    stored = await reading(state.responses.find(record.client.id, response_id))
    if stored is None:
        raise NotFound(f"Response with id '{response_id[:100]}' not found.", code="response_not_found")
    return state.responses, stored


async def _at_provider(request: ProxyRequest, row: Row, stored: StoredResponse) -> Reply | None:
    """The answer of the provider that has the response."""
    state: AppState = request.state
    path = row.path_for(stored.id)
    targets = state.router.named(stored.provider, None, row.endpoint)
    if path is None or stored.key_number >= len(targets):
        raise ClientError("The key that made this response is not configured any more", status=404)
    query = query_up(request)
    call = Call(row.method, path + query, request.fields, request.record, is_once=row.is_once)
    return await passthrough.answered(request, row, [targets[stored.key_number]], call)


def _query(request: ProxyRequest) -> dict[str, str]:
    return dict(parse_qsl(query_up(request)[1:]))


def _check_background(request: ProxyRequest) -> None:
    """Have the response end in this worker. Others see the change of the store."""
    state: AppState = request.state
    if state.background is not None:
        state.background.check()


for _row, _handler, _methods in (
    (_GET, retrieve, READ),
    (_DELETE, delete, ("DELETE",)),
    (_CANCEL, cancel, ("POST",)),
    (_ITEMS, list_input_items, READ),
):
    _route = _row.path.replace("<id>", "<response_id:str>")
    blueprint.add_route(_handler, f"/v1{_route}", methods=_methods, name=_handler.__name__)
    blueprint.add_route(_handler, _route, methods=_methods, name=f"{_handler.__name__}_bare")
