"""Straico: no streams, no tools, not quite OpenAI's format. Does the calls; its siblings decide."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from typing_extensions import override

from sanic_proxy.config.model import HEARTBEATS, ProviderSettings, Settings
from sanic_proxy.errors import ProxyError, UpstreamBadResponse
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.providers.base import (
    Answer,
    ChatProvider,
    ChatRequest,
    ProviderKind,
    WholeAnswer,
    protocol,
)
from sanic_proxy.providers.openai_compatible import endpoint, fixed_headers, headers_back
from sanic_proxy.providers.straico import parameters, replies
from sanic_proxy.providers.straico.choices import offers_tools
from sanic_proxy.providers.straico.error_rules import RULES
from sanic_proxy.providers.straico.plan import UpstreamPlan, build_plan, retry_turns
from sanic_proxy.providers.straico.uploads import Uploads
from sanic_proxy.providers.straico.validation import validator
from sanic_proxy.providers.straico.validation.validator import Validated
from sanic_proxy.streams import replay
from sanic_proxy.streams.stream import Heartbeat, Stream
from sanic_proxy.upstream.client import Endpoint, Response, UpstreamClient


@dataclass(slots=True)
class _Asked(Answer):
    """An answer, and what it has to be. The images stay where they were brought to."""

    plan: UpstreamPlan
    image_urls: Sequence[str]


@protocol("straico")
class StraicoProvider(ChatProvider):
    """See the module."""

    def __init__(self, provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> None:
        super().__init__(provider, settings, client)
        # The content of heartbeat chunks; None for comment lines.
        self._heartbeat = None if settings.heartbeat == "comment" else HEARTBEATS[settings.heartbeat]
        headers = {**fixed_headers(provider), "accept": "application/json"}
        self._chat = endpoint(provider, "POST", "/v2/chat/completions", headers, RULES)
        self._prompt = endpoint(provider, "POST", "/v1/prompt/completion", headers, RULES)
        self._models = endpoint(provider, "GET", "/v2/models", headers, RULES)
        del headers["content-type"]
        self._uploads = Uploads(client, endpoint(provider, "POST", "/v0/file/upload", headers, RULES))

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "emulated"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        fields = request.fields
        request.drop([*parameters.dropped_params(fields), *parameters.dropped_parts(fields.get("messages"))])
        if request.is_streaming:
            _head_of(request)  # while the conversation is still here
        plan = build_plan(request.fields, request.upstream_model)
        request.forget_content()  # the plan has what is still needed of it
        urls = await self._uploads.resolve(plan.images, request.total_at) if plan.images else []
        plan.images = ()
        way, body = self._question(plan, plan.turns, urls)
        if not plan.is_checked:
            plan.turns = []
        response = await self.client.send(way, body=(body,), total_at=request.total_at)
        return _Asked(self, request, response, plan, urls)

    def _question(
        self, plan: UpstreamPlan, turns: Sequence[dict[str, str]], image_urls: Sequence[str]
    ) -> tuple[Endpoint, bytes]:
        """Where `turns` go, and as what: only the older endpoint takes images."""
        if image_urls:
            body = plan.prompt_body(turns, image_urls, mark=secrets.token_hex(4))
            return self._prompt, codec.dumps(body)
        return self._chat, codec.dumps(plan.chat_body(turns))

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        completion = await self._completion(cast("_Asked", answer))
        headers = [("content-type", "application/json"), *headers_back(answer.source.headers)]
        return WholeAnswer(codec.dumps(completion), [*headers, *_cost_headers(completion)])

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        answer = await self.send_request(request)
        try:
            completion = await self._completion(cast("_Asked", answer))
        finally:
            answer.close()
        head = _head_of(request)
        frames = b"".join(replay.answer_frames(head, completion))
        return Stream.of_frames([frames], request.record, opening=replay.initial_frame(head))

    @override
    def heartbeat(self, request: ChatRequest) -> Heartbeat:
        head = _head_of(request)
        opening = replay.initial_frame(head)
        if self._heartbeat is None:
            return Heartbeat(opening=opening)
        return Heartbeat(replay.heartbeat_frame(head, self._heartbeat), opening)

    async def _completion(self, asked: _Asked) -> dict[str, object]:
        """The answer; the second one where the first will not do. Raises where neither does."""
        request, plan = asked.request, asked.plan
        made = await _validate(asked.source, plan)
        request.record.usage = replies.recorded_usage(made.reply)
        if made.violation is not None and made.violation.retry_prompt is not None:
            asked.source.close()
            made = await self._made_again(asked, made, made.violation.retry_prompt)
            request.record.usage = replies.recorded_usage(made.reply)
        if made.violation is not None and made.violation.error is not None:
            raise made.violation.error
        return validator.completion(made, model=request.model)

    async def _made_again(self, asked: _Asked, first: Validated, retry_prompt: str) -> Validated:
        """The answer to a complaint, in what is left of the request's time.

        Where the first is good enough to be handed on, it is, should the second not come.
        """
        plan = asked.plan
        turns = retry_turns(plan.turns, validator.assistant_turn(first.reply, plan), retry_prompt)
        try:
            way, body = self._question(plan, turns, asked.image_urls)
            response = await self.client.send(
                way, body=(body,), total_at=asked.source.total_at, is_fresh=True
            )
            try:
                second = await _validate(response, plan)
            finally:
                response.close()
        except ProxyError as exc:
            if first.violation is None or first.violation.error is not None:
                raise exc.replaced(is_final=True) from exc  # the first has been paid: no other attempt
            return first
        return validator.add_cost(second, first.reply)

    @override
    async def list_models(self) -> list[dict[str, object]]:
        response = await self.client.send(self._models, is_fresh=True)
        try:
            return replies.model_list(codec.loads_tolerant(await response.read_all()))
        finally:
            response.close()


async def _validate(source: Response, plan: UpstreamPlan) -> Validated:
    parsed = codec.loads_tolerant(await source.read_all())
    if parsed is None:
        raise UpstreamBadResponse("The provider's answer is not valid JSON")
    return validator.validate(replies.parse_reply(parsed), plan)


def _head_of(request: ChatRequest) -> chunks.ChunkHead:
    """What all chunks of the answer share: the heartbeats, and those of another attempt, included."""
    if request.head is None:
        request.head = chunks.ChunkHead(
            id=chunks.new_completion_id(),
            model=request.model,
            created=chunks.now(),
            include_usage=request.include_usage,
            initial_content=None if offers_tools(request.fields) else "",
        )
    return request.head


def _cost_headers(completion: JsonMapping) -> list[tuple[str, str]]:
    """`x-straico-price-total`, `x-straico-words-total` and their parts: coins and words."""
    extra = completion.get("x_straico") or {}
    return [
        (f"x-straico-{kind}-{part}", str(amount))
        for kind, amounts in extra.items()
        if isinstance(amounts, dict)
        for part, amount in amounts.items()
        if part in {"input", "output", "total"} and isinstance(amount, int | float)
    ]
