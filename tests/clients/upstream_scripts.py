"""What the upstream does in each feature. One script per kind of provider.

The pass-through upstream ("native") streams on request; Straico ("emulated") answers whole.
A slow answer is silent for longer than the proxy's commit delay and several of its heartbeats.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.clients import features
from tests.clients.features import CALL_IDS, CITIES, FINAL, RESULT, RETRY_AFTER_S, TOOL, USAGE, WORDS, Noticed
from tests.support.upstream import (
    DONE,
    Exchange,
    Script,
    Seen,
    Upstream,
    completion,
    frame,
    straico_completion,
)

COMMIT_DELAY_S = 0.5
HEARTBEAT_S = 0.3
SILENCE_S = 1.4

Begin = Callable[[Exchange], Awaitable[None]]


def upstream_model(feature: str, provider: str) -> str:
    """The model name that the upstream receives; behind Straico's prefix it has a vendor of its own."""
    return f"openai/{feature}" if provider == "straico" else feature


def prepare(upstream: Upstream, feature: str, provider: str, requested_file: Path | None = None) -> Noticed:
    """Script `upstream` for one feature, and nothing else. What it then sees is in the answer.

    `requested_file` exists once the upstream has received the request, for drivers that wait for it.
    """
    noticed = Noticed()
    script = (_EMULATED if provider == "straico" else _NATIVE)[feature](noticed)

    def notice(seen: Seen) -> None:
        noticed.seen.append(seen)
        noticed.arrived_at.append(time.time())
        if requested_file is not None:
            requested_file.touch()

    async def noticing(exchange: Exchange) -> None:
        notice(exchange.seen)
        await script(exchange)

    if requested_file is not None:
        requested_file.unlink(missing_ok=True)
    upstream.requests.clear()
    upstream.problems.clear()
    upstream.forget_scripts()
    upstream.on(upstream_model(feature, provider), noticing)
    upstream.on("GET /openai/v1/models", _list_of("small"))
    upstream.on("GET /v2/models", _list_of("openai/big"))
    return noticed


def _list_of(model: str) -> Script:
    async def script(exchange: Exchange) -> None:
        entry = {"id": model, "object": "model", "created": 1761655357, "owned_by": "upstream"}
        await exchange.answer({"object": "list", "data": [entry]})

    return script


async def _refused(exchange: Exchange, status: int, *headers: tuple[str, str]) -> None:
    error = {"message": "not now", "type": "server_error", "param": None, "code": None}
    await exchange.answer({"error": error}, status, *headers)


# The pass-through upstream


def _usage_frames(exchange: Exchange) -> list[bytes]:
    wanted = (exchange.seen.json.get("stream_options") or {}).get("include_usage")
    return [frame(choices=[], usage=USAGE)] if wanted else []


async def _native(exchange: Exchange, words: Sequence[str], *, pause_s: float = 0.0) -> None:
    """`words` as the answer, with `pause_s` before it and between the first two words of a stream."""
    await asyncio.sleep(pause_s)
    if not exchange.seen.json.get("stream"):
        await exchange.answer(completion("".join(words), usage=USAGE))
        return
    await exchange.begin_stream()
    await exchange.chunk(frame({"role": "assistant", "content": ""}) + frame({"content": words[0]}))
    await asyncio.sleep(pause_s)
    for word in words[1:]:
        await exchange.chunk(frame({"content": word}))
    await exchange.chunk(b"".join([frame(finish="stop"), *_usage_frames(exchange), DONE]))
    await exchange.end_stream()


def _native_text(words: Sequence[str] = WORDS, *, pause_s: float = 0.0) -> Callable[[Noticed], Script]:
    def script_for(_noticed: Noticed) -> Script:
        async def script(exchange: Exchange) -> None:
            await _native(exchange, words, pause_s=pause_s)

        return script

    return script_for


def _native_tools(cities: Sequence[str], *, is_interleaved: bool = False) -> Callable[[Noticed], Script]:
    def script_for(_noticed: Noticed) -> Script:
        async def script(exchange: Exchange) -> None:
            if RESULT in exchange.seen.body.decode():
                await _native(exchange, [FINAL])
            elif exchange.seen.json.get("stream"):
                deltas = _interleaved(cities) if is_interleaved else _one_by_one(cities)
                last = [frame(finish="tool_calls"), *_usage_frames(exchange), DONE]
                await exchange.stream([frame({"role": "assistant"}), *deltas, *last])
            else:
                await exchange.answer(_native_calls(cities))

        return script

    return script_for


def _native_calls(cities: Sequence[str]) -> dict[str, Any]:
    made = completion(None, usage=USAGE)
    calls = [
        {"id": call, "type": "function", "function": {"name": TOOL, "arguments": json.dumps({"city": city})}}
        for call, city in zip(CALL_IDS, cities, strict=False)
    ]
    made["choices"][0]["message"]["tool_calls"] = calls
    made["choices"][0]["finish_reason"] = "tool_calls"
    return made


def _one_by_one(cities: Sequence[str]) -> list[bytes]:
    return [delta for index, city in enumerate(cities) for delta in _call_deltas(index, city)]


def _interleaved(cities: Sequence[str]) -> list[bytes]:
    calls = [_call_deltas(index, city) for index, city in enumerate(cities)]
    return [delta for deltas in zip(*calls, strict=True) for delta in deltas]


def _call_deltas(index: int, city: str) -> list[bytes]:
    """One call in three pieces: its head, and its arguments in two."""

    def delta(function: Mapping[str, str], **head: str) -> bytes:
        return frame({"tool_calls": [{"index": index, **head, "function": function}]})

    text = json.dumps({"city": city})
    head = delta({"name": TOOL, "arguments": ""}, id=CALL_IDS[index], type="function")
    return [head, delta({"arguments": text[:5]}), delta({"arguments": text[5:]})]


def _native_cut(_noticed: Noticed) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for word in WORDS[:2]:
            await exchange.chunk(frame({"content": word}))
        await exchange.chunk(b'data: {"id"')
        await asyncio.sleep(0.1)
        exchange.close()

    return script


def _native_reasoning(_noticed: Noticed) -> Script:
    async def script(exchange: Exchange) -> None:
        if not exchange.seen.json.get("stream"):
            whole = completion("".join(WORDS), usage=USAGE)
            whole["choices"][0]["message"]["reasoning_content"] = features.THOUGHT
            await exchange.answer(whole)
            return
        thought = [frame({"role": "assistant"}), frame({"reasoning_content": features.THOUGHT})]
        words = [frame({"content": word}) for word in WORDS]
        await exchange.stream([*thought, *words, frame(finish="stop"), DONE])

    return script


def _native_endless(noticed: Noticed) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for word in WORDS[:2]:
            await exchange.chunk(frame({"content": word}))
        await _until_left(exchange, noticed)

    return script


async def _until_left(exchange: Exchange, noticed: Noticed) -> None:
    await exchange.client_leaves()
    noticed.closed_at = time.time()
    exchange.close()


def _native_embeddings(_noticed: Noticed) -> Script:
    async def script(exchange: Exchange) -> None:
        # The official clients request base64 by default, and decode it.
        is_packed = exchange.seen.json.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
            for index, vector in enumerate(features.VECTORS)
        ]
        usage = {"prompt_tokens": 9, "total_tokens": 9}
        await exchange.answer({"object": "list", "data": data, "model": "embeddings", "usage": usage})

    return script


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


# Straico


def _emulated_text(text: str = "".join(WORDS), *, pause_s: float = 0.0) -> Callable[[Noticed], Script]:
    def script_for(_noticed: Noticed) -> Script:
        async def script(exchange: Exchange) -> None:
            await asyncio.sleep(pause_s)
            await exchange.answer(straico_completion(text, usage=USAGE))

        return script

    return script_for


def _emulated_tools(cities: Sequence[str]) -> Callable[[Noticed], Script]:
    calls = [{"name": TOOL, "arguments": {"city": city}} for city in cities]
    call_text = f"<tool_calls>{json.dumps(calls)}</tool_calls>"

    def script_for(_noticed: Noticed) -> Script:
        async def script(exchange: Exchange) -> None:
            text = FINAL if RESULT in exchange.seen.body.decode() else call_text
            await exchange.answer(straico_completion(text, usage=USAGE))

        return script

    return script_for


def _emulated_cut(_noticed: Noticed) -> Script:
    """The body breaks off after heartbeats have gone to the client, so that no status can report it."""

    async def script(exchange: Exchange) -> None:
        body = json.dumps(straico_completion("".join(WORDS))).encode()
        await exchange.head(200, ("content-length", str(len(body))))
        await exchange.send(body[: len(body) // 2])
        await asyncio.sleep(SILENCE_S)
        exchange.close()

    return script


def _emulated_silent(noticed: Noticed) -> Script:
    async def script(exchange: Exchange) -> None:
        await _until_left(exchange, noticed)

    return script


# Both


def _busy_once(then: Callable[[Noticed], Script]) -> Callable[[Noticed], Script]:
    def script_for(noticed: Noticed) -> Script:
        answer = then(noticed)

        async def script(exchange: Exchange) -> None:
            if len(noticed.seen) == 1:
                await _refused(exchange, 429, ("retry-after", str(RETRY_AFTER_S)))
            else:
                await answer(exchange)

        return script

    return script_for


def _failing(status: int, *headers: tuple[str, str]) -> Callable[[Noticed], Script]:
    def script_for(_noticed: Noticed) -> Script:
        async def script(exchange: Exchange) -> None:
            await _refused(exchange, status, *headers)

        return script

    return script_for


_BUSY = _failing(429, ("retry-after", str(RETRY_AFTER_S)))
_FENCED = f"```json\n{json.dumps(features.TRIP)}\n```"

_NATIVE: Mapping[str, Callable[[Noticed], Script]] = {
    "text": _native_text(),
    "stream": _native_text(),
    "slow": _native_text(pause_s=SILENCE_S),
    "tools": _native_tools(CITIES[:1]),
    "tools-stream": _native_tools(CITIES[:1]),
    "parallel": _native_tools(CITIES),
    "interleaved": _native_tools(CITIES, is_interleaved=True),
    "structured": _native_text([json.dumps(features.TRIP)]),
    "wrong-key": _native_text(),
    "429-retried": _busy_once(_native_text()),
    "429-raised": _BUSY,
    "500": _failing(500),
    "cut": _native_cut,
    "cancel": _native_endless,
    "embeddings": _native_embeddings,
    "models": _native_text(),
    "count-tokens": _native_text(),
    "stop": _native_text(),
    "image": _native_text(),
    "reasoning": _native_reasoning,
}
_EMULATED: Mapping[str, Callable[[Noticed], Script]] = {
    "text": _emulated_text(),
    "stream": _emulated_text(),
    "slow": _emulated_text(pause_s=2 * SILENCE_S),
    "tools": _emulated_tools(CITIES[:1]),
    "tools-stream": _emulated_tools(CITIES[:1]),
    "parallel": _emulated_tools(CITIES),
    # Models often fence what they were instructed to send bare.
    "structured": _emulated_text(_FENCED),
    "429-retried": _busy_once(_emulated_text()),
    "429-raised": _BUSY,
    "500": _failing(500),
    "cut": _emulated_cut,
    "cancel": _emulated_silent,
    "models": _emulated_text(),
    "count-tokens": _emulated_text(),
    "stop": _emulated_text(),
}
