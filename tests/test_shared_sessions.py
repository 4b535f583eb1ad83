"""Sessions in a proxy with several workers: all of them send one to the same target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

WORKERS = 2
TOML = """
[models.agents]
strategy = "weighted"
targets = ["groq/one", "groq/two", "groq/three"]

[models.reasoning]
strategy = "weighted"
targets = ["lab/deep"]

[providers.lab]
base_url = "UPSTREAM/v1"
api_key_env = "LAB_API_KEY"
dialects = ["responses"]
"""
KEYS = ("lab-canary-first-0123456789", "lab-canary-second-0123456789")


@pytest.fixture(scope="module")
def proxy(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config = tmp_path_factory.mktemp("config") / "proxy.toml"
    config.write_text(TOML.replace("UPSTREAM", shared_upstream.url))
    settings = {
        **provider_settings(shared_upstream),
        "LAB_API_KEY": ",".join(KEYS),
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_ATTEMPTS": "3",
        "SANIC_PROXY_ATTEMPTS_PER_TARGET": "1",
    }
    with running_proxy(settings, "--workers", str(WORKERS)) as started:
        yield started


async def fails(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": "no"}}, 500)


async def answers(exchange: Exchange) -> None:
    await exchange.answer(completion())


def target_of(proxy: Proxy, session: str) -> str:
    """The target that has answered, once the worker knows the end of the request."""
    reply = proxy.chat("agents", headers={"x-session-affinity": session})
    assert reply.status == 200
    proxy.log_line(reply.headers["x-request-id"])
    return reply.headers["x-sanic-proxy-route"].rpartition(", ")[2].partition(" ")[0]


def test_all_workers_follow_a_session_that_moves(proxy: Proxy, upstream: Upstream) -> None:
    for model in ("one", "two", "three"):
        upstream.on(model, answers)
    home = target_of(proxy, "s")
    assert {target_of(proxy, "s") for _ in range(4 * WORKERS)} == {home}
    upstream.on(home.partition("/")[2], fails)
    second = target_of(proxy, "s")
    assert second != home
    upstream.on(home.partition("/")[2], answers)
    # A worker may go by its own pin for a second.
    wait_until(lambda: {target_of(proxy, "s") for _ in range(4 * WORKERS)} == {second})
    assert {target_of(proxy, "s") for _ in range(4 * WORKERS)} == {second}


def test_all_workers_know_which_key_reads_encrypted_reasoning(proxy: Proxy, upstream: Upstream) -> None:
    rejected: list[str] = []

    async def respond(exchange: Exchange) -> None:
        content = exchange.seen.json["input"][0]["encrypted_content"]
        if exchange.seen.header("authorization") != f"Bearer {KEYS[1]}":
            rejected.append(content)
            error = {"message": "could not be verified", "code": "invalid_encrypted_content"}
            await exchange.answer({"error": {"type": "invalid_request_error", "param": None, **error}}, 400)
            return
        await exchange.answer({"id": "resp_1", "object": "response", "status": "completed", "output": []})

    upstream.on("deep", respond)
    for number in range(6):
        item = {"type": "reasoning", "summary": [], "encrypted_content": f"made by the second, {number}"}
        body = {"model": "reasoning", "input": [item, {"role": "user", "content": "Go on"}], "store": False}
        for _ in range(2 * WORKERS):
            reply = proxy.request("POST", "/v1/responses", body)
            assert reply.status == 200
            proxy.log_line(reply.headers["x-request-id"])
    assert max(Counter(rejected).values(), default=0) <= 1  # by the worker that has met it first
