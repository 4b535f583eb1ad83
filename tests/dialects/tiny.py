"""A further dialect, as small as one can be: other requests, answers, events, errors and pings than a chat's.

It is served at /v1/tiny by the proxy's app, for every provider. `{"to": MODEL, "text": TEXT, "live":
BOOLEAN}` is answered with `{"reply": TEXT}`, or with the events `opening`, `word`, `end`, `ping`, `failed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from sanic_proxy.app import app
from sanic_proxy.dialects.base import Dialect, ParsedRequest, register
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.routes import chat
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.translation.conversation import Answer, Begin, Conversation, Event, Text, TextDelta, Turn
from sanic_proxy.translation.format import Format, StreamReader, StreamWriter, TargetTraits, WrittenRequest

PATH = "/v1/tiny"


def frame(name: str, value: object = None) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + codec.dumps(value) + b"\n\n"


class TinyWriter(StreamWriter):
    @override
    def write(self, event: Event) -> bytes:
        if isinstance(event, Begin):
            return frame("opening")
        return frame("word", event.text) if isinstance(event, TextDelta) else b""

    @override
    def end(self) -> bytes:
        return frame("end")


class TinyFormat(Format):
    """What clients need of it; no provider speaks it, so the other half is missing."""

    name = "tiny"

    @override
    def read_request(self, fields: Mapping[str, Any]) -> Conversation:
        return Conversation(fields["to"], [Turn("user", [Text(fields["text"])])], fields.get("stream", False))

    @override
    def write_answer(self, answer: Answer, asked: Conversation) -> dict[str, Any]:
        return {"reply": "".join(part.text for part in answer.parts if isinstance(part, Text))}

    @override
    def writer(self, asked: Conversation) -> StreamWriter:
        return TinyWriter()

    @override
    def write_request(self, conversation: Conversation, target: TargetTraits) -> WrittenRequest:
        raise NotImplementedError

    @override
    def read_answer(self, fields: Mapping[str, Any]) -> Answer:
        raise NotImplementedError

    @override
    def reader(self, target: TargetTraits) -> StreamReader:
        raise NotImplementedError


class TinyDialect(Dialect):
    name = "tiny"
    path = "/tiny"
    format = TinyFormat()
    ping = frame("ping")

    @override
    def parse(self, body: bytes, fields: dict[str, Any], model_span: Span | None) -> ParsedRequest:
        if not isinstance(fields.get("text"), str):
            raise InvalidRequest("`text` must be a string", param="text")
        return ParsedRequest(body, fields, fields["to"], fields.get("live") is True)

    @override
    def error_body(self, error: ProxyError) -> bytes:
        return codec.dumps({"failed": error.code or error.type})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        return frame("failed", error.code or error.type)

    @override
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        raise NotImplementedError

    @override
    def usage_in(self, body: bytes) -> Mapping[str, Any] | None:
        raise NotImplementedError


TINY = register(TinyDialect(), PATH)


@app.post(PATH)
async def tiny(request: ProxyRequest) -> Reply | None:
    return await chat.answer(request, TINY)
