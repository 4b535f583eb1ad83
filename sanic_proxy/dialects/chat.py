"""OpenAI's chat completions: the dialect without translation, and that of all paths without another one."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from sanic_proxy.dialects.base import Dialect, ParsedRequest, dialect_of
from sanic_proxy.errors import ErrorObject, ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.fields import flag_field, list_field, text_field
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Heartbeat


class ChatDialect(Dialect):
    """See the module."""

    name = "chat"
    ping = sse.PING

    @override
    def parse(self, body: bytes, fields: dict[str, Any], model_span: Span | None) -> ParsedRequest:
        model = text_field(fields, "model")
        is_streaming = flag_field(fields, "stream")
        list_field(fields, "messages")
        include_usage = False
        if is_streaming:
            options = fields.get("stream_options")
            include_usage = isinstance(options, dict) and options.get("include_usage") is True
        return ParsedRequest(body, fields, model, is_streaming, include_usage, model_span)

    @override
    def whole(self, body: bytes) -> bytes:
        return body

    @override
    def stream_filter(self) -> StreamFilter | None:
        return None

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


def error_object(error: ProxyError) -> dict[str, Any]:
    """The value of OpenAI's `error` key: the four standard keys first, then the provider's `details`."""
    standard: ErrorObject = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    return {**standard, **{key: value for key, value in error.details.items() if key not in standard}}


CHAT = ChatDialect()


def dialect_for(path: str) -> Dialect:
    """The dialect of a path."""
    return dialect_of(path, CHAT)
