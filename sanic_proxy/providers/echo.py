"""The embedded provider: answers with what it was asked, so that clients can be tried without a key.

    echo/echo        the last user message, word by word
    echo/slow        the same, with a pause before and between the words
    echo/error-429   a rate limit, with Retry-After
    echo/error-500   a failing provider
    echo/cut         breaks off in the middle of its answer

It calls the first tool when `tool_choice` is `required` or names one, and answers JSON when
`response_format` asks for it. Equal requests get equal answers, but for id and time.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.providers.base import (
    Answer,
    ChatProvider,
    ChatRequest,
    ProviderKind,
    WholeAnswer,
    protocol,
)
from sanic_proxy.streams import replay
from sanic_proxy.streams.stream import Frames, Stream

SLOW_START_S = 1.0
SLOW_STEP_S = 0.25

_WORD = re.compile(r"\S+\s*|\s+")


@protocol("echo")
class EchoProvider(ChatProvider):
    """See the module."""

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "embedded"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        behaviour = _BEHAVIOURS.get(request.upstream_model)
        if behaviour is None:
            raise _unknown_model(request.upstream_model)
        await behaviour()
        return Answer(self, request, Frames([codec.dumps(completion(request))]))

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        body = await answer.source.read_all()
        if answer.request.upstream_model == "cut":
            raise errors.UpstreamDisconnected("The echo broke off in the middle of its answer, as asked")
        answer.request.record.usage = codec.loads_exact(body)["usage"]
        return WholeAnswer(body, [("content-type", "application/json")])

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        made = codec.loads_exact(await (await self.send_request(request)).source.read_all())
        request.record.usage = made["usage"]
        pause_s = SLOW_STEP_S if request.upstream_model == "slow" else 0.0
        return Stream.of_frames(_frames(request, made), request.record, pause_s=pause_s)

    @override
    async def list_models(self) -> list[Json]:
        return [{"id": name} for name in _BEHAVIOURS]


def _frames(request: ChatRequest, made: Json) -> Iterator[bytes]:
    """The completion `made`, word by word."""
    head = chunks.ChunkHead(
        id=made["id"],
        model=made["model"],
        created=made["created"],
        include_usage=request.include_usage,
        initial_content=replay.initial_content(made["choices"][0]["message"]),
    )
    yield replay.initial_frame(head)
    message = made["choices"][0]["message"]
    words = _WORD.findall(message["content"] or "")
    for index, word in enumerate(words):
        if request.upstream_model == "cut" and index >= len(words) // 2:
            raise errors.UpstreamDisconnected("The echo broke off in the middle of its answer, as asked")
        yield replay.frame(chunks.chunk(head, {"content": word}))
    message["content"] = None  # it has been sent word by word
    yield b"".join(replay.answer_frames(head, made))


async def _at_once() -> None:
    return


async def _after_a_pause() -> None:
    await asyncio.sleep(SLOW_START_S)


async def _rate_limited() -> None:
    raise errors.RateLimited("The echo's rate limit is reached, as asked", retry_after_s=1)


async def _failing() -> None:
    raise errors.UpstreamError("The echo fails, as asked", code="echo_error", status=500)


_BEHAVIOURS: dict[str, Callable[[], Awaitable[None]]] = {
    "echo": _at_once,
    "slow": _after_a_pause,
    "error-429": _rate_limited,
    "error-500": _failing,
    "cut": _at_once,
}


def _unknown_model(name: str) -> errors.ModelNotFound:
    """Often the first error that somebody without a provider sees: it says how to go on."""
    known = ", ".join(f"echo/{name}" for name in _BEHAVIOURS)
    return errors.ModelNotFound(
        f"The embedded provider echo has no model {name[:80]!r}: use one of {known}. To reach other models, "
        "the proxy's operator sets the key of a provider, such as OPENAI_API_KEY or GROQ_API_KEY",
        param="model",
    )


def completion(request: ChatRequest) -> Json:
    """The answer: the last user message, a tool call or JSON, as the request asks."""
    text = last_user_text(request.fields.get("messages"))
    call = _tool_call(request.fields, text)
    content = None if call else _content(request.fields.get("response_format"), text)
    prompt_tokens = sum(_count(_text_of(turn)) for turn in _turns(request.fields.get("messages")))
    completion_tokens = _count(content or (call or {}).get("function", {}).get("arguments", ""))
    message: Json = {"role": "assistant", "content": content, "refusal": None}
    if call:
        message["tool_calls"] = [call]
    return {
        "id": chunks.new_completion_id(),
        "object": "chat.completion",
        "created": chunks.now(),
        "model": request.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if call else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def last_user_text(messages: object) -> str:
    """The text of the last user message; its parts joined where it has several."""
    asked = (turn for turn in reversed(_turns(messages)) if turn.get("role") == "user")
    return _text_of(next(asked, {}))


def _turns(messages: object) -> list[Json]:
    return [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []


def _text_of(turn: JsonMapping) -> str:
    content = turn.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _content(response_format: object, text: str) -> str:
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "json_object":
        return codec.dumps({"echo": text}).decode()
    if kind == "json_schema" and isinstance(response_format, dict):
        wanted = response_format.get("json_schema")
        schema = wanted.get("schema") if isinstance(wanted, dict) else None
        return codec.dumps(example_of(schema, text)).decode()
    return text


def _tool_call(fields: JsonMapping, text: str) -> Json | None:
    functions = _functions(fields.get("tools"))
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        named = choice.get("function")
        wanted = named.get("name") if isinstance(named, dict) else None
        functions = [function for function in functions if function["name"] == wanted]
        if not functions:
            raise errors.InvalidRequest(
                "tool_choice names a function that is not in tools", param="tool_choice"
            )
    elif choice != "required":
        return None
    if not functions:
        raise errors.InvalidRequest("tool_choice needs tools", param="tool_choice")
    function = functions[0]
    arguments = codec.dumps(example_of(function.get("parameters"), text)).decode()
    return {
        "id": chunks.new_call_id(),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _functions(tools: object) -> list[Json]:
    entries = tools if isinstance(tools, list) else []
    functions = [entry.get("function") for entry in entries if isinstance(entry, dict)]
    return [f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str)]


def example_of(schema: object, text: str, depth: int = 0) -> Any:
    """A value that fits a JSON Schema's types, with `text` where a string may stand."""
    if not isinstance(schema, dict) or depth > 20:
        return {} if depth == 0 else text
    if isinstance(options := schema.get("enum"), list) and options:
        return options[0]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(branches := schema.get(key), list) and branches:
            return example_of(branches[0], text, depth + 1)
    kind = schema.get("type", "object" if depth == 0 or "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    return _EXAMPLES.get(str(kind), _example_string)(schema, text, depth)


def _example_object(schema: JsonMapping, text: str, depth: int) -> Any:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {
        name: example_of(inner, text, depth + 1) for name, inner in itertools.islice(properties.items(), 100)
    }


def _example_array(schema: JsonMapping, text: str, depth: int) -> Any:
    return [example_of(schema.get("items"), text, depth + 1)]


def _example_string(_schema: JsonMapping, text: str, _depth: int) -> Any:
    return text


def _example_number(schema: JsonMapping, _text: str, _depth: int) -> Any:
    minimum = schema.get("minimum")
    return minimum if isinstance(minimum, int) else 1


_EXAMPLES: dict[str, Callable[[JsonMapping, str, int], Any]] = {
    "object": _example_object,
    "array": _example_array,
    "string": _example_string,
    "integer": _example_number,
    "number": _example_number,
    "boolean": lambda _schema, _text, _depth: True,
    "null": lambda _schema, _text, _depth: None,
}


def _count(text: str) -> int:
    """Words, as a stand-in for tokens."""
    return len(text.split())
