"""GET /model/info and /v1/model/info: LiteLLM's description of the models, with prices and limits.

The admin key sees all models, a client's key those that the client may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sanic import HTTPResponse

from sanic_proxy.config import patterns
from sanic_proxy.config.catalog import CATCH_ALL
from sanic_proxy.config.model import ModelSettings
from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.litellm_models import model_entry
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import ANONYMOUS
from sanic_proxy.routes.admin import authorise
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.access import allowed_models
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("model_info")


async def model_info(request: ProxyRequest) -> HTTPResponse:
    """Describe each target of each model, or the one with `?litellm_model_id=`."""
    state, client = state_of(request.app), request.record.client
    if client is ANONYMOUS and not state.keys.is_empty:
        await authorise(request)
    listed = allowed_models(state.rulebook, client, await state.models.listed())
    models = {model.name: model for model in state.settings.models}
    wildcards = patterns.most_specific_first(name for name in models if patterns.STAR in name)
    found = [entry for model in listed for entry in _entries(state, model["id"], models, wildcards)]
    wanted = request.args.get("litellm_model_id")
    if wanted is not None:
        found = [entry for entry in found if entry["model_info"]["id"] == wanted]
        if not found:
            raise InvalidRequest(f"There is no model with the id {wanted[:80]!r}", param="litellm_model_id")
    return bodies.json_response({"data": found})


def _entries(
    state: AppState, name: str, models: Mapping[str, ModelSettings], wildcards: Sequence[str]
) -> Iterator[Json]:
    for target in _targets(state, name, models, wildcards):
        provider = state.providers.get(target.provider)
        if provider is not None:
            prices = state.prices.find(
                provider.settings, target.model, target.prices, target.max_output, target.context_window
            )
            yield model_entry(name, target.label, prices, target.context_window)


def _targets(
    state: AppState, name: str, models: Mapping[str, ModelSettings], wildcards: Sequence[str]
) -> Iterator[TargetSettings]:
    """The targets of a listed model: the operator's, or the provider's model itself.

    `wildcards` are the names of `models` with `*`, the most specific first.
    """
    if name in models:
        yield from models[name].targets
        return
    provider, _, model = name.partition("/")
    if model and provider in state.providers:
        yield TargetSettings(provider, model)
        return
    for pattern in wildcards:
        if (texts := patterns.match(pattern, name)) is not None:
            for target in models[pattern].targets:
                yield replace(target, model=patterns.fill(target.model, texts))
            return
    if not state.settings.router_is_on:
        yield TargetSettings(CATCH_ALL.name, name)


blueprint.add_route(model_info, "/model/info", methods=READ, name="model_info")
blueprint.add_route(model_info, "/v1/model/info", methods=READ, name="model_info_v1")
