"""GET /v1/models and /v1/models/<id>."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import HTTPResponse

from sanic_proxy.dialects.gemini import KEY_HEADER
from sanic_proxy.dialects.messages import VERSION_HEADER
from sanic_proxy.errors import ModelNotFound
from sanic_proxy.json_types import Json
from sanic_proxy.openai import gemini_models
from sanic_proxy.openai.anthropic_models import model_info, page_of
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ, add_route
from sanic_proxy.server import bodies
from sanic_proxy.server.access import allowed_models
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of

blueprint = Blueprint("models")

_GOOGLES_HEADERS = frozenset({KEY_HEADER, "x-goog-api-client"})


async def list_models(request: ProxyRequest) -> HTTPResponse:
    """List the models of all providers that are on; Anthropic's and Google's clients get their shapes."""
    state = state_of(request.app)
    models = allowed_models(state.rulebook, request.record.client, await state.models.listed())
    if VERSION_HEADER in request.fields:
        return bodies.json_response(page_of(models, request.args))
    if _is_googles(request):
        return bodies.json_response(gemini_models.page_of(models, request.args))
    return bodies.json_response({"object": "list", "data": models})


async def get_model(request: ProxyRequest, model: str) -> HTTPResponse:
    """Get one model. Ids may hold slashes and colons."""
    wanted = unquote(model)
    if not wanted:
        return await list_models(request)
    found = await known_model(request, wanted)
    if VERSION_HEADER in request.fields:
        return bodies.json_response(model_info(found))
    return bodies.json_response(gemini_models.model_info(found) if _is_googles(request) else found)


async def known_model(request: ProxyRequest, name: str) -> Json:
    """OpenAI's object of the model. Raises ModelNotFound."""
    state = state_of(request.app)
    found = await state.models.one(name)
    if found is None or not allowed_models(state.rulebook, request.record.client, [found]):
        raise ModelNotFound(f"The model {name[:200]!r} does not exist", param="model")
    return found


def _is_googles(request: ProxyRequest) -> bool:
    """Whether the client is one for Gemini's API, whose version `v1` has the same paths as OpenAI's."""
    return not _GOOGLES_HEADERS.isdisjoint(request.fields)


add_route(blueprint, list_models, "/models", READ, "list")
add_route(blueprint, get_model, "/models/<model:path>", READ, "get")
