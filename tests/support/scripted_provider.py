"""A provider without a network, whose answers take as long as a test says: attempts in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import override

from sanic_proxy.errors import ProxyError, UpstreamTimeout
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import Answer, ChatProvider, ChatRequest, ProviderKind, WholeAnswer
from sanic_proxy.streams.filters import ChatStreamFilter
from sanic_proxy.streams.stream import Stream
from sanic_proxy.upstream.client import Response
from tests.support.upstream import DONE, completion, frame

# What one attempt brings, and after how many seconds: the text of an answer, or its failure.
Outcome = tuple[float, str | ProxyError]


class ScriptedProvider(ChatProvider):
    """See the module. `script` gives the outcome of each attempt.

    `asked` has the models of the attempts, `closed_at` the loop time at which each attempt that was
    cancelled ended, and `sources` the streams that it has opened.
    """

    dialects = ("chat",)
    commit_delay_s = 60.0

    def __init__(self, name: str, script: Callable[[], Outcome], kind: ProviderKind = "native") -> None:
        self.name = name
        self.script = script
        self.kind = kind
        self.asked: list[str] = []
        self.cancelled_at: list[float] = []
        self.sources: list[Source] = []

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return self.kind

    @override
    def deadline(self, at_least_s: float = 0.0) -> float:
        return math.inf

    async def _outcome(self, request: ChatRequest) -> str:
        self.asked.append(request.upstream_model)
        request.forget_content()
        seconds, outcome = self.script()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(request.total_at if request.total_at < math.inf else None):
                await asyncio.sleep(seconds)
        except TimeoutError:
            raise UpstreamTimeout("The time of the request is over") from None
        except asyncio.CancelledError:
            self.cancelled_at.append(loop.time())
            raise
        if isinstance(outcome, ProxyError):
            raise outcome
        return outcome

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        text = await self._outcome(request)
        return Answer(self, request, Source(codec.dumps(completion(text))))

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        body = await answer.source.read_all()
        answer.request.record.usage = codec.loads_tolerant(body)["usage"]
        return WholeAnswer(body)

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        text = await self._outcome(request)
        source = Source(frame({"content": text}), frame(finish="stop"), DONE)
        self.sources.append(source)
        return Stream(source, ChatStreamFilter(include_usage=True), request.record)

    @override
    async def list_models(self) -> list[Json]:
        return []


class Source(Response):
    """The body of an answer in pieces."""

    __slots__ = ("is_closed", "pieces")

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.is_closed = False

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else b""

    @override
    def close(self) -> None:
        self.is_closed = True


def in_turn(*outcomes: Outcome) -> Callable[[], Outcome]:
    """One outcome after the other; the last one stays."""
    left = list(outcomes)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def chat_fields(**further: Any) -> JsonMapping:
    fields: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **further}
    return fields
