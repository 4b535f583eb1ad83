"""Which models and endpoints the client of a request may use. Decides, and does no I/O.

A client without rules costs two look-ups of an attribute. A name is allowed as the client writes it. Where it
is not one of the operator's own names, it is allowed as `provider/model` as well, so that a pattern like
`groq/*` fits whichever way the provider is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from sanic_proxy.errors import Forbidden
from sanic_proxy.governance.rules import Rulebook, endpoint_of
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import Client
from sanic_proxy.providers.base import ChatProvider
from sanic_proxy.routing.router import Router
from sanic_proxy.routing.targets import Target

MAX_SHOWN = 20
# These show what the client may use, and nothing else.
_ALWAYS = ("/models", "/model/info", "/usage")


def check_endpoint(book: Rulebook, client: Client, path: str) -> None:
    """Raises Forbidden if the client may not use the endpoint at `path`.

    The path is as the client sent it. Routes decode `%3A`, so `/models/x%3AgenerateContent` is a generation.
    """
    rules = client.rules
    if not rules.endpoints and not rules.team:
        return
    endpoint = endpoint_of(unquote(path))
    if endpoint in _ALWAYS or (endpoint.startswith("/models/") and ":" not in endpoint):
        return
    if not book.may_call(rules, endpoint):
        raise Forbidden(
            f"This API key may not use {endpoint[:200]!r}{_shown('endpoints', rules.endpoints)}",
            code="endpoint_not_allowed",
        )


def check_model(
    book: Rulebook,
    client: Client,
    router: Router[ChatProvider],
    model: str,
    targets: Sequence[Target[ChatProvider]],
    named: str | None = None,
) -> None:
    """Raises Forbidden if the client may not use `model`, whose targets these are.

    `named` is the provider that the request names besides the model, which is "" where it names none.
    """
    rules = client.rules
    if not rules.models and not rules.team:
        return
    label = f"{targets[0].provider.name}/{targets[0].upstream_model if model else ''}"
    names = [label]
    if named is None:
        names = [model] if router.route(model).name else [model, label]
    if not any(book.may_use(rules, name) for name in names):
        raise Forbidden(
            f"This API key may not use the model {names[0][:200]!r}{_shown('models', rules.models)}",
            code="model_not_allowed",
            param="model",
        )


def allowed_models(book: Rulebook, client: Client, listed: list[Json]) -> list[Json]:
    """Those of the listed models that the client may use."""
    rules = client.rules
    if not rules.models and not rules.team:
        return listed
    return [entry for entry in listed if book.may_use(rules, entry["id"])]


def _shown(what: str, allowed: Sequence[str]) -> str:
    """A clause with what is allowed, if that is not too much."""
    return f"; its {what} are {', '.join(allowed)}" if 0 < len(allowed) <= MAX_SHOWN else ""
