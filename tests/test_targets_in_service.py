"""Strategies and limits of a model's targets in a running proxy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.admin import ADMIN_KEY, SETTINGS, bearer
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, frame, text_stream

TOML = """
[models.limited]
targets = [
    { provider = "groq", model = "first", rpm = 1 },
    { provider = "groq", model = "second", tpm = 5 },
]

[models.patient]
max_wait = 2
targets = [{ provider = "groq", model = "held", concurrent = 1 }]

[models.alone]
max_wait = 0
targets = [{ provider = "groq", model = "held", concurrent = 1 }]

[models.quick]
strategy = "least_latency"
targets = ["groq/slow", "groq/quick"]

[models.agents]
strategy = "least_in_flight"
targets = ["groq/one", "groq/two", "groq/three"]

[models.engines]
strategy = "prefix"
targets = ["groq/one", "groq/two", "groq/three"]

[models.balanced]
strategy = "least_in_flight"
targets = ["groq/x", "groq/y"]
"""


@pytest.fixture(scope="module")
def limited(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config = Path(tmp_path_factory.mktemp("config")) / "proxy.toml"
    config.write_text(TOML)
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.3",
    }
    with running_proxy(settings) as started:
        yield started


class Held:
    """A script that answers once it may; a stream begins before."""

    def __init__(self) -> None:
        self.has_arrived = threading.Event()
        self.may_end = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        is_streaming = exchange.seen.json.get("stream")
        if is_streaming:
            await exchange.begin_stream()
            await exchange.chunk(frame({"content": "a"}))
        self.has_arrived.set()
        await asyncio.to_thread(self.may_end.wait)
        if not is_streaming:
            await exchange.answer(completion())
            return
        for piece in text_stream("b")[1:]:
            await exchange.chunk(piece)
        await exchange.end_stream()


async def answer(exchange: Exchange) -> None:
    await exchange.answer(completion())  # of eleven tokens


def test_a_target_at_its_limit_is_passed_over(limited: Proxy, upstream: Upstream) -> None:
    upstream.on("first", answer)
    upstream.on("second", answer)
    replies = [limited.chat("limited") for _ in range(6)]
    # Each target serves one request a minute, and at most two minutes are touched.
    assert len(upstream.seen("first")) in {1, 2}
    assert len(upstream.seen("second")) in {1, 2}
    refused = replies[-1]
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "per minute to groq/" in refused.error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_in_flight_until_its_answer_has_ended(
    limited: Proxy, upstream: Upstream, stream: bool
) -> None:
    held = Held()
    upstream.on("held", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(limited.chat, "alone", stream=stream)
        assert held.has_arrived.wait(60)
        refused = limited.chat("alone")
        held.may_end.set()
        reply = first.result(60)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert reply.status == 200
    assert limited.log_line(reply.headers["x-request-id"])  # written when the request has ended
    assert limited.chat("alone").status == 200


def test_a_client_that_leaves_frees_its_place(limited: Proxy, upstream: Upstream) -> None:
    held = Held()
    upstream.on("held", held)
    client = limited.open_stream("alone")
    assert held.has_arrived.wait(60)
    client.close()
    limited.wait_for_log("ended=client_left")
    held.may_end.set()
    assert limited.chat("alone").status == 200


def test_the_target_with_fewer_requests_in_flight_is_first(limited: Proxy, upstream: Upstream) -> None:
    held = Held()
    upstream.on("x", held)
    upstream.on("y", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(limited.chat, "balanced")
        assert held.has_arrived.wait(60)
        held.has_arrived.clear()
        second = pool.submit(limited.chat, "balanced")
        assert held.has_arrived.wait(60)
        held.may_end.set()
        replies = [first.result(60), second.result(60)]
    routes = {reply.headers["x-sanic-proxy-route"].partition(" ")[0] for reply in replies}
    assert routes == {"groq/x", "groq/y"}


@pytest.mark.parametrize("stream", [False, True])
def test_the_target_that_answers_sooner_is_first(limited: Proxy, upstream: Upstream, stream: bool) -> None:
    async def send(exchange: Exchange) -> None:
        if exchange.seen.json["model"] == "slow":
            await asyncio.sleep(0.5)
        if not stream:
            await exchange.answer(completion())
            return
        await exchange.begin_stream()
        for piece in text_stream("a", "b"):
            await exchange.chunk(piece)
        await exchange.end_stream()

    upstream.on("slow", send)
    upstream.on("quick", send)
    for _ in range(8):
        assert limited.chat("quick", stream=stream).status == 200
    # Each is tried once while nothing is known of it.
    assert len(upstream.seen("slow")) <= 1
    assert len(upstream.seen("quick")) >= 7


def target_of(proxy: Proxy, session: str, *, model: str = "agents") -> str:
    reply = proxy.chat(model, headers={"x-session-affinity": session})
    assert reply.status == 200
    return reply.headers["x-sanic-proxy-route"].rpartition(", ")[2].partition(" ")[0]


def test_a_session_stays_on_one_target(limited: Proxy, upstream: Upstream) -> None:
    for name in ("one", "two", "three"):
        upstream.on(name, answer)
    homes = {session: target_of(limited, session) for session in map(str, range(12))}
    assert set(homes.values()) == {"groq/one", "groq/two", "groq/three"}
    for _ in range(3):
        assert {session: target_of(limited, session) for session in homes} == homes


def test_the_session_is_in_the_log_without_its_name(limited: Proxy, upstream: Upstream) -> None:
    for name in ("one", "two", "three"):
        upstream.on(name, answer)
    first, second = (limited.chat("agents", user="somebody") for _ in range(2))
    lines = [limited.log_line(reply.headers["x-request-id"]) for reply in (first, second)]
    sessions = {line.partition(" session=")[2].split()[0] for line in lines}
    assert len(sessions) == 1
    assert not any("somebody" in line for line in lines)


def test_a_failure_moves_the_session_and_it_stays_there(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(TOML)
    settings = {**provider_settings(upstream), "SANIC_PROXY_CONFIG": str(config), "SANIC_PROXY_ATTEMPTS": "3"}
    for name in ("one", "two", "three"):
        upstream.on(name, answer)

    async def fail(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": "out of order"}}, status=500)

    with running_proxy({**settings, "SANIC_PROXY_ATTEMPTS_PER_TARGET": "1"}) as proxy:
        home = target_of(proxy, "s")
        upstream.on(home.partition("/")[2], fail)
        second = target_of(proxy, "s")
        assert second != home
        upstream.on(home.partition("/")[2], answer)
        assert [target_of(proxy, "s") for _ in range(3)] == [second] * 3


def test_a_prompt_meets_the_engine_that_knows_its_beginning(limited: Proxy, upstream: Upstream) -> None:
    for name in ("one", "two", "three"):
        upstream.on(name, answer)
    for text in ("a", "b", "c", "d"):
        turns = [{"role": "user", "content": text * 3000}]
        homes = set()
        for number in range(4):
            reply = limited.chat("engines", messages=[*turns, {"role": "user", "content": str(number)}])
            homes.add(reply.headers["x-sanic-proxy-route"].partition(" ")[0])
        assert len(homes) == 1


def test_an_engine_with_a_queue_gets_less(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(f"""
        [providers.groq]
        metrics_url = "{upstream.url}/metrics"

        [models.queued]
        strategy = "least_in_flight"
        targets = ["groq/one", "straico/two"]
    """)
    was_read = threading.Event()

    async def metrics(exchange: Exchange) -> None:
        if exchange.seen.number > 1 or len([s for s in upstream.requests if s.path == "/metrics"]) > 1:
            was_read.set()  # the answer before has been read
        await exchange.answer(b'vllm:num_requests_waiting{model_name="one"} 3.0\n', kind="text/plain")

    upstream.on("GET /metrics", metrics)
    settings = {**provider_settings(upstream), **SETTINGS, "SANIC_PROXY_CONFIG": str(config)}
    with running_proxy(settings) as proxy:
        assert was_read.wait(60)
        shown = proxy.request("GET", "/admin/route?model=queued", headers=bearer(ADMIN_KEY)).json
    assert [(target["target"], target.get("waiting")) for target in shown["targets"]] == [
        ("straico/two", None),
        ("groq/one", 3),
    ]


def test_a_stream_that_waits_in_vain_gets_the_status_of_its_refusal(
    limited: Proxy, upstream: Upstream
) -> None:
    held = Held()
    upstream.on("held", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(limited.chat, "patient")
        assert held.has_arrived.wait(60)
        refused = limited.chat("patient", stream=True)
        assert refused.status == 429
        assert "waited_ms=" in limited.log_line(refused.headers["x-request-id"])
        waiting = pool.submit(limited.stream, "patient")
        held.may_end.set()
        assert first.result().status == 200
        assert waiting.result()[0].status == 200


def test_encrypted_reasoning_goes_to_the_key_that_made_it(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(f"""
        [providers.lab]
        base_url = "{upstream.url}/v1"
        api_key_env = "LAB_API_KEY"
        dialects = ["responses"]

        [models.reasoning]
        strategy = "weighted"
        targets = ["lab/deep"]
    """)
    keys = ("lab-canary-first-0123456789", "lab-canary-second-0123456789")
    used: list[str] = []

    async def respond(exchange: Exchange) -> None:
        key = (exchange.seen.header("authorization") or "").removeprefix("Bearer ")
        used.append(key)
        if exchange.seen.json["input"][0]["encrypted_content"] == "made-by-the-second" and key != keys[1]:
            error = {"message": "could not be verified", "code": "invalid_encrypted_content"}
            await exchange.answer({"error": {"type": "invalid_request_error", "param": None, **error}}, 400)
            return
        await exchange.answer({"id": "resp_1", "object": "response", "status": "completed", "output": []})

    upstream.on("deep", respond)
    settings = {**provider_settings(upstream), "SANIC_PROXY_CONFIG": str(config), "SANIC_PROXY_ATTEMPTS": "4"}
    with running_proxy({**settings, "LAB_API_KEY": ",".join(keys)}) as proxy:
        item = {"type": "reasoning", "summary": [], "encrypted_content": "made-by-the-second"}
        turn = {"role": "user", "content": "Go on"}
        body = {"model": "reasoning", "input": [item, turn], "store": False}
        replies = [proxy.request("POST", "/v1/responses", body) for _ in range(4)]
    assert [reply.status for reply in replies] == [200] * 4
    assert used.count(keys[0]) <= 1  # at most the first request, which did not know
    assert used[-3:] == [keys[1]] * 3


def test_the_cached_share_is_in_the_log(limited: Proxy, upstream: Upstream) -> None:
    async def cached(exchange: Exchange) -> None:
        usage = {"prompt_tokens": 900, "completion_tokens": 2, "total_tokens": 902}
        await exchange.answer(completion(usage={**usage, "prompt_tokens_details": {"cached_tokens": 768}}))

    for name in ("one", "two", "three"):
        upstream.on(name, cached)
    reply = limited.chat("agents", user="u")
    line = limited.log_line(reply.headers["x-request-id"])
    assert "prompt_tokens=900 cached_tokens=768" in line
