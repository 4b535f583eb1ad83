"""The fixtures that most tests share: one scripted upstream, one proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.catalogue import (  # noqa: F401 - pytest finds its hooks here
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
)
from tests.support.proxy import STARTED, Proxy, running_proxy
from tests.support.upstream import Upstream

GROQ_KEY = "gsk-canary-0123456789"
STRAICO_KEY = "st-canary-0123456789"

# A test is told what its own request meets: nothing is repeated, and no failure is remembered.
ONCE = {"SANIC_PROXY_ATTEMPTS": "1", "SANIC_PROXY_BREAKER": "off"}


def provider_settings(upstream: Upstream) -> dict[str, str]:
    """A Groq-shaped and a Straico-shaped provider, both at `upstream`."""
    return {
        "GROQ_API_KEY": GROQ_KEY,
        "GROQ_BASE_URL": f"{upstream.url}/openai/v1",
        "STRAICO_API_KEY": STRAICO_KEY,
        "STRAICO_BASE_URL": upstream.url,
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_ECHO": "on",
        **ONCE,
    }


@pytest.fixture(scope="session", autouse=True)
def no_log_holds_a_key() -> Iterator[None]:
    """Whatever the tests did to all proxies that they started."""
    yield
    for started in STARTED:
        if started.last_log or started.log_path.exists():
            started.check(started.log.encode())


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
    assert "Traceback" not in log
