"""What the OpenAPI document says of each route.

sanic-ext makes the document from these descriptions when `scripts/generate` runs; the proxy serves the file
that was made (`pages/openapi.json`) and does not import sanic-ext, which would cost each worker 10 MiB and a
tenth of a second at the start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sanic_proxy.config.catalog import EMBEDDED_MODEL
from sanic_proxy.json_types import Json
from sanic_proxy.openai.endpoints import Row

Handler = TypeVar("Handler", bound=Callable[..., Any])

_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "string", "nullable": True},
                "code": {"type": "string", "nullable": True},
            },
        }
    },
}
_MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string", "enum": ["model"]},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
    },
}
_MODELS: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"type": "string", "enum": ["list"]},
        "data": {"type": "array", "items": _MODEL},
    },
}
_CHAT_REQUEST: Json = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string", "description": "provider/model", "example": EMBEDDED_MODEL},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {"role": {"type": "string"}},
            },
            "example": [{"role": "user", "content": "Hello"}],
        },
        "stream": {"type": "boolean", "default": False},
    },
    "additionalProperties": True,
}
_COMPLETION: Json = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
}
_STATUS: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}


_CALL_ERRORS: dict[int, str] = {
    400: "The request is wrong, or the provider is not configured",
    401: "No valid key",
    403: "The origin or host is not allowed",
    404: "No such model, or the provider has no such endpoint",
    413: "The body is too large",
    415: "The body's type is not one that is read",
    429: "The provider's limit is reached",
    502: "The provider failed",
    503: "The provider is overloaded",
    504: "The provider did not answer in time",
}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


@dataclass(frozen=True, slots=True)
class Operation:
    """The description of one handler. `is_call`: it takes the header `x-provider`."""

    summary: str
    tag: str
    responses: Json
    body: Json | None = None
    is_call: bool = False


# By handler. A handler without a description is not in the document.
OPERATIONS: dict[Callable[..., Any], Operation] = {}


def _documented(
    summary: str,
    tag: str,
    success: tuple[str, Json],
    *,
    body: Json | None = None,
    is_call: bool = False,
    errors: dict[int, str],
) -> Callable[[Handler], Handler]:
    """A decorator that describes a handler."""
    text, content = success
    responses: Json = {"200": {"description": text, "content": content}}
    for status, description in errors.items():
        responses[str(status)] = {"description": description, "content": _json(_ERROR)}

    def describe(handler: Handler) -> Handler:
        OPERATIONS[handler] = Operation(summary, tag, responses, body, is_call)
        return handler

    return describe


chat = _documented(
    "Create a chat completion",
    "chat",
    (
        "The completion; with `stream: true` its chunks as server-sent events, ended by `data: [DONE]`",
        {**_json(_COMPLETION), "text/event-stream": {"schema": {"type": "string"}}},
    ),
    body=_json(_CHAT_REQUEST),
    is_call=True,
    errors=_CALL_ERRORS,
)


_MESSAGE_REQUEST: Json = {
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "properties": {
        "model": {"type": "string", "description": "provider/model", "example": EMBEDDED_MODEL},
        "max_tokens": {"type": "integer", "minimum": 1, "example": 1024},
        "messages": _CHAT_REQUEST["properties"]["messages"],
        "stream": {"type": "boolean", "default": False},
    },
    "additionalProperties": True,
}
messages = _documented(
    "Create a message (Anthropic's Messages API)",
    "messages",
    (
        "The message; with `stream: true` its events as server-sent events, ended by `message_stop`",
        {**_json({"type": "object"}), "text/event-stream": {"schema": {"type": "string"}}},
    ),
    body=_json(_MESSAGE_REQUEST),
    is_call=True,
    errors=_CALL_ERRORS,
)
count_tokens = _documented(
    "Count the tokens of a message",
    "messages",
    (
        "The number; with the header `x-sanic-proxy-estimated` where the provider does not count",
        _json({"type": "object", "properties": {"input_tokens": {"type": "integer"}}}),
    ),
    body=_json({**_MESSAGE_REQUEST, "required": ["model", "messages"]}),
    is_call=True,
    errors=_CALL_ERRORS,
)
_RESPONSE_REQUEST: Json = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {"type": "string", "description": "provider/model", "example": EMBEDDED_MODEL},
        "input": {"description": "a text, or a list of items", "example": "Hello"},
        "stream": {"type": "boolean", "default": False},
    },
    "additionalProperties": True,
}
responses = _documented(
    "Create a response (OpenAI's Responses API)",
    "responses",
    (
        "The response; with `stream: true` its events as server-sent events, ended by `response.completed`",
        {**_json({"type": "object"}), "text/event-stream": {"schema": {"type": "string"}}},
    ),
    body=_json(_RESPONSE_REQUEST),
    is_call=True,
    errors=_CALL_ERRORS,
)
compact = _documented(
    "Compact a conversation",
    "responses",
    ("An item that stands for the conversation", _json({"type": "object"})),
    body=_json(_RESPONSE_REQUEST),
    is_call=True,
    errors=_CALL_ERRORS,
)
input_tokens = _documented(
    "Count the tokens of a response's input",
    "responses",
    (
        "The number; with the header `x-sanic-proxy-estimated` where the provider does not count",
        _json({"type": "object", "properties": {"input_tokens": {"type": "integer"}}}),
    ),
    body=_json(_RESPONSE_REQUEST),
    is_call=True,
    errors=_CALL_ERRORS,
)
gemini = _documented(
    "Generate content (Gemini's API); `:streamGenerateContent` streams, `:countTokens` counts",
    "gemini",
    (
        "The response; for `:streamGenerateContent?alt=sse` its parts as server-sent events, "
        "without `alt=sse` as one JSON array",
        {**_json({"type": "object"}), "text/event-stream": {"schema": {"type": "string"}}},
    ),
    body=_json(
        {
            "type": "object",
            "required": ["contents"],
            "properties": {
                "contents": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "object"},
                    "example": [{"role": "user", "parts": [{"text": "Hello"}]}],
                }
            },
            "additionalProperties": True,
        }
    ),
    is_call=True,
    errors=_CALL_ERRORS,
)
hello = _documented("Answer an agent's probe", "messages", ("The proxy answers", _json(_STATUS)), errors={})


def endpoint(row: Row) -> Callable[[Handler], Handler]:
    """What is said of an endpoint that passes through."""
    body: Json | None = None
    if row.body == "json":
        body = _json({"type": "object", "additionalProperties": True})
    elif row.body == "form":
        body = {"multipart/form-data": {"schema": {"type": "object", "additionalProperties": True}}}
    answer = _json({"type": "object"}) if row.answer == "json" else {"*/*": {"schema": {"type": "string"}}}
    return _documented(
        row.summary,
        row.path.split("/")[1],
        ("The provider's answer", answer),
        body=body,
        is_call=True,
        errors=_CALL_ERRORS,
    )


models = _documented(
    "List the models",
    "models",
    ("The models of all providers that are on", _json(_MODELS)),
    errors={
        401: "No valid key",
        403: "The origin or host is not allowed",
        502: "The only provider failed",
    },
)
model = _documented(
    "Get one model",
    "models",
    ("The model", _json(_MODEL)),
    errors={401: "No valid key", 403: "The origin or host is not allowed", 404: "No such model"},
)
gemini_models = _documented(
    "List the models in Gemini's shape",
    "gemini",
    ("The models of all providers that are on", _json({"type": "object"})),
    errors={401: "No valid key", 403: "The origin or host is not allowed", 502: "The only provider failed"},
)
gemini_model = _documented(
    "Get one model in Gemini's shape",
    "gemini",
    ("The model", _json({"type": "object"})),
    errors={401: "No valid key", 403: "The origin or host is not allowed", 404: "No such model"},
)
health = _documented("Is the worker alive", "health", ("It is", _json(_STATUS)), errors={})
readiness = _documented(
    "Does the worker take requests",
    "health",
    ("It does", _json(_STATUS)),
    errors={},
)


def alias(handler: Handler) -> Handler:
    """The same handler for a second path, which the document leaves out: it lists each route once."""

    @functools.wraps(handler)
    async def same(*args: Any, **kwargs: Any) -> Any:
        return await handler(*args, **kwargs)

    return cast("Handler", same)
