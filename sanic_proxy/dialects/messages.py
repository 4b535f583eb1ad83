"""Anthropic's Messages: https://platform.claude.com/docs/en/api/messages.

A provider that speaks it gets the client's bytes, with two exceptions: signatures of reasoning which it has
not made are removed (`translation.signatures`), and a whole answer that may take longer than a silent
connection lives is requested as a stream and collected.
"""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.dialects.base import DROPPED_REASONING, Dialect, ParsedRequest, Prepared, register
from sanic_proxy.dialects.effects import MESSAGES_EFFECTS
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.fields import flag_field, list_field, text_field
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.messages_filter import PING, MessagesStreamFilter
from sanic_proxy.streams.messages_usage import recorded_usage
from sanic_proxy.translation.format import Collector
from sanic_proxy.translation.messages import MessagesFormat
from sanic_proxy.translation.messages.accumulate import MessageAccumulator
from sanic_proxy.translation.messages.native import with_own_reasoning
from sanic_proxy.upstream import answers

VERSION_HEADER = "anthropic-version"
# Anthropic's SDKs refuse to wait for a whole answer of more tokens than this, at 128,000 tokens an hour.
_MAX_SILENT_TOKENS = 21_333
_TOKENS_PER_S = 128_000 / 3600
_MAX_COLLECT_S = 2 * 3600.0

# https://platform.claude.com/docs/en/api/errors
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesDialect(Dialect):
    """See the module."""

    reports_partly = True
    name = "messages"
    effects = MESSAGES_EFFECTS
    path = "/messages"
    forward_headers = ("anthropic-beta", VERSION_HEADER)
    headers = {VERSION_HEADER: "2023-06-01"}  # noqa: RUF012 - a class variable by its declaration
    format = MessagesFormat()
    ping = PING

    @override
    def parse(self, body: bytes, fields: Json, model_span: Span | None) -> ParsedRequest:
        model = text_field(fields, "model")
        is_streaming = flag_field(fields, "stream")
        list_field(fields, "messages")
        tokens = fields.get("max_tokens")
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            problem = "is missing" if tokens is None else "must be a whole number of at least 1"
            raise InvalidRequest(f"The parameter `max_tokens` {problem}", param="max_tokens")
        is_long = not is_streaming and tokens > _MAX_SILENT_TOKENS
        return ParsedRequest(
            body,
            fields,
            model,
            is_streaming,
            True,
            model_span,
            min(tokens / _TOKENS_PER_S, _MAX_COLLECT_S) if is_long else None,
        )

    @override
    def error_body(self, error: ProxyError) -> bytes:
        return codec.dumps({"type": "error", "error": {"type": _type_of(error), "message": error.message}})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        return b"event: error\ndata: " + self.error_body(error) + b"\n\n"

    @override
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        return MessagesStreamFilter()

    @override
    def prepared(self, body: bytes, fields: JsonMapping, provider: str) -> Prepared | None:
        if b'"signature"' not in body and b"redacted_thinking" not in body:
            return None
        prepared = with_own_reasoning(fields, provider)
        if prepared is fields:
            return None
        is_shorter = _block_count(prepared) < _block_count(fields)
        return Prepared(prepared, (DROPPED_REASONING,) if is_shorter else ())

    @override
    def may_collect(self, fields: JsonMapping) -> bool:
        return True

    @override
    def collector(self) -> Collector:
        return MessageAccumulator()

    @override
    def usage_in(self, body: bytes) -> JsonMapping | None:
        usage = answers.checked_message(body).get("usage")
        return recorded_usage(usage) if isinstance(usage, dict) else None


def _block_count(fields: JsonMapping) -> int:
    contents = (message.get("content") for message in fields["messages"] if isinstance(message, dict))
    return sum(len(content) for content in contents if isinstance(content, list))


def _type_of(error: ProxyError) -> str:
    if isinstance(error, errors.InsufficientQuota):
        return "billing_error"
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


MESSAGES = register(
    MessagesDialect(), "/v1/messages", "/messages", "/v1/messages/count_tokens", "/messages/count_tokens"
)
