"""The fixtures that most tests share: one scripted upstream, one proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import Upstream

GROQ_KEY = "gsk-canary-0123456789"
STRAICO_KEY = "st-canary-0123456789"


def provider_settings(upstream: Upstream) -> dict[str, str]:
    """A Groq-shaped and a Straico-shaped provider, both at `upstream`."""
    return {
        "GROQ_API_KEY": GROQ_KEY,
        "GROQ_BASE_URL": f"{upstream.url}/openai/v1",
        "STRAICO_API_KEY": STRAICO_KEY,
        "STRAICO_BASE_URL": upstream.url,
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_ECHO": "on",
        # Each test is told what its own request meets: nothing is repeated, and no failure is remembered.
        "SANIC_PROXY_ATTEMPTS": "1",
        "SANIC_PROXY_BREAKER": "off",
    }


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Iterator[Upstream]:
    """The scripted upstream; a test fails if the proxy sent it something improper."""
    shared_upstream.requests.clear()
    shared_upstream.problems.clear()
    shared_upstream.forget_scripts()
    yield shared_upstream
    assert not shared_upstream.problems


@pytest.fixture(scope="session")
def proxy(shared_upstream: Upstream) -> Iterator[Proxy]:
    """A proxy with Groq, Straico and echo, and clocks short enough to be waited for."""
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.5",
        "SANIC_PROXY_TIMEOUT_CONNECT": "1",
        "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "2",
        "SANIC_PROXY_TIMEOUT_IDLE": "1",
        "SANIC_PROXY_TIMEOUT_TOTAL": "4",
        "SANIC_PROXY_MAX_BODY_BYTES": "2000000",
    }
    with running_proxy(settings) as started:
        yield started
        log = started.log
    assert GROQ_KEY not in log
    assert STRAICO_KEY not in log
    assert "Traceback" not in log
