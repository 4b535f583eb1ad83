"""A proxy with clients, limits and budgets in front of a provider that bills exactly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.money.provider import PRICES, Provider
from tests.support.proxy import GENEROUS_S, Proxy, Reply, free_port, running_proxy

KEY = "sk-{name}-0123456789abcdef"
MODELS = f"""
[models.m]
targets = [{{ provider = "bill", model = "x" }}]
prices = {{ input = {PRICES["input"]}, output = {PRICES["output"]} }}
max_output = 64
[models.unpriced]
targets = [{{ provider = "bill", model = "secret" }}]
[models.steps]
targets = [
    {{ provider = "gone", model = "x", prices = {{ input = 1, output = 1 }} }},
    {{ provider = "bill", model = "x", prices = {{ input = 1000, output = 10000 }} }},
    {{ provider = "bill", model = "y", prices = {{ input = 1, output = 1 }} }},
]
"""


@dataclass
class Billing:
    """The proxy, the provider behind it, and the proxy's state directory."""

    proxy: Proxy
    provider: Provider
    directory: Path

    def post(self, client: str, path: str = "/v1/chat/completions", **fields: Any) -> Reply:
        headers = {"authorization": f"Bearer {KEY.format(name=client)}", **fields.pop("headers", {})}
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64, **fields}
        return self.proxy.request("POST", path, body, headers)

    def rows(self, request_id: str, count: int = 1) -> list[dict[str, Any]]:
        """The rows of a request, once there are `count` of them."""
        until = time.monotonic() + GENEROUS_S
        while True:
            with closing(sqlite3.connect(self.directory / "state.sqlite")) as connection:
                connection.row_factory = sqlite3.Row
                found = connection.execute(
                    "SELECT * FROM ledger_row WHERE request_id = ? ORDER BY attempt", (request_id,)
                ).fetchall()
            if len(found) >= count or time.monotonic() > until:
                return [dict(row) for row in found]
            time.sleep(0.02)

    def bill(self, id_: str) -> int:
        """What the provider has billed for the request with that id in its metadata."""
        return sum(billed.nano for billed in self.provider.billed if billed.request_id == id_)


@contextmanager
def running_billing(directory: Path, clients: str, workers: int = 1, **settings: str) -> Iterator[Billing]:
    """Start both. Each client `NAME` has the variable `NAME_KEY`."""
    provider, port = Provider(), free_port()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(provider.start(port), loop).result()
    file = directory / "proxy.toml"
    providers = f"""
[providers.bill]
base_url = "http://127.0.0.1:{port}"
api_key_env = "BILL_KEY"
[providers.gone]
base_url = "http://127.0.0.1:{free_port()}"
api_key_env = "BILL_KEY"
"""
    names = {line[len("[clients.") : -1] for line in clients.splitlines() if line.startswith("[clients.")}
    keys = {f"{name.upper()}_KEY": KEY.format(name=name) for name in names}
    file.write_text(providers + MODELS + clients)
    environment = {
        **keys,
        "BILL_KEY": "sk-provider-0123456789",
        "SANIC_PROXY_CONFIG": str(file),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
        **settings,
    }
    try:
        with running_proxy(environment, f"--workers={workers}") as proxy:
            yield Billing(proxy, provider, directory / "state")
    finally:
        asyncio.run_coroutine_threadsafe(_stop(provider), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(provider: Provider) -> None:
    provider.stop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def frames_of(reply: Reply) -> list[Any]:
    """The payloads of a streamed answer, but its last one."""
    payloads = [frame[6:] for frame in reply.body.split(b"\n\n") if frame.startswith(b"data: ")]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]
