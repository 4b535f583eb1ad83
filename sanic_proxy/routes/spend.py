"""What has been spent, for administrators: `/admin/usage`, and LiteLLM's `/spend/logs`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from sanic import HTTPResponse

from sanic_proxy.config.rules import NANO, iso_time
from sanic_proxy.errors import InvalidRequest, StoreFailed
from sanic_proxy.governance.accounts import GROUPS, rows, sum_object, sums
from sanic_proxy.governance.keys import ClientToken
from sanic_proxy.governance.leases import flag_names
from sanic_proxy.governance.ledger_tables import day_of
from sanic_proxy.json_types import Json
from sanic_proxy.routes.admin import authorise, key_admin
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of
from sanic_proxy.state_store.base import Connection, StoreError

T = TypeVar("T")

blueprint = Blueprint("spend")
blueprint.on_request(authorise)

# LiteLLM's limit of one answer.
MAX_ROWS = 10_000


async def usage(request: ProxyRequest) -> HTTPResponse:
    """The sums of days by `?by=key,model,day,team,provider,target`, `?since=`, `?until=`, of one `?key=`."""
    admin = key_admin(request)
    by = tuple(dict.fromkeys(request.args.get("by", "key").split(",")))
    if not set(by) <= GROUPS.keys():
        raise InvalidRequest(f"The query parameter `by` must be some of {', '.join(GROUPS)}", param="by")
    client = await admin.client_id(request.args.get("key", ""))
    clients = [client] if client else None
    since, until = _day(request, "since"), _day(request, "until")
    found = await _read(request, partial(sums, by=by, since=since, until=until, clients=clients))
    names = await admin.names()
    return bodies.json_response({"data": [sum_object(entry, by, names) for entry in found]})


async def logs(request: ProxyRequest) -> HTTPResponse:
    """The attempts of requests as LiteLLM lists them, the latest first; or their sums by day.

    As there, days count only where both of them are given.
    """
    admin = key_admin(request)
    tokens = await admin.tokens()
    reference, user_id = request.args.get("api_key", ""), request.args.get("user_id", "")
    clients = [await admin.client_id(reference)] if reference else None
    if user_id:
        of_user = [id_ for id_, token in tokens.items() if token.user_id == user_id]
        clients = of_user if clients is None else [id_ for id_ in clients if id_ in of_user]
    start, end = _day(request, "start_date"), _day(request, "end_date")
    has_days = bool(start and end)
    request_id = request.args.get("request_id", "")
    is_summed = has_days and request.args.get("summarize", "true").lower() != "false"
    if is_summed and not request_id:
        by_day = partial(sums, by=("day", "key", "model"), since=start, until=end, clients=clients)
        spent = [(*entry.group, entry.nano) for entry in await _read(request, by_day)]
        return bodies.json_response(_by_day(spent, tokens))
    since_ms = _epoch_ms(start) if has_days else 0
    until_ms = _epoch_ms(end) + 86_400_000 if has_days else 2**62
    work = partial(
        rows, limit=MAX_ROWS, clients=clients, request_id=request_id, since_ms=since_ms, until_ms=until_ms
    )
    found = await _read(request, work)
    if is_summed:
        spent = [(day_of(row["started_ms"]), row["client"], row["model"], row["nano"]) for row in found]
        return bodies.json_response(_by_day(spent, tokens))
    answer = bodies.json_response([_log(row, tokens) for row in found])
    if len(found) == MAX_ROWS:
        answer.headers["x-litellm-spend-logs-truncated"] = "true"
    return answer


def _log(row: Json, tokens: Mapping[str, ClientToken]) -> Json:
    """One attempt, with LiteLLM's names of the fields."""
    client = row["client"]
    token = tokens.get(client, ClientToken(client, ""))
    return {
        "request_id": row["request_id"],
        "api_key": token.digest,
        "model": row["model"],
        "model_group": row["model"],
        "custom_llm_provider": row["provider"],
        "call_type": row["endpoint"],
        "spend": row["nano"] / NANO,
        "prompt_tokens": row["input"],
        "completion_tokens": row["output"],
        "total_tokens": row["input"] + row["output"],
        "startTime": iso_time(row["started_ms"] / 1000),
        "endTime": iso_time(row["ended_ms"] / 1000),
        "request_duration_ms": max(0, row["ended_ms"] - row["started_ms"]),
        "user": token.user_id,
        "team_id": row["team"] or None,
        "session_id": row["session"] or None,
        "status": "success" if row["outcome"] in {"ok", "complete"} else "failure",
        "metadata": {
            "client": client,
            "attempt": row["attempt"],
            "target": row["target"],
            "outcome": row["outcome"],
            "flags": flag_names(row["flags"]),
        },
    }


def _by_day(found: list[tuple[Any, ...]], tokens: Mapping[str, ClientToken]) -> list[Json]:
    """LiteLLM's sums of (day, client, model, nano-dollars): each day's spend, also by key, user and model."""
    days: dict[str, Json] = {}
    for day, client, model, nano in sorted(found):
        token = tokens.get(client, ClientToken(client, ""))
        summed = days.setdefault(day, {"startTime": day, "spend": 0, "users": {}, "models": {}})
        for part, name in (
            (summed, "spend"),
            (summed, token.digest),
            (summed["users"], token.user_id),
            (summed["models"], model),
        ):
            part[name] = part.get(name, 0) + nano
    return [_in_dollars(entry) for entry in days.values()]


def _in_dollars(entry: Json) -> Json:
    return {
        name: _in_dollars(value)
        if isinstance(value, dict)
        else value / NANO
        if isinstance(value, int)
        else value
        for name, value in entry.items()
    }


def _day(request: ProxyRequest, name: str) -> str:
    text: str = request.args.get(name, "")
    try:
        return dt.date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise InvalidRequest(
            f"The query parameter `{name}` must be a day such as 2026-11-01", param=name
        ) from None


def _epoch_ms(day: str) -> int:
    midnight = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    return round(1000 * midnight.timestamp())


async def _read(request: ProxyRequest, work: Callable[[Connection], list[T]]) -> list[T]:
    """What `work` reads from the store; nothing where there is no store."""
    store = state_of(request.app).store
    if not store.exists():
        return []
    try:
        return await store.run(work)
    except StoreError as exc:
        raise StoreFailed(str(exc)) from exc


blueprint.add_route(usage, "/admin/usage", methods=READ, name="usage")
blueprint.add_route(logs, "/spend/logs", methods=READ, name="logs")
