"""What operators ask of a running proxy. Each route of this blueprint demands the admin key.

The blueprint's request middleware does that, so a route that is added here needs nothing of its own. It also
takes these routes off the short path of the proxy's other routes.
"""

from __future__ import annotations

import os
import time

from sanic import Blueprint, HTTPResponse

from sanic_proxy import __version__
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec
from sanic_proxy.routes.methods import READ
from sanic_proxy.routing.explain import explain
from sanic_proxy.server import admission
from sanic_proxy.server.admin_port import is_admin_port
from sanic_proxy.server.lifecycle import WorkerState
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of

blueprint = Blueprint("admin", url_prefix="/admin")


@blueprint.on_request
async def authorise(request: ProxyRequest) -> None:
    """Demand the admin key, on the port where these routes are served."""
    admission.check_admin(
        state_of(request.app).settings, request.fields, is_admin_port=is_admin_port(request)
    )


async def info(request: ProxyRequest) -> HTTPResponse:
    """Version, workers, providers by name, and for how long the proxy has been running."""
    shared = request.app.shared_ctx
    slots = getattr(shared, "worker_slots", ())
    serving = sum(slot.state is WorkerState.SERVING for slot in slots)
    started = getattr(shared, "started_at", None)
    body = {
        "version": __version__,
        "workers": serving or 1,
        "worker": {"pid": os.getpid()},
        "providers": sorted({provider.name for provider in state_of(request.app).providers.values()}),
        "uptime_seconds": None if started is None else round(time.monotonic() - started.value, 1),
    }
    return HTTPResponse(codec.dumps(body), content_type="application/json")


async def route(request: ProxyRequest) -> HTTPResponse:
    """Explain which targets a request for `?model=` would try now, while those in `&fail=` fail."""
    model = request.args.get("model")
    if not model:
        raise InvalidRequest("The query parameter `model` is missing", param="model")
    state = state_of(request.app)
    fail = request.args.getlist("fail", [])
    explanation = explain(state.router, model, state.limits, fail, now=time.monotonic())
    return HTTPResponse(codec.dumps(explanation.as_json()), content_type="application/json")


blueprint.add_route(route, "/route", methods=READ, name="route")
blueprint.add_route(info, "/info", methods=READ, name="info")
