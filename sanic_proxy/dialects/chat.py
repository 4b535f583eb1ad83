"""OpenAI's chat completions: the default dialect, of clients, providers, and paths without another one."""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.dialects.base import Dialect, ParsedRequest
from sanic_proxy.errors import ErrorObject, ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.fields import flag_field, list_field, text_field
from sanic_proxy.openai.usage import recorded_chat
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import ChatStreamFilter, StreamFilter
from sanic_proxy.streams.reasoning import ReasoningRenamer
from sanic_proxy.streams.stream import Heartbeat
from sanic_proxy.translation.chat import ChatFormat
from sanic_proxy.translation.chat.accumulate import CompletionAccumulator
from sanic_proxy.translation.format import Collector
from sanic_proxy.upstream import answers


class ChatDialect(Dialect):
    """See the module."""

    name = "chat"
    path = "/chat/completions"
    format = ChatFormat()
    ping = sse.PING

    @override
    def parse(self, body: bytes, fields: Json, model_span: Span | None) -> ParsedRequest:
        # Good values need no call.
        model = fields.get("model")
        if not isinstance(model, str):
            model = text_field(fields, "model")
        is_streaming = fields.get("stream", False)
        if not isinstance(is_streaming, bool):
            is_streaming = flag_field(fields, "stream")
        messages = fields.get("messages")
        if not messages or not isinstance(messages, list):
            list_field(fields, "messages")
        include_usage = False
        if is_streaming:
            options = fields.get("stream_options")
            include_usage = isinstance(options, dict) and options.get("include_usage") is True
        return ParsedRequest(body, fields, model, is_streaming, include_usage, model_span)

    @override
    def error_body(self, error: ProxyError) -> bytes:
        return codec.dumps({"error": error_object(error)})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        """No `[DONE]` follows it."""
        return sse.encode(self.error_body(error))

    @override
    def heartbeat(self, provider: Heartbeat) -> Heartbeat:
        return provider

    @override
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        renamer = ReasoningRenamer() if unify_reasoning else None
        return ChatStreamFilter(include_usage=include_usage, reasoning=renamer)

    @override
    def may_collect(self, fields: JsonMapping) -> bool:
        """Spoken answers have other formats in streams."""
        return fields.get("modalities") in (None, ["text"]) and not fields.get("audio")

    @override
    def as_stream(self, fields: JsonMapping, *, with_usage: bool) -> JsonMapping:
        options = {"stream_options": {"include_usage": True}} if with_usage else {}
        return {**fields, "stream": True, **options}

    @override
    def collector(self) -> Collector:
        return CompletionAccumulator()

    @override
    def usage_in(self, body: bytes) -> JsonMapping | None:
        completion = answers.checked_completion(body)
        if "service_tier" in completion:
            return recorded_chat(completion)
        usage = completion.get("usage")
        return usage if isinstance(usage, dict) else None


def error_object(error: ProxyError) -> Json:
    """The value of OpenAI's `error` key: the four standard keys first, then the provider's `details`."""
    standard: ErrorObject = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    return {**standard, **{key: value for key, value in error.details.items() if key not in standard}}


CHAT = ChatDialect()
