"""Gemini's API to generate content: https://ai.google.dev/api/generate-content.

The path holds the model, and whether the answer is a stream: `/models/MODEL:generateContent` or
`:streamGenerateContent`. So the body of a request to a provider that speaks it needs no other model, and
passes as it is, but for signatures of reasoning that the proxy made (`translation.gemini.native`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.dialects.base import DROPPED_REASONING, Dialect, ParsedRequest, Prepared, register
from sanic_proxy.dialects.effects import GEMINI_EFFECTS
from sanic_proxy.errors import ModelNotFound, ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.fields import list_field
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.gemini_filter import PING, GeminiStreamFilter, JsonArray
from sanic_proxy.streams.gemini_usage import recorded_usage
from sanic_proxy.translation.gemini import GeminiFormat
from sanic_proxy.translation.gemini.answers import is_blocked
from sanic_proxy.translation.gemini.native import with_own_signatures
from sanic_proxy.upstream import answers

KEY_HEADER = "x-goog-api-key"

# https://ai.google.dev/gemini-api/docs/troubleshooting
_STATUSES: Mapping[int, str] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Google's API that is compatible with OpenAI's is served below its own one.
_COMPATIBLE = "/openai"


class GeminiDialect(Dialect):
    """See the module. A stream always reports its usage.

    `is_array`: streams are one JSON array, as clients get it that do not ask for `alt=sse`.
    """

    reports_partly = True
    name = "gemini"
    effects = GEMINI_EFFECTS
    path = "/models"
    forward_headers = ("x-goog-api-client",)
    key_header = KEY_HEADER
    key_parameter = "key"
    has_model_in_path = True
    format = GeminiFormat()
    ping = PING

    def __init__(self, *, is_array: bool = False) -> None:
        self._is_array = is_array
        if is_array:
            self.stream_type = "application/json; charset=utf-8"

    @override
    def parse(self, body: bytes, fields: Json, model_span: Span | None) -> ParsedRequest:
        """Read a request. The route sets `model` and `is_streaming`, which its path has."""
        list_field(fields, "contents")
        return ParsedRequest(body, fields, "", False, True)

    @override
    def error_body(self, error: ProxyError) -> bytes:
        kind = _STATUSES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
        body: Json = {"code": error.status, "message": error.message, "status": kind}
        delay_s = error.retry_after_s
        if isinstance(error, errors.InsufficientQuota):
            delay_s = max(error.least_retry_after_s, delay_s or 0)
        if delay_s is not None:
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            body["details"] = [{"@type": kind, "retryDelay": f"{delay_s}s"}]
        return codec.dumps({"error": body})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        """Nothing: clients do not read an error there, and repeat what ends without a finish reason."""
        return b""

    @override
    def framing(self) -> StreamFilter | None:
        return JsonArray() if self._is_array else None

    @override
    def base_url(self, provider: str) -> str:
        return provider.removesuffix(_COMPATIBLE)

    @override
    def path_to(self, model: str, *, is_streaming: bool) -> str:
        return f"{model_path(model)}:{'streamGenerateContent?alt=sse' if is_streaming else 'generateContent'}"

    @override
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        return GeminiStreamFilter()

    @override
    def prepared(self, body: bytes, fields: JsonMapping, provider: str) -> Prepared | None:
        if b'"thought' not in body:
            return None
        prepared = with_own_signatures(fields)
        return None if prepared is fields else Prepared(prepared, (DROPPED_REASONING,))

    @override
    def usage_in(self, body: bytes) -> JsonMapping | None:
        response = answers.checked(body)
        if not isinstance(response, dict) or not (response.get("candidates") or is_blocked(response)):
            raise errors.UpstreamBadResponse("The provider's answer has no candidates")
        return recorded_usage(response) if isinstance(response.get("usageMetadata"), dict) else None


def model_path(model: str) -> str:
    """The path of a model. Its name may hold slashes. Raises ModelNotFound for what is no path."""
    names = model.removeprefix("models/").split("/")
    if not all(name.strip(".") for name in names):
        raise ModelNotFound(f"The model {model[:200]!r} does not exist", param="model")
    return "/models/" + "/".join(quote(name, safe="@:") for name in names)


_PATHS = re.compile(r"/v1beta/models(/.*)?|/v1/models/.+:(generateContent|streamGenerateContent|countTokens)")
GEMINI = register(GeminiDialect(), pattern=_PATHS)
GEMINI_ARRAY = GeminiDialect(is_array=True)
