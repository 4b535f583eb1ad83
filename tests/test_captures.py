"""Content that a proxy captures, whichever way a client asks; what a request may refuse; its replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support import gemini
from tests.support.admin import ADMIN_KEY, bearer
from tests.support.load import wait_until
from tests.support.metrics import samples, total
from tests.support.proxy import Proxy, running_proxy
from tests.support.replay import replaying
from tests.support.response_websocket import open_socket
from tests.support.upstream import Exchange, Upstream, completion, text_stream

CLIENT_KEY = "key-of-a-client-0123456789"
TOML = """
[providers.vendor]
base_url = "URL/v1"

[providers.gem]
base_url = "URL/v1beta/openai"
dialects = ["chat", "gemini"]

[clients.app]
key_env = "APP_KEY"
capture = true
"""
PAUSE_S = 0.05
PIECES = ("one ", "two ", "three ", "four")
GEMINI = [
    gemini.frame({"text": "Hel"}, end="\n\n"),
    gemini.frame({"text": "lo"}, finish="STOP", end="\n\n", usageMetadata={"promptTokenCount": 1}),
]


async def vendor(exchange: Exchange) -> None:
    if exchange.seen.json.get("stream"):
        await exchange.stream(text_stream(*PIECES), PAUSE_S)
    else:
        await exchange.answer(completion("whole"))


async def google(exchange: Exchange) -> None:
    assert exchange.seen.path == "/v1beta/models/g:streamGenerateContent?alt=sse"
    await exchange.stream(GEMINI, PAUSE_S)


@dataclass
class Captured:
    """The file, what clients got of Gemini's streams, and the proxy's log, accounts and metrics."""

    path: Path
    gemini: dict[str, bytes]
    log: str
    usage: dict[str, Any]
    metrics: str

    def lines(self, **wanted: object) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if wanted.items() <= line.items()]


def contents(text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


GEMINI_PATH = "/v1beta/models/MODEL:streamGenerateContent"


def ask_gemini(proxy: Proxy, model: str, query: str, headers: Mapping[str, str]) -> bytes:
    path = GEMINI_PATH.replace("MODEL", model) + query
    return proxy.request("POST", path, contents(f"Hi{query}"), headers).body


def ask_in_the_background(proxy: Proxy, **headers: str) -> None:
    own = {**bearer(CLIENT_KEY), **headers}
    body = {"model": "vendor/m", "input": "background", "background": True}
    queued = proxy.request("POST", "/v1/responses", body, own).json
    path = f"/v1/responses/{queued['id']}"
    wait_until(lambda: bool(proxy.request("GET", path, headers=own).json["status"] == "completed"))


def ask_over_a_websocket(proxy: Proxy, **headers: str) -> None:
    async def work() -> None:
        async with open_socket(proxy, headers={**bearer(CLIENT_KEY), **headers}) as socket:
            ended = await socket.create("vendor/m", "websocket")
            assert ended["type"] == "response.completed", ended

    asyncio.run(work())


REFUSED = {"x-no-log": "1"}


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    directory = Path(tmp_path_factory.mktemp("captures"))
    upstream = Upstream()
    upstream.start()
    upstream.on("m", vendor)
    upstream.on("*", google)
    (directory / "proxy.toml").write_text(TOML.replace("URL", upstream.url))
    path = directory / "captures.jsonl"
    settings = {
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
        "SANIC_PROXY_CAPTURE_FILE": str(path),
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_LEDGER": "on",
        "APP_KEY": CLIENT_KEY,
    }
    own = bearer(CLIENT_KEY)
    with running_proxy(settings) as proxy:
        for name, headers in (("chat-1", own), ("chat-2", {**own, **REFUSED})):
            assert proxy.chat("vendor/m", headers={**headers, "x-request-id": name}).status == 200
        proxy.request(
            "POST",
            "/v1/chat/completions",
            {"model": "vendor/m", "messages": turns("Hi"), "stream": True},
            own,
        )
        ask_over_a_websocket(proxy)
        ask_over_a_websocket(proxy, **REFUSED)
        ask_in_the_background(proxy)
        ask_in_the_background(proxy, **REFUSED)
        streams = {query: ask_gemini(proxy, "gem/g", query, own) for query in ("", "?alt=sse")}

        def is_booked() -> bool:
            rows = proxy.request("GET", "/admin/usage?by=model", headers=bearer(ADMIN_KEY)).json["data"]
            return bool(sum(row["attempts"] for row in rows) == 9)

        wait_until(is_booked)
        usage = proxy.request("GET", "/admin/usage?by=model", headers=bearer(ADMIN_KEY)).json
        metrics = proxy.request("GET", "/metrics", headers=bearer(ADMIN_KEY)).body.decode()
        log = proxy.log
    upstream.stop()
    return Captured(path, streams, log, usage, metrics)


def test_a_request_refuses_its_capture_and_nothing_else(captured: Captured) -> None:
    assert [line["id"] for line in captured.lines(dialect="chat", stream=False)] == ["chat-1"]
    assert all(f"id=chat-{number}" in captured.log for number in (1, 2))
    attempts = {row["model"]: row["attempts"] for row in captured.usage["data"]}
    assert attempts["vendor/m"] == 7
    found = samples(captured.metrics)
    assert total(found, "sanic_proxy_requests_total", dialect="chat", model="vendor/m", outcome="ok") == 3
    assert total(found, "sanic_proxy_client_requests_total", client="app", outcome="ok") >= 9


def test_responses_over_a_websocket_are_captured_as_events(captured: Captured) -> None:
    (line,) = captured.lines(dialect="responses", stream=True)
    assert line["request"]["input"] == "websocket"
    events = "".join(text for _, text in line["frames"]).split("\n\n")[:-1]
    kinds = [json.loads(event.removeprefix("data: "))["type"] for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    times = [at_ms for at_ms, _ in line["frames"]]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 1000 * PAUSE_S


def test_background_responses_are_captured_whole(captured: Captured) -> None:
    (line,) = captured.lines(dialect="responses", stream=False)
    assert (line["request"]["input"], line["ended"]) == ("background", "complete")
    assert json.loads(line["body"])["status"] == "completed"


def test_replay_of_gemini_in_both_forms_of_its_streams(captured: Captured, tmp_path: Path) -> None:
    assert captured.gemini[""].startswith(b"[{")
    with replaying(captured.path, tmp_path, "--speed", "0") as proxy:
        for query, body in captured.gemini.items():
            replayed = ask_gemini(proxy, "replay/gem/g", query, {})
            expected = json.loads(body) if not query else gemini.judged_stream(body)
            assert (json.loads(replayed) if not query else gemini.judged_stream(replayed)) == expected
        crossed = ask_gemini(proxy, "replay/gem/g", "?alt=sse&other=1", {})
        assert gemini.text_of(gemini.judged_stream(crossed)) == "Hello"


def test_replay_of_a_websocket_over_http(captured: Captured, tmp_path: Path) -> None:
    with replaying(captured.path, tmp_path, "--speed", "0") as proxy:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.port}/v1", api_key="none", max_retries=0)
        with client.responses.stream(model="replay/vendor/m", input="websocket", store=False) as stream:
            assert stream.get_final_response().output_text == "".join(PIECES)
        client.close()


def streamed(proxy: Proxy) -> str:
    """What the official client gets of a streamed chat."""
    with openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.port}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="replay/vendor/m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        ("cut", openai.APIError, None),
        ("stall", openai.APIError, None),
        ("429", openai.RateLimitError, 429),
        ("500", openai.InternalServerError, 500),
    ],
)
def test_the_official_client_meets_each_fault(
    captured: Captured, tmp_path: Path, fault: str, error: type[openai.APIError], status: int | None
) -> None:
    with replaying(captured.path, tmp_path, "--speed", "0", "--fault", fault) as proxy:
        with pytest.raises(error) as raised:
            streamed(proxy)
        assert getattr(raised.value, "status_code", None) == status


@pytest.mark.parametrize(
    ("arguments", "least_s"),
    [((), PAUSE_S * len(PIECES)), (("--speed", "0"), 0.0), (("--fault", "slow:20"), len(PIECES) / 20)],
)
def test_the_official_client_gets_the_answer_at_its_speed(
    captured: Captured, tmp_path: Path, arguments: tuple[str, ...], least_s: float
) -> None:
    with replaying(captured.path, tmp_path, *arguments) as proxy:
        began = time.monotonic()
        assert streamed(proxy) == "".join(PIECES)
        assert time.monotonic() - began >= least_s
