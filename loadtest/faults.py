"""What can be wrong with a provider's answer, as bytes: a fault is written as a model's name. No I/O.

    good                                a whole answer, or a stream if one was requested
    good;cut=120;by=rst                 the same, broken off behind byte 120 of all that goes over the wire
    status;code=503;retry-after=7;first=1   a 503 for the first request, good answers from then on
    bad-json                            a stream with a frame in its middle that is no JSON
    no-end;rate=0.1;only=stream|good;words=40   each tenth stream ends early, everything else is good

A name is a scenario (a key of `SCENARIOS`) and its settings (the fields of `Fault`, with `-` for `_`), with
semicolons between them. `|` separates alternatives: the first one that applies to a request is used, or the
plain good answer if none does. Faults come by count and not by chance, so that equal runs can be compared.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

CREATED = 1_700_000_000
DONE = b"data: [DONE]\n\n"
# Past what the proxy holds of one frame, and of one answer.
HUGE_FRAME_BYTES = 17 * 1024 * 1024
BOMB_BYTES = 80 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of answer. Offsets are bytes of all that goes over the wire, times are seconds."""

    scenario: str = "good"
    words: int = 4  # tokens of the answer
    code: int = 500  # the status of `status`, `html` and `foreign`
    retry_after: str = ""
    retry_after_ms: str = ""
    to: str = "http://127.0.0.1:1/elsewhere"  # where `redirect` leads
    wait: float = 0.0  # before the first byte
    step: int = 0  # bytes sent at a time; 0: as the scenario has them
    pause: float = 0.0  # between them
    cut: int = -1  # the connection ends behind this byte; -1: it does not
    by: str = "fin"  # how: a FIN, with the other direction left open, or a RST (`rst`)
    hush: int = -1  # behind this byte nothing comes any more, and the connection stays
    first: int = 0  # only so many requests by this name get it; 0: all
    only: str = ""  # of those only the streams (`stream`) or the others (`whole`)
    rate: float = 1.0  # of those only this share
    tag: str = ""  # distinguishes requests; changes nothing


GOOD = Fault()
ONLY = ("", "stream", "whole")
_TYPES: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
_FIELDS = {field.name: _TYPES[str(field.type)] for field in fields(Fault)}


def parse(name: str) -> Fault:
    """The fault that a model's name selects. Raises ValueError for an unknown name."""
    scenario, *settings = name.split(";")
    given: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        field = key.replace("-", "_")
        if not equals or field not in _FIELDS:
            raise ValueError(f"no such setting: {setting}")
        given[field] = _FIELDS[field](value)
    fault = Fault(scenario=scenario, **given)
    if fault.scenario not in SCENARIOS or fault.by not in {"fin", "rst"} or fault.only not in ONLY:
        raise ValueError(f"no such fault: {name}")
    return fault


@lru_cache(maxsize=1024)
def alternatives(name: str) -> tuple[Fault, ...]:
    """All faults of a name. Raises ValueError if one of them does not exist."""
    return tuple(map(parse, name.split("|")))


class Turns:
    """Selects the fault of each request by count: `rate=0.1` takes each tenth request that reaches it."""

    def __init__(self) -> None:
        self.requested: Counter[str] = Counter()
        self._shares: dict[tuple[str, int], float] = {}

    def select(self, name: str, *, is_streaming: bool) -> Fault:
        """The fault for the next request by this name. Raises ValueError if there is no such fault."""
        faults = alternatives(name)
        self.requested[name] += 1
        for position, fault in enumerate(faults):
            if fault.first and self.requested[name] > fault.first:
                continue
            if fault.only and fault.only != ("stream" if is_streaming else "whole"):
                continue
            before = self._shares.get((name, position), 0.0)
            self._shares[name, position] = before + fault.rate
            if int(before + fault.rate + 1e-9) > int(before + 1e-9):
                return fault
        return GOOD


@lru_cache(maxsize=64)
def pieces(fault: Fault, *, is_streaming: bool) -> tuple[bytes, ...]:
    """What goes over the wire, in the pieces it is sent in; past a cut or hush there is nothing."""
    made = SCENARIOS[fault.scenario](fault, is_streaming)
    ends = [offset for offset in (fault.cut, fault.hush) if offset >= 0]
    if not ends and not fault.step:
        return tuple(made)
    wire = b"".join(made)
    if ends:
        wire = wire[: min(ends)]
    step = fault.step or len(wire) or 1
    return tuple(wire[start : start + step] for start in range(0, len(wire), step))


# Answers that are good


def completion(words: int = GOOD.words) -> dict[str, Any]:
    """A chat completion as OpenAI's specification has it; Straico's price and words are additions."""
    message = {"role": "assistant", "content": _text(words), "refusal": None}
    return {
        "id": "chatcmpl-fault",
        "object": "chat.completion",
        "created": CREATED,
        "model": "fault",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": words + 1},
    }


def frame(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One frame of a chat stream."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-fault", "object": "chat.completion.chunk", "created": CREATED, "model": "fault"}
    return _event({**head, "choices": [choice], **more})


def stream(words: int = GOOD.words) -> list[bytes]:
    """The frames of a whole stream."""
    words_frames = [frame({"content": f"wörd{number} "}) for number in range(words)]
    return [frame({"role": "assistant", "content": ""}), *words_frames, frame(finish="stop"), DONE]


def _text(words: int) -> str:
    return "".join(f"wörd{number} " for number in range(words))


def _event(chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def error_body(kind: str = "server_error", code: str = "scripted") -> bytes:
    error = {"message": "Scripted failure", "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


# Answers over the wire


def head(*lines: str, status: int = 200, kind: str = "application/json") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Scripted", f"content-type: {kind}", *lines, "", ""]).encode()


def sized(body: bytes, *lines: str, status: int = 200, kind: str = "application/json") -> list[bytes]:
    return [head(f"content-length: {len(body)}", *lines, status=status, kind=kind) + body]


def chunked(parts: Iterable[bytes], *lines: str, kind: str = "text/event-stream") -> list[bytes]:
    opening = head("transfer-encoding: chunked", *lines, kind=kind)
    return [opening, *(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]


Scenario = Callable[[Fault, bool], list[bytes]]


def _whole(fault: Fault, *lines: str) -> list[bytes]:
    return sized(json.dumps(completion(fault.words)).encode(), *lines)


def _good(fault: Fault, is_streaming: bool) -> list[bytes]:
    return chunked(stream(fault.words)) if is_streaming else _whole(fault)


def _always(body: bytes, *lines: str, kind: str = "application/json") -> Scenario:
    return lambda _fault, _is_streaming: sized(body, *lines, kind=kind)


def _raw(wire: bytes) -> Scenario:
    return lambda _fault, _is_streaming: [wire]


# Frames


def _of_frames(change: Callable[[list[bytes]], list[bytes]]) -> Scenario:
    """A stream with something done to its frames, for any client."""
    return lambda fault, _is_streaming: chunked(change(stream(fault.words)))


def _inserted(*odd: bytes) -> Scenario:
    """A stream with `odd` behind its first token."""
    return _of_frames(lambda frames: [*frames[:2], *odd, *frames[2:]])


def _without_reason(word: bytes, one: bytes) -> bytes:
    return one.replace(b'"finish_reason":null', b'"finish_reason":' + word)


def _comments(_fault: Fault, _is_streaming: bool) -> list[bytes]:
    """As some gateways keep a connection alive: comment lines, and no token for as long as anyone stays."""
    return chunked([b": still thinking\n\n"] * 1000)


def _huge_frame() -> bytes:
    return b'data: {"choices":[],"x":"' + b"x" * HUGE_FRAME_BYTES + b'"}\n\n'


_TOOLS = (
    frame({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g"}}]}),
    frame({"tool_calls": [{"index": 1, "id": "b", "function": {"arguments": '{"a'}}]}),
    frame({"tool_calls": [{"id": "c", "function": {"name": "no_index", "arguments": ""}}]}),
    frame({"tool_calls": [{"index": 7, "function": {"name": "ga", "arguments": "not json"}}]}),
    frame({"tool_calls": [{"index": 7, "function": {"name": "p"}}]}),
)
_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

_OF_FRAMES: Mapping[str, Scenario] = {
    "no-done": _of_frames(lambda frames: frames[:-1]),
    "no-end": _of_frames(lambda frames: frames[:-2]),
    "half-frame": _of_frames(lambda frames: [*frames[:2], frames[2][:20]]),
    "after-done": _of_frames(lambda frames: [*frames, frame({"content": "late"})]),
    "crlf": _of_frames(lambda frames: [one.replace(b"\n", b"\r\n") for one in frames]),
    "cr": _of_frames(lambda frames: [one.replace(b"\n", b"\r") for one in frames]),
    "no-space": _of_frames(lambda frames: [one.replace(b"data: ", b"data:") for one in frames]),
    "bom": _of_frames(lambda frames: [b"\xef\xbb\xbf" + frames[0], *frames[1:]]),
    "ids": _of_frames(lambda frames: [b"id: 7\nretry: 9\nevent: delta\n" + one for one in frames]),
    "multi-line": _of_frames(lambda frames: [one.replace(b',"', b',\ndata: "') for one in frames]),
    "with-comments": _of_frames(lambda frames: [b": PROCESSING\n\n" + one for one in frames]),
    "huge-frame": _of_frames(lambda frames: [*frames[:2], _huge_frame(), *frames[2:]]),
    "bad-utf8": _inserted(b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n'),
    "bad-json": _inserted(b'data: {"choices":[{"delta":{"con\n\n'),
    "nan": _inserted(b'data: {"choices":[{"delta":{"content":NaN}}]}\n\n'),
    "no-object": _inserted(b"data: [1]\n\n"),
    "lone-surrogate": _inserted(b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n'),
    "large-number": _inserted(b'data: {"choices":[],"x":1234567890123456789012345678901234567890}\n\n'),
    "empty-object": _inserted(b"data: {}\n\n"),
    "no-choices": _inserted(b'data: {"id":"x","object":"chat.completion.chunk"}\n\n'),
    "empty-choices": _inserted(b'data: {"choices":[]}\n\n'),
    "null-delta": _inserted(b'data: {"choices":[{"index":0,"delta":null}]}\n\n'),
    "error-frame": _inserted(b"data: " + error_body() + b"\n\n"),
    "error-event": _inserted(b"event: error\ndata: " + error_body() + b"\n\n"),
    "odd-tools": _inserted(*_TOOLS),
    "usage-mid": _inserted(_event({"choices": [], "usage": _USAGE})),
    "usage-with-choices": _inserted(frame({"content": "x"}, usage=_USAGE)),
    "comments": _comments,
    # What is no finish reason, in every chunk, and then the end of the connection.
    "empty-reasons": _of_frames(lambda frames: [_without_reason(b'""', one) for one in frames[:-2]]),
    "null-reasons": _of_frames(lambda frames: [_without_reason(b'"null"', one) for one in frames[:-2]]),
    "finish-error": _of_frames(lambda frames: [*frames[:-2], frame(finish="error"), DONE]),
    "only-done": _of_frames(lambda frames: [DONE]),
    "error-object": _inserted(_event({"object": "error", "message": "Scripted failure", "code": 500})),
    "bare-error": _inserted(b'{"code":20012,"message":"Scripted failure"}\n\n'),
    "error-line": _inserted(b"error: " + error_body() + b"\n\n"),
    "data-comment": _inserted(b"data: : keepalive\n\n", b"data: ping\n\n", b"data: null\n\n"),
    "ping-event": _inserted(b"event: ping\ndata: {}\n\n"),
    "padded-done": _of_frames(lambda frames: [*frames[:-1], b"data:  [DONE] \n\n"]),
    "late-garbage": _of_frames(lambda frames: [*frames[:-1], b"data: {oops\n\n", DONE]),
}


# Whole answers


def _waits(fault: Fault) -> list[str]:
    given = [("retry-after", fault.retry_after), ("retry-after-ms", fault.retry_after_ms)]
    return [f"{name}: {value}" for name, value in given if value]


_HTML = b"<!doctype html><html><script>alert(1)</script><body><h1>nginx</h1>gsk-leaked-key</body></html>"


def _status(fault: Fault, _is_streaming: bool) -> list[bytes]:
    kind = "rate_limit_error" if fault.code == 429 else "server_error"
    return sized(error_body(kind), *_waits(fault), status=fault.code)


def _html(fault: Fault, _is_streaming: bool) -> list[bytes]:
    return sized(_HTML, *_waits(fault), status=fault.code, kind="text/html")


def _foreign(fault: Fault, _is_streaming: bool) -> list[bytes]:
    return sized(b'{"detail":[{"loc":["body"],"msg":"nope"}]}', *_waits(fault), status=fault.code)


def _labelled(fault: Fault, kind: str) -> list[bytes]:
    return sized(json.dumps(completion(fault.words)).encode(), kind=kind)


def _redirect(fault: Fault, _is_streaming: bool) -> list[bytes]:
    return sized(b"", f"location: {fault.to}", status=307)


_OF_WHOLE: Mapping[str, Scenario] = {
    "status": _status,
    "html": _html,
    "foreign": _foreign,
    "redirect": _redirect,
    "json": lambda fault, _: _whole(fault),
    "json-as-text": lambda fault, _: _labelled(fault, "text/plain; charset=utf-8"),
    "json-as-bytes": lambda fault, _: _labelled(fault, "application/octet-stream"),
    "json-as-events": lambda fault, _: _labelled(fault, "text/event-stream"),
    "error-as-events": _always(error_body(), kind="text/event-stream"),
    "ok-code": _always(b'{"code":20012,"message":"Scripted failure","data":null}'),
    "no-choices-whole": _always(b'{"id":"x","object":"chat.completion","choices":[]}'),
    "sse": lambda fault, _: chunked(stream(fault.words)),
    "ok-error": _always(error_body()),
    "captive": _always(_HTML, kind="text/html"),
    "empty": _always(b""),
    "half-json": _always(b'{"choices":[{"mess'),
    "no-completion": _always(b'{"hello":"world"}'),
}


# Unrequested compression

# Without the time of compression: the same bytes in every answer.
_gzipped = functools.partial(gzip.compress, mtime=0)


def _packed(pack: Callable[[bytes], bytes], encoding: str) -> Scenario:
    """The good answer, compressed as one piece."""

    def scenario(fault: Fault, is_streaming: bool) -> list[bytes]:
        plain = (
            b"".join(stream(fault.words)) if is_streaming else json.dumps(completion(fault.words)).encode()
        )
        kind = "text/event-stream" if is_streaming else "application/json"
        return sized(pack(plain), f"content-encoding: {encoding}", kind=kind)

    return scenario


def _bomb_body() -> bytes:
    """`BOMB_BYTES` in members of 1 MiB each, of which one is compressed: that takes no time."""
    block = b" " * (1024 * 1024)
    return _gzipped(block) * (BOMB_BYTES // len(block))


def _bomb(_fault: Fault, is_streaming: bool) -> list[bytes]:
    kind = "text/event-stream" if is_streaming else "application/json"
    return sized(_bomb_body(), "content-encoding: gzip", kind=kind)


_PACKED: Mapping[str, Scenario] = {
    "gzip": _packed(_gzipped, "gzip"),
    "deflate": _packed(zlib.compress, "deflate"),
    "raw-deflate": _packed(lambda plain: zlib.compress(plain, wbits=-zlib.MAX_WBITS), "deflate"),
    "gzip-cut": _packed(lambda plain: _gzipped(plain)[:-12], "gzip"),
    "gzip-lie": _packed(lambda plain: plain, "gzip"),
    "br": _packed(lambda plain: plain, "br"),
    "bomb": _bomb,
}


# Invalid or unusual HTTP


def _behind(wire: bytes) -> Scenario:
    """The good answer behind something else."""
    return lambda fault, is_streaming: [wire, *_good(fault, is_streaming)]


def _until_close(fault: Fault, is_streaming: bool) -> list[bytes]:
    """An answer that ends with its connection: only its content shows whether it is whole."""
    if is_streaming:
        return [head("connection: close", kind="text/event-stream"), *stream(fault.words)]
    return [head("connection: close"), json.dumps(completion(fault.words)).encode()]


_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_BODY = json.dumps(completion()).encode()
_LENGTH = b"content-length: %d\r\n" % len(_BODY)

_OF_HTTP: Mapping[str, Scenario] = {
    "long-header": _raw(_OK + _LENGTH + b"x: " + b"y" * 100_000 + b"\r\n\r\n" + _BODY),
    "many-headers": _raw(_OK + _LENGTH + b"".join(b"x-%d: y\r\n" % n for n in range(9000)) + b"\r\n" + _BODY),
    "obs-fold": _raw(_OK + _LENGTH + b"x: a\r\n b\r\n\r\n" + _BODY),
    "cl-and-te": _raw(_OK + _LENGTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two-lengths": _raw(_OK + _LENGTH + b"content-length: 1\r\n\r\n" + _BODY),
    "bad-length": _raw(_OK + b"content-length: ten\r\n\r\n" + _BODY),
    "bad-chunk": _raw(_OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + _BODY),
    "bad-status": _raw(b"HTTP/1.1 abc OK\r\n\r\n"),
    "no-http": _raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "http2": _raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18),
    "switching": _raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx"),
    "interim": _behind(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"),
    "until-close": _until_close,
}

# What the server does apart from bytes: see `faulty_upstream`.
_OF_CONNECTIONS: Mapping[str, Scenario] = {
    "good": _good,
    "early": lambda fault, _: sized(
        error_body("invalid_request_error"), "connection: close", status=fault.code
    ),
    "stale": _good,
}

SCENARIOS: Mapping[str, Scenario] = {**_OF_CONNECTIONS, **_OF_FRAMES, **_OF_WHOLE, **_PACKED, **_OF_HTTP}
