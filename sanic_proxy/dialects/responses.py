"""OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses.

A provider that speaks it gets the client's bytes, but for items that the proxy itself made of another
provider's answers (`translation.responses.native`).
"""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.dialects.base import DROPPED_REASONING, Dialect, ParsedRequest, Prepared, register
from sanic_proxy.dialects.chat import error_object
from sanic_proxy.dialects.effects import RESPONSES_EFFECTS
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.fields import flag_field, text_field
from sanic_proxy.openai.responses import failed_frames, new_response_id, recorded_usage, response_object
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.responses_filter import ResponsesStreamFilter
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.responses.answer_reader import raise_if_failed
from sanic_proxy.translation.responses.native import may_need_change, with_own_items
from sanic_proxy.upstream import answers

SERVER_ERROR = 500


class ResponsesDialect(Dialect):
    """See the module. A stream always reports its usage.

    `has_done_marker`: translated streams end with `data: [DONE]`, which Open Responses demands and OpenAI
    does not send.
    """

    name = "responses"
    effects = RESPONSES_EFFECTS
    path = "/responses"
    ping = sse.PING

    def __init__(self, *, has_done_marker: bool = False) -> None:
        self.format = ResponsesFormat(has_done_marker=has_done_marker)

    @override
    def parse(self, body: bytes, fields: Json, model_span: Span | None) -> ParsedRequest:
        model = text_field(fields, "model")
        is_streaming = flag_field(fields, "stream")
        if not isinstance(fields.get("input"), str | list | None):
            raise InvalidRequest("The parameter `input` must be a string or a list", param="input")
        return ParsedRequest(body, fields, model, is_streaming, True, model_span)

    @override
    def error_body(self, error: ProxyError) -> bytes:
        return codec.dumps({"error": error_object(error)})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        """For a stream that has sent nothing but pings: its only events."""
        return failed_frames(response_object(new_response_id(), "", chunks.now(), {}), 0, error)

    @override
    def streams_failure(self, error: ProxyError, headers: Mapping[str, str]) -> bool:
        """Codex 0.171 sends a request up to 30 times that is answered with a 5xx, and 6 times if its stream
        fails (measured). Other clients report a status better.
        """
        return error.status >= SERVER_ERROR and headers.get("originator", "").startswith("codex")

    @override
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        return ResponsesStreamFilter()

    @override
    def prepared(self, body: bytes, fields: JsonMapping, provider: str) -> Prepared | None:
        if not may_need_change(body):
            return None
        prepared = with_own_items(fields, provider)
        if prepared is fields:
            return None
        is_shorter = len(prepared["input"]) < len(fields["input"])
        return Prepared(prepared, (DROPPED_REASONING,) if is_shorter else ())

    @override
    def usage_in(self, body: bytes) -> JsonMapping | None:
        response = answers.checked(body)
        if not isinstance(response, dict) or not isinstance(response.get("output"), list):
            raise errors.UpstreamBadResponse("The provider's answer is not a response")
        raise_if_failed(response)
        return recorded_usage(response)


RESPONSES = register(
    ResponsesDialect(),
    *(f"{base}/responses{path}" for base in ("/v1", "") for path in ("", "/compact", "/input_tokens")),
)
RESPONSES_WITH_DONE = ResponsesDialect(has_done_marker=True)
