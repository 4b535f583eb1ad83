"""GET /v1/models and /v1/models/<id>."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import Blueprint, HTTPResponse

from sanic_proxy import wire
from sanic_proxy.app_types import ProxyRequest
from sanic_proxy.errors import ModelNotFound
from sanic_proxy.routes import documents
from sanic_proxy.state import state_of

blueprint = Blueprint("models")


@documents.models
async def list_models(request: ProxyRequest) -> HTTPResponse:
    """List the models of all providers that are on."""
    models = await state_of(request.app).models.all()
    return _json({"object": "list", "data": models})


@documents.model
async def get_model(request: ProxyRequest, model: str) -> HTTPResponse:
    """Get one model. Ids may hold slashes and colons."""
    wanted = unquote(model)
    if not wanted:
        return await list_models(request)
    found = await state_of(request.app).models.one(wanted)
    if found is None:
        raise ModelNotFound(f"The model {wanted[:200]!r} does not exist", param="model")
    return _json(found)


def _json(value: object) -> HTTPResponse:
    return HTTPResponse(wire.dumps(value), content_type="application/json")


for _prefix, _name in (("/v1", "v1"), ("", "bare")):
    blueprint.add_route(list_models, f"{_prefix}/models", name=f"list_{_name}")
    blueprint.add_route(get_model, f"{_prefix}/models/<model:path>", name=f"get_{_name}")
