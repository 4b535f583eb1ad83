"""GET /metrics: over all workers, for operators only."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.metrics import Samples, samples, total
from tests.support.proxy import Proxy, free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream


@pytest.fixture(scope="module")
def measured(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {**provider_settings(shared_upstream), **SETTINGS, "SANIC_PROXY_METRICS_NAMES": "litellm"}
    with running_proxy(settings, "--workers", "2") as proxy:
        yield proxy


def scrape(proxy: Proxy, accept: str = "text/plain") -> Samples:
    reply = proxy.request("GET", "/metrics", headers={**bearer(ADMIN_KEY), "accept": accept})
    assert reply.status == 200
    return samples(reply.body.decode(), is_openmetrics=accept.startswith("application/openmetrics-text"))


def chat(proxy: Proxy, model: str = "echo/echo") -> None:
    assert proxy.chat(model, headers=bearer(CLIENT_KEY)).status == 200


def echoed(proxy: Proxy) -> float:
    return total(scrape(proxy), "sanic_proxy_requests_total", model="echo/echo")


def test_every_worker_shows_the_requests_of_all(measured: Proxy) -> None:
    before = echoed(measured)
    for _ in range(20):
        chat(measured)
    wait_until(lambda: echoed(measured) == before + 20)  # a request is counted when its answer has been sent
    assert {echoed(measured) for _ in range(6)} == {before + 20}  # whichever worker answers
    assert total(scrape(measured), "litellm_proxy_total_requests_metric_total") >= 20


def is_replaced(proxy: Proxy, pid: int) -> bool:
    pids = proxy.worker_pids()
    return len(pids) == 2 and pid not in pids


def test_counters_survive_killed_workers_and_requests_in_flight_do_not(
    measured: Proxy, shared_upstream: Upstream
) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.client_leaves()

    def hanging() -> None:
        with suppress(OSError, http.client.HTTPException):
            measured.chat("groq/hang", headers=bearer(CLIENT_KEY))

    shared_upstream.on("hang", hang)
    counted = echoed(measured)
    clients = [threading.Thread(target=hanging) for _ in range(6)]
    for client in clients:
        client.start()
    wait_until(lambda: total(scrape(measured), "sanic_proxy_requests_in_flight") >= 6)
    killed = measured.worker_pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(is_replaced, measured, pid))
    for client in clients:
        client.join()
    wait_until(lambda: total(scrape(measured), "sanic_proxy_workers") == 2)
    wait_until(lambda: total(scrape(measured), "sanic_proxy_requests_in_flight") == 0)
    assert echoed(measured) == counted
    chat(measured)
    wait_until(lambda: echoed(measured) == counted + 1)


def test_openmetrics_for_those_who_accept_it(measured: Proxy) -> None:
    found = scrape(measured, "application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert total(found, "sanic_proxy_workers") >= 1


@pytest.mark.parametrize("headers", [{}, bearer(CLIENT_KEY)])
def test_the_metrics_need_the_admin_key(measured: Proxy, headers: dict[str, str]) -> None:
    assert measured.request("GET", "/metrics", headers=headers).status == 401


def test_without_an_admin_key_there_are_none(proxy: Proxy) -> None:
    assert proxy.request("GET", "/metrics", headers=bearer(ADMIN_KEY)).status == 404


def test_a_port_of_their_own_needs_no_key(proxy: Proxy) -> None:
    port = free_port()
    settings = {**SETTINGS, "SANIC_PROXY_METRICS_ADDRESS": f"127.0.0.1:{port}"}
    with running_proxy(settings, "--single-process") as own:
        chat(own)
        assert own.request("GET", "/metrics", headers=bearer(CLIENT_KEY)).status == 404
        main, own.port = own.port, port
        try:
            reply = own.request("GET", "/metrics")
            assert "sanic_proxy_workers 1" in reply.body.decode()
            assert own.request("GET", "/health").status == 200
            assert own.request("GET", "/admin/info", headers=bearer(ADMIN_KEY)).status == 404
            assert own.request("GET", "/v1/models", headers=bearer(CLIENT_KEY)).status == 404
        finally:
            own.port = main


def test_without_one_they_are_on_the_port_of_the_admin_routes() -> None:
    port = free_port()
    with running_proxy(
        {**SETTINGS, "SANIC_PROXY_ADMIN_ADDRESS": f"127.0.0.1:{port}"}, "--single-process"
    ) as own:
        assert own.request("GET", "/metrics", headers=bearer(CLIENT_KEY)).status == 404
        main, own.port = own.port, port
        try:
            assert own.request("GET", "/metrics", headers=bearer(ADMIN_KEY)).status == 200
            assert own.request("GET", "/metrics").status == 401
        finally:
            own.port = main
