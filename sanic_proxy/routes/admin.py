"""What operators ask of a running proxy. Each route of this blueprint demands the admin key.

The blueprint's request middleware does that, so a route that is added here needs nothing of its own. It also
takes these routes off the short path of the proxy's other routes.
"""

from __future__ import annotations

import datetime
import os
import time
import urllib.parse

from sanic import HTTPResponse

from sanic_proxy import __version__
from sanic_proxy.errors import InvalidRequest, NotFound, StoreFailed
from sanic_proxy.governance.key_admin import KeyAdmin
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.routing import overview
from sanic_proxy.routing.explain import explain
from sanic_proxy.server import admission, bodies
from sanic_proxy.server.lifecycle import WorkerState
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.server.sessions import session_of
from sanic_proxy.state import state_of
from sanic_proxy.state_store.base import StoreError

blueprint = Blueprint("admin", url_prefix="/admin")


async def authorise(request: ProxyRequest) -> None:
    """Demand the admin key or an administrator's session, on the port where these routes are served."""
    state = state_of(request.app)
    admission.check_offered(request, state.settings)
    session = await session_of(request, state)
    if session is None or session.kind != "admin":
        admission.check_admin(state.settings, request.fields)


blueprint.on_request(authorise)


def key_admin(request: ProxyRequest) -> KeyAdmin:
    """The administration of the keys made at run time."""
    state = state_of(request.app)
    return KeyAdmin(state.settings, state.store, state.keys.changed)


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
        "prices": state_of(request.app).prices.age(datetime.datetime.now(datetime.UTC).date()),
        "uptime_seconds": None if started is None else round(time.monotonic() - started.value, 1),
    }
    return bodies.json_response(body)


async def route(request: ProxyRequest) -> HTTPResponse:
    """Explain which targets a request for `?model=` would try now, while those in `&fail=` fail."""
    model = request.args.get("model")
    if not model:
        raise InvalidRequest("The query parameter `model` is missing", param="model")
    state = state_of(request.app)
    fail = request.args.getlist("fail", [])
    explanation = explain(state.router, model, state.limits, fail, now=time.monotonic())
    return bodies.json_response(explanation.as_json())


async def targets(request: ProxyRequest) -> HTTPResponse:
    """What the workers know of the targets: requests, circuits, limits, and which are switched off."""
    state = state_of(request.app)
    now = time.monotonic()
    for model in state.settings.models:
        if "*" not in model.name:
            state.router.route(model.name)  # which makes its targets known
    live = state.live
    live.show_targets(overview.shown_targets(state.statistics, state.registry, now), state.metrics.recent)
    shown, percentiles = live.targets()
    found = overview.merged(shown, time.time())
    body = {
        "worker": {"pid": os.getpid()},
        "off": {} if state.switches is None else state.switches.off,
        "targets": [
            {**target, "first_content_percentiles_ms": percentiles.get(target["target"])} for target in found
        ],
    }
    return bodies.json_response(body)


async def switch(request: ProxyRequest, rest: str) -> HTTPResponse:
    """Switch a target, a key or a provider on or off, in all workers and over restarts."""
    state = state_of(request.app)
    name, _, to = urllib.parse.unquote(rest).rpartition("/")
    if to not in {"on", "off"}:
        raise NotFound(f"There is no {request.method} {request.path!r} here: its path ends with /on or /off")
    provider = name.partition("/")[0].partition("#")[0]
    if provider not in state.providers:
        known = ", ".join(sorted({provider.name for provider in state.providers.values()}))
        raise InvalidRequest(
            f"No provider is called {provider[:80]!r}. Providers that are on: {known}", param="name"
        )
    if state.switches is not None:
        try:
            await state.switches.switch(name, is_on=to == "on")
            state.live.target_changed(name, to)
            state.live.flush()
        except StoreError as exc:
            raise StoreFailed(f"The switch could not be stored: {exc}") from exc
    return bodies.json_response({"target": name, "state": to})


blueprint.add_route(targets, "/targets", methods=READ, name="targets")
blueprint.add_route(switch, "/targets/<rest:path>", methods=["POST"], name="switch")
blueprint.add_route(route, "/route", methods=READ, name="route")
blueprint.add_route(info, "/info", methods=READ, name="info")
