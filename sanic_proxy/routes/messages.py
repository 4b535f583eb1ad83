"""Anthropic's Messages API in front of every provider: /v1/messages, its count of tokens, and the probes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from sanic import Blueprint, HTTPResponse

from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.errors import ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.openai.fields import list_field, text_field
from sanic_proxy.providers.base import Call
from sanic_proxy.routes import chat, openapi
from sanic_proxy.routes.methods import READ
from sanic_proxy.routing import attempts
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.selection import named_provider, route_headers
from sanic_proxy.state import state_of
from sanic_proxy.translation.messages.tokens import estimate_tokens
from sanic_proxy.upstream.client import Response

blueprint = Blueprint("messages")

_COUNT_PATH = "/messages/count_tokens"
_COUNT_ENDPOINT = f"POST {_COUNT_PATH}"
# Statuses of a provider that has messages, but does not count their tokens.
_NO_COUNT = frozenset({404, 405, 501})
# Beside a number that was not counted by the provider's own tokenizer.
_ESTIMATED = ("x-sanic-proxy-estimated", "input_tokens")
_JSON = ("content-type", "application/json")


@openapi.messages
def messages(request: ProxyRequest) -> Coroutine[Any, Any, Reply | None]:
    """Create a message, whole or streamed."""
    return chat.answer(request, MESSAGES)


@openapi.count_tokens
async def count_tokens(request: ProxyRequest) -> Reply:
    """Count the tokens of a request: by the provider where it can, else an estimate."""
    fields = bodies.json_object(request)
    body, request.body = request.body, b""
    model = text_field(fields, "model")
    list_field(fields, "messages")
    state, record = state_of(request.app), request.record
    record.dialect, record.model = MESSAGES.name, model[:256]
    named = named_provider(request)
    router = state.router
    targets = (
        router.resolve(model, _COUNT_ENDPOINT)
        if named is None
        else router.named(named, model, _COUNT_ENDPOINT)
    )
    record.provider = targets[0].provider.name
    if MESSAGES.name in targets[0].provider.dialects:
        call = Call("POST", _COUNT_PATH, request.fields, record, (body,), "application/json", model)
        call.model_span, call.dialect = request.model_span, MESSAGES
        counted: list[bytes] = []

        async def take(answer: Response) -> None:
            counted.append(await answer.read_all())

        try:
            answer = await attempts.forwarded(targets[:1], state.limits, call, take=take)
        except ProxyError as exc:
            if exc.upstream_status not in _NO_COUNT:
                raise
        else:
            answer.close()
            return Reply(header_lines([_JSON, *route_headers(record)]), counted[-1])
    estimate = codec.dumps({"input_tokens": estimate_tokens(fields)})
    return Reply(header_lines([_JSON, _ESTIMATED, *route_headers(record)]), estimate)


@openapi.hello
async def hello(request: ProxyRequest) -> HTTPResponse:
    """Answer the probe that Anthropic's agent sends before its first request."""
    return HTTPResponse(codec.dumps({"status": "ok"}), content_type="application/json")


for _base, _suffix in (("/v1", ""), ("", "_bare")):
    blueprint.add_route(
        messages if not _suffix else openapi.alias(messages),
        f"{_base}/messages",
        methods=["POST"],
        name=f"create{_suffix}",
    )
    blueprint.add_route(
        count_tokens if not _suffix else openapi.alias(count_tokens),
        f"{_base}{_COUNT_PATH}",
        methods=["POST"],
        name=f"count{_suffix}",
    )
blueprint.add_route(hello, "/api/hello", methods=READ, name="hello")
