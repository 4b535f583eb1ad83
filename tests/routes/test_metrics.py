"""GET /metrics: over all workers, for operators only."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

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


def is_replaced(proxy: Proxy, pid: int, workers: int = 2) -> bool:
    pids = proxy.worker_pids()
    return len(pids) == workers and pid not in pids


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


class Scraper(threading.Thread):
    """Scrapes again and again until it is stopped, and notes each counter that falls."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(daemon=True)
        self._proxy = proxy
        self._stop_now = threading.Event()
        self._last: Samples = {}
        self.scrapes = 0
        self.fallen: list[str] = []

    def stop(self) -> None:
        self._stop_now.set()
        self.join()

    @override
    def run(self) -> None:
        while not self._stop_now.is_set():
            with suppress(OSError, http.client.HTTPException):  # its worker was killed
                self._compare(scrape(self._proxy))

    def _compare(self, found: Samples) -> None:
        for key, before in self._last.items():
            if key[0].endswith(("_total", "_count", "_bucket")) and found.get(key, 0.0) < before:
                self.fallen.append(f"{key}: {found.get(key)} after {before}")
        self._last = found
        self.scrapes += 1


def have_scraped(scrapers: Sequence[Scraper], before: Sequence[int]) -> bool:
    return all(scraper.scrapes > count for scraper, count in zip(scrapers, before, strict=True))


def test_no_counter_falls_while_workers_are_killed_during_scrapes(shared_upstream: Upstream) -> None:
    with running_proxy({**provider_settings(shared_upstream), **SETTINGS}, "--workers", "3") as three:
        scrapers = [Scraper(three) for _ in range(2)]
        for scraper in scrapers:
            scraper.start()
        for _ in range(3):
            for _ in range(8):
                with suppress(OSError, http.client.HTTPException):
                    chat(three)
            before = [scraper.scrapes for scraper in scrapers]
            killed = three.worker_pids()[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(partial(is_replaced, three, killed, 3))
            wait_until(partial(have_scraped, scrapers, before))
        for scraper in scrapers:
            scraper.stop()
        assert [scraper.fallen for scraper in scrapers] == [[], []]
        wait_until(lambda: total(scrape(three), "sanic_proxy_workers") == 3)
        wait_until(lambda: total(scrape(three), "sanic_proxy_requests_in_flight") == 0)


def test_what_a_client_has_spent_and_has_left(shared_upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(SPENDING)
    settings = {
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_STATE_DIR": str(tmp_path / "state"),
        "SPENDER_KEY": CLIENT_KEY,
    }
    with running_proxy(settings, "--single-process") as proxy:
        chat(proxy, "priced")
        reply = proxy.chat("priced", headers=bearer("unknown-canary-0123456789"))
        assert reply.status == 401
        wait_until(lambda: total(scrape(proxy), "sanic_proxy_spend_dollars_total") > 0)
        found = scrape(proxy)
        spent = total(found, "sanic_proxy_spend_dollars_total", client="spender", model="priced")
        wait_until(
            lambda: (
                total(scrape(proxy), "sanic_proxy_budget_left_dollars", scope="client", per="day")
                == pytest.approx(1 - spent, abs=1e-9)
            )
        )
        assert total(found, "sanic_proxy_budget_limit_dollars", scope="client") == 1
        assert total(found, "sanic_proxy_refused_requests_total", kind="key") == 1
        assert proxy.chat("priced", headers=bearer(CLIENT_KEY)).status == 429
        wait_until(lambda: total(scrape(proxy), "sanic_proxy_refused_requests_total", kind="rate") == 1)


SPENDING = """
[models.priced]
targets = ["echo/echo"]
prices = { input = 10, output = 10 }

[clients.spender]
key_env = "SPENDER_KEY"
rpm = 1
burst = 1
budget = [{ usd = 1, per = "day" }]
"""


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
