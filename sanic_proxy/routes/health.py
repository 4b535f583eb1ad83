"""Is the process alive; is it ready for more. Touches no upstream."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse

from sanic_proxy.openai import codec
from sanic_proxy.routes.methods import READ
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("health")


async def liveness(request: ProxyRequest) -> HTTPResponse:
    """Say that this worker is alive."""
    return HTTPResponse(codec.dumps({"status": "ok"}), content_type="application/json")


async def readiness(request: ProxyRequest) -> HTTPResponse:
    """Say whether this worker takes new requests, and if not, why."""
    reasons = not_ready(state_of(request.app))
    body = {"status": "not ready" if reasons else "ready", "not_ready": reasons}
    return HTTPResponse(codec.dumps(body), status=503 if reasons else 200, content_type="application/json")


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
