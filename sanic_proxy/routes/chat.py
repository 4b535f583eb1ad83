"""POST /v1/chat/completions: one handler, written once against ChatProvider."""

from __future__ import annotations

from sanic import Blueprint

from sanic_proxy.app_types import ProxyRequest, Reply, header_lines
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.router import Target
from sanic_proxy.routes import bodies, documents
from sanic_proxy.routes.pump import pump
from sanic_proxy.routes.targets import named_provider
from sanic_proxy.state import state_of

blueprint = Blueprint("chat")


@documents.chat
async def chat_completions(request: ProxyRequest) -> Reply | None:
    """Create a chat completion, whole or streamed."""
    provider, chat = _target_and_request(request)
    if chat.is_streaming:
        await _streamed(request, provider, chat)
        return None
    return await _whole(provider, chat)


def _target_and_request(request: ProxyRequest) -> tuple[ChatProvider, ChatRequest]:
    """Where the request goes and what it asks. From here on the conversation is the latter's alone."""
    fields = bodies.json_object(request)
    model = bodies.text_field(fields, "model")
    is_streaming = bodies.flag_field(fields, "stream")
    bodies.list_field(fields, "messages")
    record = request.record
    record.model, record.is_streaming = model, is_streaming
    router = state_of(request.app).router
    named = named_provider(request)
    target = router.resolve(model) if named is None else Target(router.named(named), model)
    record.provider = target.provider.name
    body, request.body = request.body, b""
    chat = ChatRequest(body, fields, model, target.upstream_model, is_streaming, request.fields, record)
    if is_streaming:
        options = fields.get("stream_options")
        chat.include_usage = isinstance(options, dict) and options.get("include_usage") is True
    return target.provider, chat


async def _whole(provider: ChatProvider, chat: ChatRequest) -> Reply:
    answer = await provider.send_request(chat)
    try:
        whole = await answer.parse()
    finally:
        answer.close()
    lines = f"x-sanic-proxy-provider: {provider.name}\r\n{header_lines(whole.headers)}"
    if chat.answer_headers:
        lines += header_lines(chat.answer_headers)
    return Reply(lines, whole.body)


async def _streamed(request: ProxyRequest, provider: ChatProvider, chat: ChatRequest) -> None:
    pending = provider.send_request(chat)
    try:
        await pump(
            request,
            provider.create_streaming_response(chat, pending),
            commit_delay_s=provider.commit_delay_s,
            ping_s=provider.ping_s,
            headers=lambda: [("x-sanic-proxy-provider", provider.name), *chat.answer_headers],
        )
    finally:
        pending.close()  # it may not have begun


blueprint.add_route(chat_completions, "/v1/chat/completions", methods=["POST"], name="create")
blueprint.add_route(
    documents.alias(chat_completions), "/chat/completions", methods=["POST"], name="create_bare"
)
