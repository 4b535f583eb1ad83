"""Endpoints beside a conversation: those of its provider where that has them, else the proxy's own."""

from __future__ import annotations

from collections.abc import Callable

from sanic_proxy.dialects.base import Dialect
from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.fields import text_field
from sanic_proxy.providers.base import Call, ChatProvider
from sanic_proxy.routes.charging import charge_count
from sanic_proxy.routing import attempts
from sanic_proxy.routing.targets import Target
from sanic_proxy.server.access import check_model
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.selection import named_provider, route_headers
from sanic_proxy.state import state_of
from sanic_proxy.upstream.client import Response

# Statuses of a provider that speaks the dialect, but lacks this endpoint of it.
_MISSING = frozenset({404, 405, 501})
# Beside a number that was not counted by the provider's own tokenizer.
_ESTIMATED = ("x-sanic-proxy-estimated", "input_tokens")
_JSON = ("content-type", "application/json")


async def counted(
    request: ProxyRequest,
    dialect: Dialect,
    path: str,
    fields: JsonMapping,
    estimate: Callable[[], JsonMapping],
) -> Reply:
    """The provider's own count of tokens, else `estimate`, which is marked by a header."""
    reply = await forwarded(request, dialect, path, fields)
    return estimated(request, estimate()) if reply is None else reply


def estimated(request: ProxyRequest, estimate: JsonMapping) -> Reply:
    """A number of the proxy's own."""
    return Reply(header_lines([_JSON, _ESTIMATED, *route_headers(request.record)]), codec.dumps(estimate))


async def forwarded(request: ProxyRequest, dialect: Dialect, path: str, fields: JsonMapping) -> Reply | None:
    """The answer of the endpoint `path` of the model's provider; None where it has no such endpoint.

    The provider does not get signatures that the proxy made. Raises what the provider refuses, and a
    ClientError for a model without a provider.
    """
    body = request.body
    model = text_field(dict(fields), "model")

    def call_for(target: Target[ChatProvider]) -> Call:
        prepared = dialect.prepared(body, fields, target.provider.name)
        sent = body if prepared is None else codec.dumps(prepared.fields)
        call = Call("POST", path, request.fields, request.record, (sent,), "application/json", model)
        call.model_span = request.model_span if prepared is None else None
        return call

    return await forwarded_for(request, dialect, model, f"POST {path}", call_for)


async def forwarded_for(
    request: ProxyRequest,
    dialect: Dialect,
    model: str,
    endpoint: str,
    call_for: Callable[[Target[ChatProvider]], Call],
) -> Reply | None:
    """The same for the call that `call_for` makes for the model's target.

    The health of the target is kept under `endpoint`.
    """
    state, record = state_of(request.app), request.record
    record.dialect, record.model = dialect.name, model[:256]
    named = named_provider(request)
    router = state.router
    targets = router.resolve(model, endpoint) if named is None else router.named(named, model, endpoint)
    check_model(state.rulebook, record.client, router, model, targets, named)
    record.provider = targets[0].provider.name
    if dialect.name not in targets[0].provider.dialects:
        return None
    call = call_for(targets[0])
    call.dialect = dialect
    if state.governor is not None:
        await charge_count(state.governor, call, targets, request.path)
    answers: list[bytes] = []

    async def take(answer: Response) -> None:
        answers.append(await answer.read_all())

    try:
        answer = await attempts.forwarded(targets[:1], state.limits, call, take=take)
    except ProxyError as exc:
        if exc.upstream_status in _MISSING:
            return None
        raise
    answer.close()
    return Reply(header_lines([_JSON, *route_headers(record)]), answers[-1])
