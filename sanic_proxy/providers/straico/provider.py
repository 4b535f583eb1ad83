"""Straico: no streams, no tools, not quite OpenAI's format. Does the calls; its siblings convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

from typing_extensions import override

from sanic_proxy import replay, wire
from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.providers.base import Answer, ChatProvider, ChatRequest, ProviderKind, WholeAnswer
from sanic_proxy.providers.generic import endpoint, fixed_headers, headers_back
from sanic_proxy.providers.straico import answers
from sanic_proxy.providers.straico.failures import RULES
from sanic_proxy.providers.straico.requests import request_body
from sanic_proxy.settings import ProviderSettings
from sanic_proxy.streaming import PING, Filler, Relay, beats_until, discard
from sanic_proxy.upstream import UpstreamClient


class StraicoProvider(ChatProvider):
    """See the module. `heartbeat` is the content of heartbeat chunks; None for comment lines."""

    def __init__(
        self,
        settings: ProviderSettings,
        client: UpstreamClient,
        *,
        heartbeat: str | None,
        heartbeat_interval_s: float,
    ) -> None:
        self.name = settings.name
        self.commit_delay_s = settings.commit_delay_s
        self.ping_s = None
        self._client = client
        self._heartbeat = heartbeat
        self._heartbeat_interval_s = heartbeat_interval_s
        headers = {**fixed_headers(settings), "accept": "application/json"}
        self._chat = endpoint(settings, "POST", "/v2/chat/completions", headers, RULES)
        self._models = endpoint(settings, "GET", "/v2/models", headers, RULES)

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "emulated"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        body = wire.dumps(request_body(request.fields, request.upstream_model))
        return Answer(self, request, await self._client.send(self._chat, body=(body,)))

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        completion = await _completion(answer)
        headers = [("content-type", "application/json"), *headers_back(answer.source.headers)]
        return WholeAnswer(wire.dumps(completion), [*headers, *_cost_headers(completion)])

    @override
    async def create_streaming_response(
        self, request: ChatRequest, pending: Coroutine[Any, Any, Answer]
    ) -> AsyncGenerator[bytes | Relay, None]:
        head = wire.ChunkHead(
            id=wire.new_completion_id(),
            model=request.model,
            created=wire.now(),
            include_usage=request.include_usage,
        )
        initial = replay.initial_frame(head)
        beat = self._beat(head)
        completing = asyncio.ensure_future(_completed(pending))
        try:
            yield Filler(initial)
            async with aclosing(
                beats_until(completing, beat=beat, interval_s=self._heartbeat_interval_s)
            ) as beats:
                async for filler in beats:
                    yield filler
            for frame in replay.answer_frames(head, completing.result()):
                yield frame
        finally:
            await discard(completing)

    def _beat(self, head: wire.ChunkHead) -> Filler:
        if self._heartbeat is None:
            return PING
        return Filler(replay.heartbeat_frame(head, self._heartbeat))

    @override
    async def list_models(self) -> list[dict[str, Any]]:
        response = await self._client.send(self._models)
        try:
            return answers.model_list(wire.loads_tolerant(await response.read_all()))
        finally:
            response.close()


async def _completed(pending: Coroutine[Any, Any, Answer]) -> dict[str, Any]:
    answer = await pending
    try:
        return await _completion(answer)
    finally:
        answer.close()


async def _completion(answer: Answer) -> dict[str, Any]:
    request = answer.request
    parsed = wire.loads_tolerant(await answer.source.read_all())
    if parsed is None:
        raise UpstreamBadResponse("The provider's answer is not valid JSON")
    completion = answers.completion(parsed, request=request.fields, model=request.model)
    if isinstance(usage := completion.get("usage"), dict):
        request.record.usage = usage
    return completion


def _cost_headers(completion: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`x-straico-price-total`, `x-straico-words-total` and their parts: coins and words."""
    extra = completion.get("x_straico") or {}
    return [
        (f"x-straico-{kind}-{part}", str(amount))
        for kind, amounts in extra.items()
        if isinstance(amounts, dict)
        for part, amount in amounts.items()
        if part in {"input", "output", "total"} and isinstance(amount, int | float)
    ]
