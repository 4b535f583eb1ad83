"""POST /v1/chat/completions: one handler, written once against ChatProvider."""

from __future__ import annotations

import asyncio

from sanic import Blueprint, HTTPResponse

from sanic_proxy.app_types import ProxyRequest
from sanic_proxy.providers.base import Answer, ChatProvider, ChatRequest
from sanic_proxy.routes import bodies, documents
from sanic_proxy.routes.pump import pump
from sanic_proxy.state import state_of
from sanic_proxy.streaming import discard

blueprint = Blueprint("chat")


@documents.chat
async def chat_completions(request: ProxyRequest) -> HTTPResponse | None:
    """Create a chat completion, whole or streamed."""
    fields = bodies.json_object(request)
    model = bodies.text_field(fields, "model")
    is_streaming = bodies.flag_field(fields, "stream")
    bodies.list_field(fields, "messages")
    record = request.record
    record.model, record.is_streaming = model, is_streaming
    target = state_of(request.app).router.resolve(model)
    record.provider = target.provider.name
    chat = ChatRequest(
        body=request.body,
        fields=fields,
        model=model,
        upstream_model=target.upstream_model,
        is_streaming=is_streaming,
        headers=request.headers,
        record=record,
    )
    if is_streaming:
        await _streamed(request, target.provider, chat)
        return None
    return await _whole(target.provider, chat)


async def _whole(provider: ChatProvider, chat: ChatRequest) -> HTTPResponse:
    answer = await provider.send_request(chat)
    try:
        whole = await answer.parse()
    finally:
        answer.close()
    return HTTPResponse(whole.body, headers={"x-sanic-proxy-provider": provider.name, **dict(whole.headers)})


async def _streamed(request: ProxyRequest, provider: ChatProvider, chat: ChatRequest) -> None:
    pending = asyncio.ensure_future(provider.send_request(chat))
    try:
        await pump(
            request,
            provider.create_streaming_response(chat, pending),
            commit_delay_s=provider.commit_delay_s,
            headers={"x-sanic-proxy-provider": provider.name},
        )
    finally:
        await _discard(pending)


async def _discard(pending: asyncio.Future[Answer]) -> None:
    """End a request that nobody waits for any more; close an answer that nobody took."""
    await discard(pending)
    if not pending.cancelled() and pending.exception() is None:
        pending.result().close()


blueprint.add_route(chat_completions, "/v1/chat/completions", methods=["POST"], name="create")
blueprint.add_route(
    documents.alias(chat_completions), "/chat/completions", methods=["POST"], name="create_bare"
)
