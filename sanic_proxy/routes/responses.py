"""OpenAI's Responses API in front of every provider, with compaction and the count of tokens."""

from __future__ import annotations

from sanic_proxy.dialects.responses import RESPONSES, RESPONSES_WITH_DONE
from sanic_proxy.errors import InvalidRequest, NotFound
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.fields import flag_field
from sanic_proxy.routes import background, chat
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.counting import counted, forwarded
from sanic_proxy.routes.methods import READ, add_route
from sanic_proxy.routes.response_keeping import prepared
from sanic_proxy.routes.response_websocket import WebSocketSession
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.state import AppState
from sanic_proxy.translation.responses.compaction import compacted, compaction_request
from sanic_proxy.translation.responses.stored import reference_ids
from sanic_proxy.translation.responses.tokens import estimate_tokens

blueprint = Blueprint("responses")


async def responses(request: ProxyRequest) -> Reply | None:
    """Create a response, whole or streamed."""
    state: AppState = request.state
    dialect = RESPONSES_WITH_DONE if state.settings.responses_done else RESPONSES
    fields = bodies.json_object(request)
    body, request.body = request.body, b""
    asked = dialect.parse(body, fields, request.model_span)
    asked, keeper = await prepared(state, request.record.client.id, asked, request)
    if flag_field(asked.fields, "background"):
        return await background.answer(request, dialect, asked, keeper)
    return await chat.answer_to(request, dialect, asked, keeper)


async def compact(request: ProxyRequest) -> Reply:
    """Compact a conversation: by the provider where it can, else by its model's summary."""
    fields = bodies.json_object(request)
    _refuse_stored(request, fields)
    reply = await forwarded(request, RESPONSES, f"{RESPONSES.path}/compact", fields)
    if reply is not None:
        return reply
    asked = compaction_request(fields)
    summary = await chat.answer_to(request, RESPONSES, RESPONSES.parse(codec.dumps(asked), asked, None))
    if summary is None:  # pragma: no cover - only streams have no reply
        raise TypeError
    return Reply(summary.lines, codec.dumps(compacted(codec.loads_tolerant(summary.body or b""))))


async def input_tokens(request: ProxyRequest) -> Reply:
    """Count the tokens of a request: by the provider where it can, else an estimate."""
    fields = bodies.json_object(request)
    _refuse_stored(request, fields)
    path = f"{RESPONSES.path}/input_tokens"
    return await counted(
        request,
        RESPONSES,
        path,
        fields,
        lambda: {"object": "response.input_tokens", "input_tokens": estimate_tokens(fields)},
    )


def _refuse_stored(request: ProxyRequest, fields: JsonMapping) -> None:
    """Raises InvalidRequest for a request that names a stored response, whose owner is not checked here."""
    state: AppState = request.state
    if state.keys.has_many and reference_ids(fields.get("input")):
        raise InvalidRequest(
            "References to stored items are not supported by this endpoint: send the items", param="input"
        )
    for name in ("previous_response_id", "conversation"):
        if fields.get(name):
            problem = f"The parameter `{name}` is not supported by this endpoint: send the items in `input`"
            raise InvalidRequest(problem, param=name)


async def websocket(request: ProxyRequest) -> None:
    """Make responses over a websocket."""
    if request.fields.get("upgrade", "").lower() != "websocket":
        raise NotFound("Create a response with POST, or open a websocket here")
    await WebSocketSession(request, request.transport.get_protocol()).run()


for _path, _handler in (
    ("/responses", responses),
    ("/responses/compact", compact),
    ("/responses/input_tokens", input_tokens),
):
    add_route(blueprint, _handler, _path, ["POST"], _handler.__name__)
add_route(blueprint, websocket, "/responses", READ, "websocket")
