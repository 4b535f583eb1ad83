"""The fixtures that most tests share: one scripted upstream, one proxy in front of it."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.catalogue import (  # noqa: F401 - pytest finds its hooks here
    is_full_run,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from tests.support.postgresql import PostgreSQL, needs_postgresql, postgresql_at, running_postgresql
from tests.support.proxy import STARTED, Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.stores import MakeStore, sqlite_in
from tests.support.upstream import Upstream

# The suite starts some hundred interpreters: without cached bytecode, each would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# On a busy machine examples take long for no reason of theirs. Each run has other examples, so many are tried
# in time; scripts/test-slow tries many at once.
_QUIET = [HealthCheck.too_slow]
settings.register_profile("tests", deadline=None, max_examples=30, suppress_health_check=_QUIET)
settings.register_profile("thorough", settings.get_profile("tests"), max_examples=1000)
settings.load_profile("tests")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The number of processes for `-n auto`: one more than there are cores, as half of a run is waiting.

    Only the whole suite is distributed: a few tests start sooner, and are easier to debug, in one process.
    """
    return len(os.sched_getaffinity(0)) + 1 if is_full_run(config) else 0


@pytest.fixture(scope="session", autouse=True)
def no_log_holds_a_key() -> Iterator[None]:
    """Check the logs of all proxies that the tests started."""
    yield
    for started in STARTED:
        if started.last_log or started.log_path.exists():
            started.check(started.log.encode())


@pytest.fixture(scope="session", autouse=True)
def no_task_is_lost() -> Iterator[None]:
    """asyncio logs a task that was destroyed while it waited, and an exception that was never retrieved.

    It does so when the garbage is collected, which may be much later than the test that caused it.
    """
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("asyncio").addHandler(handler)
    yield
    gc.collect()
    logging.getLogger("asyncio").removeHandler(handler)
    lost = [text for text in messages if "destroyed" in text or "never retrieved" in text]
    assert not lost, "\n".join(lost)
    for started in STARTED:
        if started.last_log or started.log_path.exists():
            assert "Task was destroyed" not in started.log


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgresql)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes stores of one kind, in one directory or on one database."""
    if request.param == "sqlite":
        return sqlite_in(tmp_path)
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return postgresql_at(server.new_database())
