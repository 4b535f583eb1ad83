"""A provider that speaks OpenAI's protocol: bytes in, bytes out. One class, a row each."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any

from typing_extensions import override

from sanic_proxy import errors, failures, replay, wire
from sanic_proxy.providers.base import Answer, ChatProvider, ChatRequest, ProviderKind, WholeAnswer
from sanic_proxy.settings import ProviderSettings
from sanic_proxy.streaming import PING, ChatGuard, beats_until
from sanic_proxy.upstream import MAX_ANSWER_BYTES, UpstreamClient, UpstreamRequest

# What every provider gets of a client's headers; a row adds those its vendor understands.
_FORWARDED = ("user-agent", "idempotency-key", "traceparent", "tracestate")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,4096}")
# What a client gets of a provider's headers, besides content-type and the rate limits.
_RETURNED = re.compile(r"(?:x-ratelimit-|openai-(?!organization))[a-z0-9-]+", re.IGNORECASE)


class GenericProvider(ChatProvider):
    """Requests pass with only the model's value changed, answers with nothing changed."""

    def __init__(
        self, settings: ProviderSettings, client: UpstreamClient, *, heartbeat_interval_s: float
    ) -> None:
        self.name = settings.name
        self.commit_delay_s = settings.commit_delay_s
        self._settings = settings
        self._client = client
        self._heartbeat_interval_s = heartbeat_interval_s
        self._forwarded = (*_FORWARDED, *settings.forward_headers)
        self._fixed_headers = fixed_headers(settings)

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "native"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        body = wire.replace_model(request.body, old=request.model, new=request.upstream_model)
        accept = "text/event-stream" if request.is_streaming else "application/json"
        response = await self._client.send(
            UpstreamRequest(
                method="POST",
                url=f"{self._settings.base_url}/chat/completions",
                headers=self._headers_up(request.headers, accept),
                body=body,
                timeouts=self._settings.timeouts,
                proxy=self._settings.proxy,
            )
        )
        return Answer(self, request, response)

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        body = await answer.source.read_all()
        completion = _completion(body)
        if isinstance(usage := completion.get("usage"), dict):
            answer.request.record.usage = usage
        content_type = answer.source.headers.get("content-type", "application/json")
        is_json = content_type.lower().startswith("application/json") and _HEADER_VALUE.fullmatch(
            content_type
        )
        return WholeAnswer(
            body,
            [
                ("content-type", content_type if is_json else "application/json"),
                *headers_back(answer.source.headers),
            ],
        )

    @override
    async def create_streaming_response(
        self, request: ChatRequest, pending: Awaitable[Answer]
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(beats_until(pending, beat=PING, interval_s=self._heartbeat_interval_s)) as beats:
            async for beat in beats:
                yield beat
        answer = await pending
        told = self._told if _media_type(answer.source.headers) == "application/json" else self._relayed
        try:
            async with aclosing(told(answer)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            answer.close()

    async def _relayed(self, answer: Answer, begun: bytes = b"") -> AsyncGenerator[bytes, None]:
        """An event stream, frame by frame; `begun` is what has been read of it."""
        guard = ChatGuard()
        piece: bytes | None = begun
        try:
            while not guard.is_done:
                piece = piece or await answer.source.read_some(self._heartbeat_interval_s)
                if piece is None:
                    yield PING
                    continue
                frames = guard.feed(piece) if piece else guard.end()
                if frames:
                    yield frames
                if guard.failure is not None:
                    raise guard.failure
                if not piece:
                    return
                piece = None
            await answer.source.finish()
        finally:
            answer.request.record.usage = guard.usage

    async def _told(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """A whole answer to a request for a stream, told as one; a stream labelled as JSON is relayed."""
        body = b""
        while (piece := await answer.source.read_some(self._heartbeat_interval_s)) != b"":
            body += piece or b""
            if piece is None:
                yield PING
            elif _looks_like_a_stream(body):
                async with aclosing(self._relayed(answer, body)) as frames:
                    async for frame in frames:
                        yield frame
                return
            elif len(body) > MAX_ANSWER_BYTES:
                raise errors.UpstreamBadResponse("The provider's answer is larger than the proxy accepts")
        completion = _completion(body)
        if not _is_replayable(completion):
            raise errors.UpstreamBadResponse("The provider answered a streaming request with something else")
        head = _head_of(completion, answer.request)
        yield replay.initial_frame(head)
        for frame in replay.answer_frames(head, completion):
            yield frame

    def _headers_up(self, client: Mapping[str, str], accept: str) -> dict[str, str]:
        headers = {**self._fixed_headers, "accept": accept}
        for name in self._forwarded:
            value = client.get(name)
            if value is not None and name not in self._fixed_headers and _HEADER_VALUE.fullmatch(value):
                headers[name] = value
        return headers

    @override
    async def list_models(self) -> list[dict[str, Any]]:
        settings = self._settings
        if settings.models or settings.models_path is None:
            return [{"id": model} for model in settings.models]
        response = await self._client.send(
            UpstreamRequest(
                method="GET",
                url=f"{settings.base_url}{settings.models_path}",
                headers={**self._fixed_headers, "accept": "application/json"},
                body=None,
                timeouts=settings.timeouts,
                proxy=settings.proxy,
            )
        )
        try:
            entries = wire.model_entries(wire.loads_tolerant(await response.read_all()))
        finally:
            response.close()
        return [{**entry, "id": entry["id"].removeprefix(settings.model_prefix)} for entry in entries]


def fixed_headers(settings: ProviderSettings) -> dict[str, str]:
    """The headers of every request to one provider: its key, the row's own, and no compression."""
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if settings.key is not None:
        headers["authorization"] = f"Bearer {settings.key.reveal()}"
    return {**headers, **dict(settings.headers)}


def headers_back(upstream: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a client gets of a provider's headers: its limits, its timing, its request id."""
    back = [
        (name.lower(), value)
        for name, value in upstream.items()
        if _RETURNED.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
    ]
    if (wait_s := failures.retry_after_s(upstream)) is not None:
        back.append(("retry-after", str(wait_s)))
    request_id = upstream.get("x-request-id") or upstream.get("request-id")
    if request_id and _HEADER_VALUE.fullmatch(request_id):
        back.append(("x-upstream-request-id", request_id))
    return back


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _looks_like_a_stream(body: bytes) -> bool:
    return body.lstrip(b"\xef\xbb\xbf \r\n").startswith((b"data:", b"event:", b":"))


def _completion(body: bytes) -> dict[str, Any]:
    """The completion in a whole answer. Raises for what is none, an error object with status 200 included."""
    try:
        parsed = wire.loads_exact(body)
    except ValueError:
        raise errors.UpstreamBadResponse("The provider's answer is not valid JSON") from None
    if isinstance(parsed, dict) and parsed.get("error"):
        raise failures.error_in_band(parsed)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("choices"), list):
        raise errors.UpstreamBadResponse("The provider's answer is not a chat completion")
    return parsed


def _is_replayable(completion: Mapping[str, Any]) -> bool:
    choices = completion["choices"]
    return len(choices) == 1 and isinstance(choices[0], dict) and isinstance(choices[0].get("message"), dict)


def _head_of(completion: Mapping[str, Any], request: ChatRequest) -> wire.ChunkHead:
    created = completion.get("created")
    return wire.ChunkHead(
        id=str(completion.get("id") or wire.new_completion_id()),
        model=str(completion.get("model") or request.model),
        created=created if isinstance(created, int) else wire.now(),
        include_usage=request.include_usage,
    )
