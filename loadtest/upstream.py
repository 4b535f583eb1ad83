"""A scripted OpenAI-compatible upstream that costs as little as it can: prepared bytes on a bare protocol.

    python -m loadtest.upstream --frames 40 --pace 10 --delay 50 --cut-share 0.1

It answers `POST .../chat/completions`, whole or as a stream, and `GET .../models`, and prints the address it
listens on. Faults come by count and not by chance: with `--cut-share 0.1` every tenth stream breaks off, so
that a short run shows them too and equal runs can be compared. When it is stopped it prints what it did.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

MODEL = "scripted"
CREATED = 1_700_000_000

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Script:
    """How to answer. Shares are between 0 and 1.

    `refuse_share` is of the chat requests, `cut_share` of the streams among the others, `error_share` of the
    streams that are left then.
    """

    frames: int = 40
    pace_s: float = 0.01
    delay_s: float = 0.05
    cut_share: float = 0.0
    error_share: float = 0.0
    refuse_share: float = 0.0


@dataclass
class Counts:
    """What has been answered so far."""

    models: int = 0
    whole: int = 0
    streams: int = 0
    cut: int = 0
    error_frames: int = 0
    refused: int = 0
    left: int = 0  # streams whose client went away before the end

    @override
    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items())


class Share:
    """Says yes to an even share of the questions asked: with 0.1, to each tenth."""

    __slots__ = ("_asked", "_share")

    def __init__(self, share: float) -> None:
        self._share = share
        self._asked = 0

    def take(self) -> bool:
        before = int(self._asked * self._share)
        self._asked += 1
        return int(self._asked * self._share) > before


def response(body: Mapping[str, Any], status: str = "200 OK") -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frame(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"
ROLE_FRAME = _frame({"role": "assistant", "content": ""})
LAST_FRAMES = _frame({}, "stop") + _chunk(b"data: [DONE]\n\n") + STREAM_END
ERROR_FRAME = _chunk(
    b'data: {"error":{"message":"Scripted","type":"server_error","param":null,"code":"scripted"}}\n\n'
)
MODELS = response(
    {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": CREATED, "owned_by": MODEL}],
    }
)
REFUSAL = response(
    {"error": {"message": "Scripted", "type": "server_error", "param": None, "code": "scripted"}},
    "503 Service Unavailable",
)
NOT_FOUND = response(
    {"error": {"message": "No such path", "type": "invalid_request_error", "param": None, "code": None}},
    "404 Not Found",
)


def _completion(tokens: int) -> bytes:
    return response(
        {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": CREATED,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "word " * tokens},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
        }
    )


@dataclass
class Plays:
    """The prepared answers of one script, and whose turn it is for a fault. Shared by all connections."""

    script: Script
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        tokens = [_frame({"content": f"word{number} "}) for number in range(self.script.frames)]
        half = tokens[: len(tokens) // 2]
        opening = STREAM_HEAD + ROLE_FRAME
        self.whole = _completion(self.script.frames)
        self._good = (opening, *tokens, LAST_FRAMES)
        # The connection ends cleanly, the answer does not: the kind of cut that is easily taken for an end.
        self._cut = (opening, *half, STREAM_END)
        self._error = (opening, *half, ERROR_FRAME + STREAM_END)
        self._cuts = Share(self.script.cut_share)
        self._errors = Share(self.script.error_share)
        self._refusals = Share(self.script.refuse_share)

    def refuses(self) -> bool:
        is_refused = self._refusals.take()
        self.counts.refused += is_refused
        return is_refused

    def stream(self) -> tuple[bytes, ...]:
        """The pieces of the next stream."""
        self.counts.streams += 1
        if self._cuts.take():
            self.counts.cut += 1
            return self._cut
        if self._errors.take():
            self.counts.error_frames += 1
            return self._error
        return self._good


class UpstreamProtocol(asyncio.Protocol):
    """One connection: one request at a time, answered from prepared bytes.

    It does not wait for a slow reader: what it may hold of an answer is bounded by the script.
    """

    def __init__(self, plays: Plays) -> None:
        self._plays = plays
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._is_streaming = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._plays.counts.left += self._is_streaming

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._timer is None:
            self._answer_next()

    def _answer_next(self) -> None:
        request = self._take_request()
        if request is None:
            return
        head, body = request
        method, path, _ = head.split(b" ", 2)
        if method == b"GET" and path.endswith(b"/models"):
            self._plays.counts.models += 1
            self._transport.write(MODELS)
        elif method == b"POST" and path.endswith(b"/chat/completions"):
            self._chat(body)
        else:
            self._transport.write(NOT_FOUND)

    def _take_request(self) -> tuple[bytes, bytes] | None:
        end = self._received.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(self._received[:end])
        match = _LENGTH.search(head)
        total = end + len(_HEAD_END) + (int(match[1]) if match else 0)
        if len(self._received) < total:
            return None
        body = bytes(self._received[end + len(_HEAD_END) : total])
        del self._received[:total]
        return head, body

    def _chat(self, body: bytes) -> None:
        if self._plays.refuses():
            self._play((REFUSAL,))
        elif json.loads(body).get("stream"):
            self._is_streaming = True
            self._play(self._plays.stream())
        else:
            self._plays.counts.whole += 1
            self._play((self._plays.whole,))

    def _play(self, pieces: tuple[bytes, ...]) -> None:
        """Send `pieces` after the script's delay, at the script's pace.

        Each has its own due time, so that a late one does not delay all that follow.
        """
        script = self._plays.script
        paced = pieces if script.pace_s else (b"".join(pieces),)
        loop = asyncio.get_running_loop()
        start_s = loop.time() + script.delay_s

        def send(index: int) -> None:
            self._transport.write(paced[index])
            if index + 1 < len(paced):
                self._timer = loop.call_at(start_s + (index + 1) * script.pace_s, send, index + 1)
            else:
                self._timer = None
                self._is_streaming = False
                self._answer_next()

        self._timer = loop.call_at(start_s, send, 0)


async def serve(script: Script, port: int) -> None:
    """Listen on loopback until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    plays = Plays(script)
    server = await loop.create_server(lambda: UpstreamProtocol(plays), "127.0.0.1", port, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopping.wait()
    server.close()
    print(plays.counts, flush=True)


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share is between 0 and 1")
    return share


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible upstream.")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--frames", type=int, default=40, help="tokens of an answer")
    parser.add_argument("--pace", type=float, default=10.0, help="milliseconds between frames; 0: none")
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds before an answer begins")
    parser.add_argument("--cut-share", type=_share, default=0.0, help="streams that break off")
    parser.add_argument("--error-share", type=_share, default=0.0, help="streams that end in an error frame")
    parser.add_argument("--refuse-share", type=_share, default=0.0, help="chat requests that get a 503")
    return parser.parse_args(arguments)


def main() -> None:
    given = options()
    script = Script(
        frames=given.frames,
        pace_s=given.pace / 1000,
        delay_s=given.delay / 1000,
        cut_share=given.cut_share,
        error_share=given.error_share,
        refuse_share=given.refuse_share,
    )
    asyncio.run(serve(script, given.port))


if __name__ == "__main__":
    main()
