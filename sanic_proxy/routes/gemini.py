"""Gemini's API in front of every provider: content, the count of its tokens, and the models."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from sanic import Blueprint, HTTPResponse

from sanic_proxy.dialects.gemini import GEMINI, GEMINI_ARRAY, model_path
from sanic_proxy.errors import NotFound
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.openai.gemini_models import model_info, page_of
from sanic_proxy.providers.base import Call
from sanic_proxy.routes import chat, openapi
from sanic_proxy.routes.counting import estimated, forwarded_for
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.models import known_model
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.state import state_of
from sanic_proxy.translation.gemini.tokens import estimate_tokens

blueprint = Blueprint("gemini")

_COUNT = "countTokens"
_STREAM = "streamGenerateContent"
_VERBS = ("generateContent", _STREAM, _COUNT)


@openapi.gemini
async def generate(request: ProxyRequest, model: str) -> Reply | None:
    """Generate content, whole or streamed, or count its tokens: as the path says behind the model's name."""
    model, _, verb = unquote(model).rpartition(":")
    model = model.removeprefix("models/")
    if verb not in _VERBS or not model:
        raise NotFound(
            f"There is no {request.path[:200]!r} here: behind the model's name comes one of "
            f"{', '.join(f'`:{name}`' for name in _VERBS)}. For embeddings use POST /v1/embeddings",
            code="not_found",
        )
    if verb == _COUNT:
        return await _count_tokens(request, model)
    is_array = verb == _STREAM and request.args.get("alt") != "sse"
    dialect = GEMINI_ARRAY if is_array else GEMINI
    fields = bodies.json_object(request)
    body, request.body = request.body, b""
    asked = replace(dialect.parse(body, fields, None), model=model, is_streaming=verb == _STREAM)
    return await chat.answer_to(request, dialect, asked)


async def _count_tokens(request: ProxyRequest, model: str) -> Reply:
    """The tokens of a request: as the provider counts them where it can, else an estimate."""
    fields = bodies.json_object(request)
    body = request.body

    def call_for(upstream_model: str) -> Call:
        path = model_path(upstream_model)
        sent = _with_model(fields, path) or body
        return Call("POST", f"{path}:{_COUNT}", request.fields, request.record, (sent,), "application/json")

    reply = await forwarded_for(request, GEMINI, model, f"POST {GEMINI.path}:{_COUNT}", call_for)
    return reply or estimated(request, {"totalTokens": estimate_tokens(fields)})


def _with_model(fields: Json, path: str) -> bytes | None:
    """A request to count whose inner request names the model, with the provider's name for it."""
    inner = fields.get("generateContentRequest")
    if not isinstance(inner, dict) or "model" not in inner:
        return None
    return codec.dumps({**fields, "generateContentRequest": {**inner, "model": path.removeprefix("/")}})


@openapi.gemini_models
async def list_models(request: ProxyRequest) -> HTTPResponse:
    """List the models of all providers that are on, in Gemini's shape."""
    return _json(page_of(await state_of(request.app).models.listed(), request.args))


@openapi.gemini_model
async def get_model(request: ProxyRequest, model: str) -> HTTPResponse:
    """Get one model. Its name may hold slashes and colons."""
    wanted = unquote(model)
    if not wanted:
        return await list_models(request)
    return _json(model_info(await known_model(request, wanted)))


def _json(value: object) -> HTTPResponse:
    return HTTPResponse(codec.dumps(value), content_type="application/json")


blueprint.add_route(generate, "/v1beta/models/<model:path>", methods=["POST"], name="generate")
blueprint.add_route(
    openapi.alias(generate), "/v1/models/<model:path>", methods=["POST"], name="generate_stable"
)
blueprint.add_route(list_models, "/v1beta/models", methods=READ, name="list")
blueprint.add_route(get_model, "/v1beta/models/<model:path>", methods=READ, name="get")
