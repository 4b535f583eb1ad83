"""POST /v1/chat/completions: one handler, written once against ChatProvider."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from sanic import Blueprint

from sanic_proxy.dialects.base import Dialect, ParsedRequest
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routes import openapi
from sanic_proxy.routing import attempts
from sanic_proxy.routing.router import Router
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.selection import dropped_headers, named_provider, route_headers, route_lines
from sanic_proxy.server.streaming import pump
from sanic_proxy.state import AppState

blueprint = Blueprint("chat")


@openapi.chat
def chat_completions(request: ProxyRequest) -> Coroutine[Any, Any, Reply | None]:
    """Create a chat completion, whole or streamed."""
    return answer(request, CHAT)


def answer(request: ProxyRequest, dialect: Dialect) -> Coroutine[Any, Any, Reply | None]:
    """Answer a conversation in `dialect`."""
    fields = bodies.json_object(request)
    body, request.body = request.body, b""
    return answer_to(request, dialect, dialect.parse(body, fields, request.model_span))


async def answer_to(request: ProxyRequest, dialect: Dialect, asked: ParsedRequest) -> Reply | None:
    """Answer `asked`, the conversation in `request` or one that was made of it."""
    state: AppState = request.state
    targets, chat = _targets_and_request(request, dialect, asked, state.router)
    limits = state.limits
    if not chat.is_streaming:
        whole = await attempts.whole(targets, limits, chat)
        headers = [*whole.headers, *chat.answer_headers]
        if chat.dropped:
            headers += dropped_headers(chat.dropped)
        return Reply(route_lines(request.record) + header_lines(headers), whole.body)
    first = targets[0].provider
    await pump(
        request,
        lambda: attempts.streamed(targets, limits, chat),
        commit_delay_s=first.commit_delay_s,
        ping_s=first.ping_s,
        headers=lambda: [
            *route_headers(request.record),
            *chat.answer_headers,
            *dropped_headers(chat.dropped),
        ],
        heartbeat=lambda: (chat.provider or first).heartbeat(chat),
        dialect=dialect,
    )
    return None


def _targets_and_request(
    request: ProxyRequest, dialect: Dialect, asked: ParsedRequest, router: Router[ChatProvider]
) -> tuple[attempts.Targets, ChatRequest]:
    """Where the request may go and what it asks. From here on the conversation is the latter's alone."""
    model = asked.model
    record = request.record
    record.dialect = dialect.name
    record.model, record.is_streaming = model[:256], asked.is_streaming
    named = named_provider(request)
    targets = router.resolve(model) if named is None else router.named(named, model)
    first = targets[0]
    record.provider = first.provider.name
    chat = ChatRequest(
        asked.body, asked.fields, model, first.upstream_model, asked.is_streaming, request.fields, record
    )
    chat.model_span = asked.model_span
    chat.include_usage = asked.include_usage
    chat.dialect = chat.wire = dialect
    chat.collect_s = asked.collect_s
    return targets, chat


blueprint.add_route(chat_completions, "/v1/chat/completions", methods=["POST"], name="create")
blueprint.add_route(
    openapi.alias(chat_completions), "/chat/completions", methods=["POST"], name="create_bare"
)
