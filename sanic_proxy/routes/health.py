"""Is the process alive; is it ready for more. Touches no upstream."""

from __future__ import annotations

from datetime import UTC, datetime

from sanic import HTTPResponse

from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import ANONYMOUS
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.admission import is_admin_key, presented_key
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("health")


async def liveness(request: ProxyRequest) -> HTTPResponse:
    """Say that this worker is alive; to clients with a key and administrators also how old the prices are."""
    state = state_of(request.app)
    body: Json = {"status": "ok"}
    key = presented_key(request.fields)
    if request.record.client is not ANONYMOUS or (key is not None and is_admin_key(state.settings, key)):
        body["prices"] = state.prices.age(datetime.now(UTC).date())
    return bodies.json_response(body)


async def readiness(request: ProxyRequest) -> HTTPResponse:
    """Say whether this worker takes new requests, and if not, why."""
    reasons = not_ready(state_of(request.app))
    body = {"status": "not ready" if reasons else "ready", "not_ready": reasons}
    return bodies.json_response(body, 503 if reasons else 200)


def not_ready(state: AppState) -> list[str]:
    """Why the worker accepts no new requests."""
    reasons = []
    if state.traffic.is_draining:
        reasons.append("draining")
    if not state.providers:
        reasons.append("no provider is configured")
    return reasons


blueprint.add_route(liveness, "/health", methods=READ, name="live")
blueprint.add_route(liveness, "/healthz", methods=READ, name="live_z")
blueprint.add_route(liveness, "/health/liveliness", methods=READ, name="live_liveliness")
blueprint.add_route(readiness, "/health/readiness", methods=READ, name="ready")
