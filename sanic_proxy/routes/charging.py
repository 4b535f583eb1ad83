"""What requests are charged: each route asks the governor before it sends one on, if there is a governor."""

from __future__ import annotations

from collections.abc import Sequence

from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.governance.charge import Charge
from sanic_proxy.governance.estimate import asked_of
from sanic_proxy.governance.governor import Governor, Request, is_counted
from sanic_proxy.governance.refusals import renamed
from sanic_proxy.governance.rules import endpoint_of
from sanic_proxy.governance.units import units_of
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import Row
from sanic_proxy.providers.base import Call, ChatRequest
from sanic_proxy.routes.batch_charging import charge_batch, creates_batch
from sanic_proxy.routing import attempts
from sanic_proxy.state import AppState
from sanic_proxy.upstream.request import Upload


async def charge_chat(governor: Governor, chat: ChatRequest, targets: attempts.Targets, path: str) -> str:
    """Admit a conversation, and have it charged. Returns header lines for its answer. Raises ProxyError."""
    record = chat.record
    request = Request(record, chat.headers, endpoint_of(path), asked_of(chat.body, chat.fields))
    charge, pending = governor.admit(request, targets[0].tariff)
    if pending is not None:
        await pending
    chat.charge = charge
    charge.reports_partly = lambda: chat.is_streaming and chat.wire.reports_partly
    if chat.is_streaming and chat.dialect is CHAT and not chat.include_usage:
        _request_usage(chat, targets)
    return governor.header_lines(charge, record.dialect)


async def charge_call(
    state: AppState,
    governor: Governor,
    call: Call,
    targets: attempts.Targets,
    row: Row,
    fields: JsonMapping,
) -> str:
    """The same for a call of an endpoint that passes through, whose JSON is `fields`."""
    if creates_batch(row):
        return await charge_batch(state, governor, call, targets, row, fields)
    body = b"" if isinstance(call.body, Upload) else b"".join(bytes(piece) for piece in call.body)
    asked = asked_of(body, fields, has_output=row.is_completion)
    asked.units = units_of(row.path, fields)
    request = Request(call.record, call.headers, row.path, asked)
    request.is_free = row.method != "POST" or row.path == "/batches/<id>/cancel"
    request.needs_listing = not is_counted(row.path)
    call.charge = await _admitted(governor, request, targets)
    return governor.header_lines(call.charge, call.record.dialect)


async def charge_count(governor: Governor, call: Call, targets: attempts.Targets, path: str) -> None:
    """The same for a call that counts tokens, which is free."""
    request = Request(call.record, call.headers, endpoint_of(path), is_free=True)
    call.charge = await _admitted(governor, request, targets)


async def _admitted(governor: Governor, request: Request, targets: attempts.Targets) -> Charge:
    charge, pending = governor.admit(request, targets[0].tariff)
    if pending is not None:
        await pending
    return charge


def shown(headers: Sequence[tuple[str, str]], governor: Governor | None) -> Sequence[tuple[str, str]]:
    """A provider's headers for a client: while clients have limits of their own, under other names."""
    return headers if governor is None else renamed(headers)


_USAGE = b'"stream_options":{"include_usage":true},'


def _request_usage(chat: ChatRequest, targets: attempts.Targets) -> None:
    """Have a stream report its usage, which the client does not get."""
    if not all(target.provider.settings.stream_usage for target in targets):
        return
    chat.hides_usage = True
    options = chat.fields.get("stream_options")
    more = options if isinstance(options, dict) else {}
    is_plain = "stream_options" not in chat.fields and chat.body.startswith(b"{")
    chat.fields = {**chat.fields, "stream_options": {**more, "include_usage": True}}
    if not is_plain:
        chat.body, chat.model_span = codec.dumps(chat.fields), None
        return
    chat.body = b"{" + _USAGE + chat.body[1:]
    if chat.model_span is not None:
        start, end = chat.model_span
        chat.model_span = start + len(_USAGE), end + len(_USAGE)
