"""Pass-through: what goes up, what comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.loader import load
from sanic_proxy.providers.openai_compatible import fixed_headers, headers_back, opening_of, rest_of
from sanic_proxy.upstream.client import Response
from tests.support.proxy import running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, completion, frame


def test_the_key_and_the_rows_headers_go_up(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[providers.groq]\nheaders = {'X-Team' = 'blue'}\n")
    (groq,) = load({"GROQ_API_KEY": "k", "SANIC_PROXY_CONFIG": "p.toml"}, tmp_path).providers
    assert fixed_headers(groq) == {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": "Bearer k",
        "x-team": "blue",
    }


def test_without_a_key_there_is_no_authorization(tmp_path: Path) -> None:
    (ollama,) = load({"OLLAMA_BASE_URL": "http://127.0.0.1/v1"}, tmp_path).providers
    assert "authorization" not in fixed_headers(ollama)


@pytest.mark.parametrize(
    ("name", "value", "back"),
    [
        ("X-RateLimit-Remaining-Tokens", "7", ("x-ratelimit-remaining-tokens", "7")),
        ("openai-processing-ms", "12", ("openai-processing-ms", "12")),
        ("retry-after", "999", ("retry-after", "60")),
        ("x-request-id", "up-1", ("x-upstream-request-id", "up-1")),
        ("openai-organization", "ours", None),
        ("set-cookie", "a=b", None),
        ("connection", "close", None),
        ("server", "nginx", None),
        ("x-ratelimit-x", "a\x00b", None),
    ],
)
def test_only_what_helps_the_client_comes_back(name: str, value: str, back: tuple[str, str] | None) -> None:
    headers = {name: value} if name.startswith("X-") or name.islower() else {}
    assert headers_back(headers) == ([back] if back else [])


class Pieces(Response):
    """An answer in memory, in pieces."""

    headers: Mapping[str, str] = {}
    total_at = 0.0

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(reversed(pieces))

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        return self._pieces.pop() if self._pieces else b""

    @override
    async def read_all(self) -> bytes:
        return b"".join(reversed(self._pieces))

    @override
    def drain(self) -> None: ...

    @override
    def close(self) -> None: ...


@pytest.mark.row(21)
def test_blanks_before_an_answer_are_skipped() -> None:
    async def run() -> bytes:
        source = Pieces(b"\xef\xbb", b"\xbf\r\n", b" " * 1000, b"\t {", b'"a":', b"1}")
        return await rest_of(source, await opening_of(source))

    assert asyncio.run(run()) == b'{"a":1}'
    assert asyncio.run(opening_of(Pieces(b" ", b"\n"))) == b""


def test_blanks_without_end_are_bounded_and_take_linear_time() -> None:
    """68 MB of them: the time is that of counting them once, compared with a tenth of them."""

    def took_s(count: int) -> float:
        began = time.process_time()
        try:
            asyncio.run(opening_of(Pieces(*[b" " * 16_384] * count)))
        except errors.UpstreamBadResponse:
            assert count * 16_384 > 64 * 1024 * 1024
        return time.process_time() - began

    short, long = (min(took_s(count) for _ in range(3)) for count in (415, 4150))
    assert long < 30 * short + 0.1
    with pytest.raises(errors.UpstreamBadResponse):
        asyncio.run(opening_of(Pieces(*[b" " * 16_384] * 4150)))


# Reasoning under one name


@pytest.mark.parametrize("is_unified", [True, False])
def test_reasoning_is_renamed_for_the_provider_that_is_configured_so(
    upstream: Upstream, tmp_path: Path, is_unified: bool
) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(f"[providers.groq]\nunify_reasoning = {str(is_unified).lower()}\n")
    pieces = [frame({"reasoning": "hm"}), frame({"content": "a"}), frame(finish="stop"), DONE]
    thought = {"role": "assistant", "content": "<think>hm</think>a"}
    answer = completion(choices=[{"index": 0, "message": thought, "finish_reason": "stop"}])

    async def streamed(exchange: Exchange) -> None:
        await exchange.stream(pieces)

    async def whole(exchange: Exchange) -> None:
        await exchange.answer(answer)

    upstream.on("streamed", streamed)
    upstream.on("whole", whole)
    settings = {**provider_settings(upstream), "SANIC_PROXY_CONFIG": str(config)}
    with running_proxy(settings) as proxy:
        frames = proxy.stream("groq/streamed")[1]
        message = proxy.chat("groq/whole").json["choices"][0]["message"]
        replayed = proxy.stream("groq/whole")[1]
    deltas: list[Any] = [json.loads(one[6:])["choices"][0]["delta"] for one in replayed[:-1]]
    if is_unified:
        assert json.loads(frames[0][6:])["choices"][0]["delta"] == {"reasoning_content": "hm"}
        assert frames[1:] == pieces[1:]
        assert (message["reasoning_content"], message["content"]) == ("hm", "a")
        assert {"reasoning_content": "hm"} in deltas
    else:
        assert frames == pieces
        assert message == thought
        assert {"content": "<think>hm</think>a"} in deltas
