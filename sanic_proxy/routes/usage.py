"""GET /v1/usage: what a client may use, what it has spent, and what is left. With the client's own key."""

from __future__ import annotations

import time

from sanic import HTTPResponse

from sanic_proxy.config.rules import NANO, iso_time
from sanic_proxy.errors import StoreFailed
from sanic_proxy.governance.accounts import BudgetUse, budget_use
from sanic_proxy.governance.budgets import FOREVER
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import Client
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ, add_route
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of
from sanic_proxy.state_store.base import StoreError

blueprint = Blueprint("usage")


async def usage(request: ProxyRequest) -> HTTPResponse:
    """Describe the client's limits and budgets. Those of its team are shown, those of others are not."""
    body = await usage_of(state_of(request.app), request.record.client)
    return bodies.json_response(body)


async def usage_of(state: AppState, client: Client) -> Json:
    """What `client` may use, has spent, and has left. Raises StoreFailed."""
    rules, limits = client.rules, client.rules.limits
    scopes = [
        scoped
        for scoped in state.rulebook.limits_for(rules, "")
        if scoped.scope.kind in {"client", "team"} and scoped.limits.budgets
    ]
    now = time.time()
    try:
        budgets = (
            await state.store.run(lambda connection: budget_use(connection, scopes, now)) if scopes else []
        )
    except StoreError as exc:
        raise StoreFailed(str(exc)) from exc
    return {
        "object": "usage",
        "client": client.name or None,
        "team": rules.team or None,
        "expires": None if rules.expires is None else iso_time(rules.expires),
        "models": list(rules.models),
        "endpoints": list(rules.endpoints),
        "limits": {"rpm": limits.rpm, "tpm": limits.tpm, "concurrent": limits.concurrent},
        "budgets": list(map(_budget, budgets)),
    }


def _budget(use: BudgetUse) -> Json:
    return {
        "scope": use.scope.kind,
        "per": use.per,
        "limit_usd": use.limit / NANO,
        "used_usd": use.used / NANO,
        "reserved_usd": use.reserved / NANO,
        "left_usd": use.left / NANO,
        "resets": None if use.resets == FOREVER else iso_time(use.resets),
    }


add_route(blueprint, usage, "/usage", READ, "get")
