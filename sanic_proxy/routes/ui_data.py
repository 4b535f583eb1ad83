"""What the operator's page shows besides the admin routes: models, a playground, and a client's own use."""

from __future__ import annotations

import time
from functools import partial

from sanic import HTTPResponse

from sanic_proxy.config.rules import ClientRules
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.errors import StoreFailed
from sanic_proxy.governance.accounts import sum_object, sums
from sanic_proxy.governance.key_admin import KeyAdmin
from sanic_proxy.governance.ledger_tables import day_of
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import Client
from sanic_proxy.routes import chat
from sanic_proxy.routes.admin import authorise
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.ui import check_page, logged_in
from sanic_proxy.routes.usage import usage_of
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.state import AppState, state_of
from sanic_proxy.state_store.base import StoreError

blueprint = Blueprint("ui_data")
blueprint.on_request(check_page)

# The administrator, as a client of the playground: in the log, the ledger and the metrics. No client of the
# settings and no key can have this name or id, in which parentheses are not allowed.
_NAME = "(admin)"
ADMIN = Client(id=_NAME, name=_NAME, rules=ClientRules(id=_NAME, name=_NAME))
# How many days of a client's use are shown.
DAYS = 30


async def models(request: ProxyRequest) -> HTTPResponse:
    """All models, for the playground."""
    await authorise(request)
    return bodies.json_response({"data": await state_of(request.app).models.listed()})


async def chat_completions(request: ProxyRequest) -> Reply | None:
    """Answer a chat of the playground, as the client `(admin)`."""
    await authorise(request)
    request.record.client = ADMIN
    return await chat.answer(request, CHAT)


async def usage(request: ProxyRequest) -> HTTPResponse:
    """Limits, budgets and sums by day and model of the client that is logged in, or of `?key=`."""
    state = state_of(request.app)
    session, client = await logged_in(request, state)
    if session.kind == "admin":
        client = await _named(state, request.args.get("key", ""))
    owner = client or ADMIN
    return bodies.json_response({"usage": await usage_of(state, owner), "days": await _days(state, owner)})


async def _named(state: AppState, reference: str) -> Client:
    """The client of a key's id, name or digest; those of the settings by id or name. Raises NotFound."""
    if reference in {"", ADMIN.id}:
        return ADMIN
    for entry in state.settings.clients:
        if reference in {entry.rules.id, entry.rules.name}:
            return Client(entry.rules.id, entry.rules.name, entry.rules)
    rules = (await KeyAdmin(state.settings, state.store).find(reference)).rules
    return Client(rules.id, rules.name or rules.id, rules)


async def _days(state: AppState, client: Client) -> list[Json]:
    if not state.store.exists():
        return []
    by, since = ("day", "model"), day_of(round(1000 * (time.time() - (DAYS - 1) * 86_400)))
    try:
        found = await state.store.run(partial(sums, by=by, since=since, clients=[client.id]))
    except StoreError as exc:
        raise StoreFailed(str(exc)) from exc
    return [sum_object(entry, by, {}) for entry in found]


blueprint.add_route(models, "/ui/models", methods=READ, name="models")
blueprint.add_route(chat_completions, "/ui/chat/completions", methods=["POST"], name="chat")
blueprint.add_route(usage, "/ui/usage", methods=READ, name="usage")
