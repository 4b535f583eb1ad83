"""GET /v1/models and /v1/models/<id>."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import Blueprint, HTTPResponse

from sanic_proxy.dialects.messages import VERSION_HEADER
from sanic_proxy.errors import ModelNotFound
from sanic_proxy.openai import codec
from sanic_proxy.openai.anthropic_models import model_info, page_of
from sanic_proxy.routes import openapi
from sanic_proxy.routes.methods import READ
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of

blueprint = Blueprint("models")


@openapi.models
async def list_models(request: ProxyRequest) -> HTTPResponse:
    """List the models of all providers that are on; in Anthropic's shape for Anthropic's clients."""
    models = await state_of(request.app).models.listed()
    if VERSION_HEADER in request.fields:
        return _json(page_of(models, request.args))
    return _json({"object": "list", "data": models})


@openapi.model
async def get_model(request: ProxyRequest, model: str) -> HTTPResponse:
    """Get one model. Ids may hold slashes and colons."""
    wanted = unquote(model)
    if not wanted:
        return await list_models(request)
    found = await state_of(request.app).models.one(wanted)
    if found is None:
        raise ModelNotFound(f"The model {wanted[:200]!r} does not exist", param="model")
    return _json(model_info(found) if VERSION_HEADER in request.fields else found)


def _json(value: object) -> HTTPResponse:
    return HTTPResponse(codec.dumps(value), content_type="application/json")


blueprint.add_route(list_models, "/v1/models", methods=READ, name="list")
blueprint.add_route(get_model, "/v1/models/<model:path>", methods=READ, name="get")
blueprint.add_route(openapi.alias(list_models), "/models", methods=READ, name="list_bare")
blueprint.add_route(openapi.alias(get_model), "/models/<model:path>", methods=READ, name="get_bare")
