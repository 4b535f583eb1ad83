"""POST /v1/chat/completions: one handler, written once against ChatProvider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from functools import partial
from typing import Any

from sanic_proxy.dialects.base import Dialect, ParsedRequest
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.providers.base import ChatRequest
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.charging import charge_chat, shown
from sanic_proxy.routes.methods import add_route
from sanic_proxy.routing import attempts
from sanic_proxy.routing.targets import Limits
from sanic_proxy.server import bodies
from sanic_proxy.server.access import check_model
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.selection import dropped_headers, named_provider, route_headers, route_lines
from sanic_proxy.server.streaming import pump
from sanic_proxy.state import AppState
from sanic_proxy.streams.stream import Stream

blueprint = Blueprint("chat")


def chat_completions(request: ProxyRequest) -> Coroutine[Any, Any, Reply | None]:
    """Create a chat completion, whole or streamed."""
    return answer(request, CHAT)


def answer(request: ProxyRequest, dialect: Dialect) -> Coroutine[Any, Any, Reply | None]:
    """Answer a conversation in `dialect`."""
    fields = bodies.json_object(request)
    body, request.body = request.body, b""
    return answer_to(request, dialect, dialect.parse(body, fields, request.model_span))


async def answer_to(
    request: ProxyRequest, dialect: Dialect, asked: ParsedRequest, keeper: Keeper | None = None
) -> Reply | None:
    """Answer `asked`, the conversation in `request` or one that was made of it. `keeper` keeps the answer."""
    state: AppState = request.state
    targets, chat = conversation(request, request.record, state, dialect, asked, keeper)
    limits, governor = state.limits, state.governor
    if governor is not None:
        request.answer_lines += await charge_chat(governor, chat, targets, request.path)
    capture = None
    if state.captures is not None:
        capture = state.captures.begin(request.fields, request.record, asked.body)
    if not chat.is_streaming:
        whole = await attempts.whole(targets, limits, chat)
        body = whole.body if keeper is None else await keeper.keep(chat, whole.body)
        if capture is not None:
            capture.add_whole(body)
        theirs = whole.headers if governor is None else shown(whole.headers, governor)
        headers = [*theirs, *chat.answer_headers]
        if chat.dropped:
            headers += dropped_headers(chat.dropped)
        return Reply(route_lines(request.record) + header_lines(headers), body)
    first = targets[0].provider
    await pump(
        request,
        lambda: stream_of(targets, limits, chat, keeper),
        commit_delay_s=first.commit_delay_s,
        ping_s=first.ping_s,
        headers=lambda: [
            *route_headers(request.record),
            *shown(chat.answer_headers, governor),
            *dropped_headers(chat.dropped),
        ],
        heartbeat=lambda: (chat.provider or first).heartbeat(chat),
        dialect=dialect,
        keep_failure=None if keeper is None else partial(keeper.keep_failure, chat),
    )
    return None


class Keeper(ABC):
    """Keeps the answer to one request, so that another request can refer to it.

    `repeated` has fields of a translated answer, as in `ChatRequest`.
    """

    repeated: JsonMapping | None = None

    @abstractmethod
    def targets(self, targets: attempts.Targets) -> attempts.Targets:
        """Those of `targets` that can answer. Raises a ClientError where there are none."""

    @abstractmethod
    async def keep(self, chat: ChatRequest, body: bytes) -> bytes:
        """Keep a whole answer. Returns the one for the client."""

    @abstractmethod
    async def keep_stream(self, chat: ChatRequest, frames: bytes) -> bytes:
        """The same with the last frames of a stream, which hold the whole answer."""

    @abstractmethod
    async def keep_failure(self, chat: ChatRequest, frames: bytes) -> bytes:
        """The same with the frames that end a stream which failed."""


async def stream_of(
    targets: attempts.Targets, limits: Limits, chat: ChatRequest, keeper: Keeper | None
) -> Stream:
    """The stream of the first target that has content; its end waits for `keeper`. The caller closes it."""
    stream = await attempts.streamed(targets, limits, chat)
    if keeper is not None:
        try:
            await stream.hold_end(partial(keeper.keep_stream, chat))
        except BaseException:
            stream.close()
            raise
    return stream


def conversation(
    request: ProxyRequest,
    record: RequestRecord,
    state: AppState,
    dialect: Dialect,
    asked: ParsedRequest,
    keeper: Keeper | None = None,
) -> tuple[attempts.Targets, ChatRequest]:
    """Where a request may go and what it asks. From here on the conversation is the latter's alone.

    `record` is that of the conversation: a websocket's request has several of them.
    """
    model, router = asked.model, state.router
    record.dialect = dialect.name
    record.model, record.is_streaming = model[:256], asked.is_streaming
    record.input_bytes = len(asked.body)
    named = named_provider(request)
    targets: attempts.Targets
    if named is None:
        targets = router.resolve_conversation(asked, request.fields, record, request.header_name)
    else:
        targets = router.named(named, model)
    rules = record.client.rules
    if rules.models or rules.team:
        check_model(state.rulebook, record.client, router, model, targets, named)
    if keeper is not None:
        targets = keeper.targets(targets)
    first = targets[0]
    record.provider = first.provider.name
    chat = ChatRequest(
        asked.body,
        asked.fields,
        model,
        first.upstream_model,
        asked.is_streaming,
        request.fields,
        record,
        asked.model_span,
        asked.include_usage,
        dialect,
        dialect,
        asked.collect_s,
    )
    if keeper is not None:
        chat.repeated = keeper.repeated
    return targets, chat


add_route(blueprint, chat_completions, "/chat/completions", ["POST"], "create")
