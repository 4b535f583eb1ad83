"""A second dialect, as small as one can be: other requests, answers, events, errors and pings than a chat's.

It is served at /v1/tiny by the proxy's app. `{"to": MODEL, "say": TEXT, "live": BOOLEAN}` is answered with
`{"said": TEXT}`, or with the events `opening`, `word`, `end`, `beat` and `failed`.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from sanic_proxy.app import app
from sanic_proxy.dialects.base import Dialect, ParsedRequest, register
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.openai.codec import Span
from sanic_proxy.routes import chat
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Heartbeat

PATH = "/v1/tiny"


def event(name: str, value: object = None) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + codec.dumps(value) + b"\n\n"


class TinyFilter(StreamFilter):
    @override
    def feed(self, data: bytes) -> bytes:
        return b"".join(
            self._event(frame.payload)
            for frame in sse.FrameSplitter().feed(data)
            if frame.payload != b"[DONE]"
        )

    @override
    def end(self) -> bytes:
        return event("end")

    def _event(self, payload: bytes) -> bytes:
        delta = codec.loads_exact(payload)["choices"][0]["delta"]
        if delta.get("role"):
            return event("opening")
        return event("word", delta["content"]) if delta.get("content") else b""


class TinyDialect(Dialect):
    name = "tiny"
    ping = event("beat")

    @override
    def parse(self, body: bytes, fields: dict[str, Any], model_span: Span | None) -> ParsedRequest:
        if not isinstance(fields.get("say"), str):
            raise InvalidRequest("Say something", param="say")
        model, is_live = fields["to"], fields.get("live") is True
        messages = [{"role": "user", "content": fields["say"]}]
        made = {"model": model, "messages": messages, "stream": is_live}
        return ParsedRequest(codec.dumps(made), made, model, is_live)

    @override
    def whole(self, body: bytes) -> bytes:
        return codec.dumps({"said": codec.loads_exact(body)["choices"][0]["message"]["content"]})

    @override
    def stream_filter(self) -> StreamFilter | None:
        return TinyFilter()

    @override
    def error_body(self, error: ProxyError) -> bytes:
        return codec.dumps({"failed": error.code or error.type})

    @override
    def error_event(self, error: ProxyError) -> bytes:
        return event("failed", error.code or error.type)

    @override
    def heartbeat(self, provider: Heartbeat) -> Heartbeat:
        return Heartbeat(self.ping, TinyFilter().feed(provider.opening) if provider.opening else b"")


TINY = register(TinyDialect(), PATH)


@app.post(PATH)
async def tiny(request: ProxyRequest) -> Reply | None:
    return await chat.answer(request, TINY)
