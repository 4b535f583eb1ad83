"""Captured by one proxy, replayed by another: what clients get is the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.config.capture import Fault
from sanic_proxy.providers.replay.provider import TimedFrames, first_half, raise_status, split_events
from tests.support import messages
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.replay import replaying
from tests.support.upstream import Exchange, Upstream, completion, text_stream

KEY = "key-of-the-vendor-0123456789"
CLIENT_KEY = "key-of-a-client-0123456789"
OTHER_KEY = "key-of-another-0123456789"
TOML = """
[providers.vendor]
base_url = "URL/v1"
api_key_env = "VENDOR_API_KEY"
dialects = ["chat", "messages", "responses"]

[models.caught]
targets = ["vendor/m"]
capture = true

[clients.app]
key_env = "APP_KEY"
capture = true

[clients.other]
key_env = "OTHER_KEY"
"""
PAUSE_S = 0.05
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
CHAT = text_stream("one ", "two ", "three")
MESSAGES = [messages.start(), *messages.text_block(0, "Hel", "lo"), *messages.stop()]
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [],
    "usage": None,
}
RESPONSES = [
    b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())
    for kind, fields in (
        ("response.created", {"sequence_number": 0, "response": {**RESPONSE, "status": "in_progress"}}),
        ("response.output_text.delta", {"sequence_number": 1, "item_id": "i", "delta": "Hi"}),
        ("response.completed", {"sequence_number": 2, "response": RESPONSE}),
    )
]
STREAMS = {"messages": MESSAGES, "responses": RESPONSES, "completions": CHAT}


async def vendor(exchange: Exchange) -> None:
    """Answers in the dialect that is asked for, slowly if streamed."""
    if not exchange.seen.json.get("stream"):
        await exchange.answer(completion(f"A key: sk-abcdefgh12345678, {OTHER_KEY}"))
        return
    pieces = STREAMS[exchange.seen.path.rpartition("/")[2].partition("?")[0]]
    await exchange.stream(pieces, PAUSE_S)


async def cut(exchange: Exchange) -> None:
    await exchange.begin_stream()
    for piece in CHAT[:3]:
        await exchange.chunk(piece)
    exchange.close()


@dataclass
class Captured:
    """The file, and what the client got, by the path of the request."""

    path: Path
    replies: dict[str, bytes]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def turns(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ASKED: Mapping[str, dict[str, Any]] = {
    CHAT_PATH: {"messages": turns("Hi")},
    MESSAGES_PATH: {"messages": turns("Hi"), "max_tokens": 9},
    RESPONSES_PATH: {"input": "Hi", "store": False},
}


def ask(proxy: Proxy, path: str, model: str, headers: Mapping[str, str], **fields: Any) -> Reply:
    return proxy.request("POST", path, {"model": model, **ASKED[path], **fields}, headers)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Captured by a proxy in front of a scripted vendor."""
    directory = Path(tmp_path_factory.mktemp("captured"))
    upstream = Upstream()
    upstream.start()
    upstream.on("m", vendor)
    upstream.on("broken", cut)
    (directory / "proxy.toml").write_text(TOML.replace("URL", upstream.url))
    path = directory / "captures.jsonl"
    settings = {
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_CAPTURE_FILE": str(path),
        "SANIC_PROXY_LOG_FORMAT": "json",
        "SANIC_PROXY_BREAKER": "off",
        "SANIC_PROXY_ATTEMPTS": "1",
        "VENDOR_API_KEY": KEY,
        "APP_KEY": CLIENT_KEY,
        "OTHER_KEY": OTHER_KEY,
    }
    with running_proxy(settings) as proxy:
        own, other = bearer(CLIENT_KEY), bearer(OTHER_KEY)
        replies = {kind: ask(proxy, kind, "vendor/m", own, stream=True).body for kind in ASKED}
        ask(proxy, CHAT_PATH, "caught", other, messages=[{"role": "user", "content": image()}])
        refused = ask(proxy, CHAT_PATH, "caught", {**other, "x-no-log": "1"}, messages=turns("private"))
        assert refused.status == 200
        ask(proxy, CHAT_PATH, "vendor/m", other, messages=turns("of another client"))
        ask(proxy, CHAT_PATH, "vendor/broken", own, stream=True)
        proxy.wait_for_log('"message":"request"', times=7)
        lines = [json.loads(line) for line in proxy.log.splitlines() if '"message":"request"' in line]
    upstream.stop()
    assert {line["id"] for line in lines} >= {refused.headers["x-request-id"]}  # the record is not suppressed
    return Captured(path, replies)


def image() -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{IMAGE}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": f"{KEY} {CLIENT_KEY}"}]


def test_only_what_is_to_be_captured_is(captured: Captured) -> None:
    lines = captured.lines
    assert [(line["dialect"], line["model"], line["stream"]) for line in lines] == [
        ("chat", "vendor/m", True),
        ("messages", "vendor/m", True),
        ("responses", "vendor/m", True),
        ("chat", "caught", False),
        ("chat", "vendor/broken", True),
    ]
    assert captured.path.stat().st_mode & 0o777 == 0o600
    text = captured.path.read_text()
    for private in (KEY, CLIENT_KEY, OTHER_KEY, IMAGE, "sk-abcdefgh", "private", "of another client"):
        assert private not in text
    assert lines[3]["request"]["messages"][0]["content"][0]["image_url"]["url"].endswith(" bytes]")
    assert (lines[3]["client"], lines[3]["target"], lines[3]["status"]) == ("other", "vendor/m", 200)
    assert lines[3]["usage"]["prompt_tokens"] == 9


def test_a_stream_is_captured_with_its_times(captured: Captured) -> None:
    for line, path in zip(captured.lines, ASKED, strict=False):
        times = [at_ms for at_ms, _ in line["frames"]]
        assert times == sorted(times)
        assert times[-1] > times[0]
        assert "".join(text for _, text in line["frames"]).encode() == captured.replies[path]


def test_replay_serves_the_same_bytes_at_the_same_times(captured: Captured, tmp_path: Path) -> None:
    with replaying(captured.path, tmp_path) as proxy:
        for line, path in zip(captured.lines, ASKED, strict=False):
            began = time.monotonic()
            reply = ask(proxy, path, "replay/vendor/m", {}, stream=True)
            assert reply.body == captured.replies[path]
            assert time.monotonic() - began >= line["frames"][-1][0] / 1000
        whole = ask(proxy, CHAT_PATH, "replay/caught", {})
        assert whole.json["choices"][0]["message"]["content"] == "A key: [redacted], [redacted]"
        missing = ask(proxy, CHAT_PATH, "replay/caught", {}, stream=True)
        assert missing.status == 404
        assert "caught (chat, whole)" in missing.error["message"]
        broken = ask(proxy, CHAT_PATH, "replay/vendor/broken", {}, stream=True)
        assert b"".join(CHAT[:3]) in broken.body
        assert b"upstream_disconnected" in broken.body
        listed = {model["id"] for model in proxy.request("GET", "/v1/models").json["data"]}
        assert listed == {"replay/vendor/m", "replay/vendor/broken", "replay/caught"}


def test_a_fault_on_top(captured: Captured, tmp_path: Path) -> None:
    with replaying(captured.path, tmp_path, "--fault", "stall", "--speed", "0") as proxy:
        for path in ASKED:
            body = ask(proxy, path, "replay/vendor/m", {}, stream=True).body
            events = captured.replies[path].split(b"\n\n")
            assert body.startswith(events[0] + b"\n\n")
            assert events[-2] not in body
            assert b"no progress" in body


def test_faults_with_a_status() -> None:
    raise_status(None)
    raise_status(Fault("cut"))
    with pytest.raises(errors.RateLimited):
        raise_status(Fault("429"))
    with pytest.raises(errors.UpstreamError) as failed:
        raise_status(Fault("500"))
    assert failed.value.status == 500


def test_events_are_split_and_halved() -> None:
    frames = [(0.1, b"data: 1\n\ndata: 2\n\n"), (0.2, b"data: 3\n\n")]
    events = split_events(frames)
    assert events == [(0.1, b"data: 1\n\n"), (0.1, b"data: 2\n\n"), (0.2, b"data: 3\n\n")]
    assert first_half(events) == events[:1]
    assert first_half(events[:1]) == []


def test_a_reader_that_does_not_wait_gets_nothing_yet() -> None:
    async def read() -> list[bytes | None]:
        source = TimedFrames([(0.0, b"a"), (0.05, b"b")], None)
        first, early = await source.read_some(), await source.read_some(0.0)
        return [first, early, await source.read_some(), await source.read_some()]

    assert asyncio.run(read()) == [b"a", None, b"b", b""]
