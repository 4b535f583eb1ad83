"""Gemini's API in front of every provider: content, the count of its tokens, and the models."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from sanic import HTTPResponse

from sanic_proxy.dialects.gemini import GEMINI, GEMINI_ARRAY, model_path
from sanic_proxy.errors import NotFound
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.gemini_models import model_info, page_of
from sanic_proxy.providers.base import Call, ChatProvider
from sanic_proxy.routes import chat
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.counting import estimated, forwarded_for
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.models import known_model
from sanic_proxy.routing.targets import Target
from sanic_proxy.server import bodies
from sanic_proxy.server.access import allowed_models
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.state import state_of
from sanic_proxy.translation.gemini.native import with_own_signatures
from sanic_proxy.translation.gemini.tokens import estimate_tokens

blueprint = Blueprint("gemini")

_COUNT = "countTokens"
_STREAM = "streamGenerateContent"
_VERBS = ("generateContent", _STREAM, _COUNT)
# A request to count may have a whole request to generate in place of contents alone.
_INNER = "generateContentRequest"


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

    def call_for(target: Target[ChatProvider]) -> Call:
        path = model_path(target.upstream_model)
        asked = _with_model(_without_foreign_signatures(body, fields), path)
        sent = body if asked is fields else codec.dumps(asked)
        return Call("POST", f"{path}:{_COUNT}", request.fields, request.record, (sent,), "application/json")

    reply = await forwarded_for(request, GEMINI, model, f"POST {GEMINI.path}:{_COUNT}", call_for)
    return reply or estimated(request, {"totalTokens": estimate_tokens(fields)})


def _without_foreign_signatures(body: bytes, fields: JsonMapping) -> JsonMapping:
    """A request to count without signatures that the proxy made; itself where there are none."""
    if b'"thought' not in body:
        return fields
    inner = fields.get(_INNER)
    own = with_own_signatures(inner) if isinstance(inner, dict) else inner
    return with_own_signatures(fields if own is inner else {**fields, _INNER: own})


def _with_model(fields: JsonMapping, path: str) -> JsonMapping:
    """A request to count with the provider's name for the model, where its inner request names it."""
    inner = fields.get(_INNER)
    if not isinstance(inner, dict) or "model" not in inner:
        return fields
    return {**fields, _INNER: {**inner, "model": path.removeprefix("/")}}


async def list_models(request: ProxyRequest) -> HTTPResponse:
    """List the models of all providers that are on, in Gemini's shape."""
    state = state_of(request.app)
    listed = allowed_models(state.rulebook, request.record.client, await state.models.listed())
    return bodies.json_response(page_of(listed, request.args))


async def get_model(request: ProxyRequest, model: str) -> HTTPResponse:
    """Get one model. Its name may hold slashes and colons."""
    wanted = unquote(model)
    if not wanted:
        return await list_models(request)
    return bodies.json_response(model_info(await known_model(request, wanted)))


blueprint.add_route(generate, "/v1beta/models/<model:path>", methods=["POST"], name="generate")
blueprint.add_route(generate, "/v1/models/<model:path>", methods=["POST"], name="generate_stable")
blueprint.add_route(list_models, "/v1beta/models", methods=READ, name="list")
blueprint.add_route(get_model, "/v1beta/models/<model:path>", methods=READ, name="get")
