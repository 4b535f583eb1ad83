"""Anthropic's Messages API in front of every provider: /v1/messages, its count of tokens, and the probe."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from sanic import HTTPResponse

from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.openai.fields import list_field
from sanic_proxy.routes import chat
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.counting import counted
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.translation.messages.tokens import estimate_tokens

blueprint = Blueprint("messages")


def messages(request: ProxyRequest) -> Coroutine[Any, Any, Reply | None]:
    """Create a message, whole or streamed."""
    return chat.answer(request, MESSAGES)


async def count_tokens(request: ProxyRequest) -> Reply:
    """Count the tokens of a request: by the provider where it can, else an estimate."""
    fields = bodies.json_object(request)
    list_field(fields, "messages")
    path = f"{MESSAGES.path}/count_tokens"
    return await counted(request, MESSAGES, path, fields, lambda: {"input_tokens": estimate_tokens(fields)})


async def hello(request: ProxyRequest) -> HTTPResponse:
    """Answer the probe that Anthropic's agent sends before its first request."""
    return bodies.json_response({"status": "ok"})


for _path, _handler in (("/messages", messages), ("/messages/count_tokens", count_tokens)):
    blueprint.add_route(_handler, f"/v1{_path}", methods=["POST"], name=_handler.__name__)
    blueprint.add_route(_handler, _path, methods=["POST"], name=f"{_handler.__name__}_bare")
blueprint.add_route(hello, "/api/hello", methods=READ, name="hello")
