"""What attempts cost that do not end as an answer, at a real proxy: by their usage where it was seen."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sanic_proxy.governance.leases import CUT, ESTIMATED, HEDGE, OVERDRAFT
from tests.support.billing import KEY, Billing, running_billing
from tests.support.load import wait_until

CLIENTS = """
[clients.app]
key_env = "APP_KEY"
budget = { usd = 100, per = "day" }
[clients.strict]
key_env = "STRICT_KEY"
budget = { usd = 100, per = "day", strict = true }
[models.goes-on]
targets = ["bill/cut", "bill/x"]
prices = { input = 2.5, output = 10 }
on_cut = "restart"
[models.goes-on-late]
targets = ["bill/late", "bill/x"]
prices = { input = 2.5, output = 10 }
on_cut = "restart"
[models.continued]
targets = [{ provider = "bill", model = "late" }, { provider = "bill", model = "x", continues = "assistant" }]
prices = { input = 2.5, output = 10 }
on_cut = "continue"
[models.all-late]
targets = ["bill/late"]
prices = { input = 2.5, output = 10 }
on_cut = "restart"
[models.hedged]
targets = ["bill/silent", "bill/x"]
prices = { input = 2.5, output = 10 }
hedge = { after = 0.01, budget = 1.0 }
[models.moves]
targets = ["bill/silent", "bill/x"]
prices = { input = 2.5, output = 10 }
first_content = 0.5
[models.window]
targets = [{ provider = "bill", model = "x", context_window = 1000, max_output = 64, max_image_tokens = 77 }]
prices = { input = 2.5, output = 10, cache_write = 5 }
[models.boundless]
targets = [{ provider = "bill", model = "x" }]
prices = { input = 2.5, output = 10 }
"""


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Billing]:
    settings = {"SANIC_PROXY_BREAKER": "off", "SANIC_PROXY_ATTEMPTS": "4", "SANIC_PROXY_TOTAL_TIMEOUT": "60"}
    with running_billing(tmp_path_factory.mktemp("billing"), CLIENTS, workers=2, **settings) as started:
        yield started
    assert "Traceback" not in started.proxy.log


def sent(billing: Billing, id_: str, **fields: Any) -> int:
    metadata = {"id": id_, **fields.pop("metadata", {})}
    headers = {"x-request-id": id_, **fields.pop("headers", {})}
    return billing.post("app", metadata=metadata, headers=headers, **fields).status


def bills(billing: Billing, id_: str) -> list[int]:
    return [billed.nano for billed in billing.provider.billed if billed.request_id == id_]


def at_reservation(row: dict[str, Any]) -> bool:
    return bool(row["flags"] & ESTIMATED) and row["nano"] == row["reserved"] > 0


@pytest.mark.parametrize(("fault", "is_known"), [("cut", False), ("late", True)])
def test_a_stream_that_breaks_off(billing: Billing, fault: str, is_known: bool) -> None:
    sent(billing, fault, stream=True, metadata={"fault": fault})
    (row,) = billing.rows(fault)
    assert row["flags"] & CUT
    assert at_reservation(row) is not is_known
    if is_known:
        assert [row["nano"]] == bills(billing, fault)


@pytest.mark.parametrize(
    ("model", "is_known"), [("goes-on", False), ("goes-on-late", True), ("continued", True)]
)
def test_a_stream_that_goes_on_elsewhere(billing: Billing, model: str, is_known: bool) -> None:
    assert sent(billing, model, stream=True, model=model) == 200
    first, second = billing.rows(model, 2)
    billed = bills(billing, model)
    assert (second["nano"], second["flags"], second["outcome"]) == (billed[1], 0, "complete")
    assert first["flags"] & CUT
    assert at_reservation(first) is not is_known
    if is_known:
        assert first["nano"] == billed[0]


def test_a_stream_that_breaks_off_wherever_it_goes_on(billing: Billing) -> None:
    sent(billing, "all-late", stream=True, model="all-late")
    billed = bills(billing, "all-late")
    rows = billing.rows("all-late", len(billed))
    assert [row["nano"] for row in rows] == billed
    assert all(row["flags"] == CUT for row in rows)


@pytest.mark.parametrize("is_streaming", [True, False])
def test_an_attempt_that_was_slower_than_the_other(billing: Billing, is_streaming: bool) -> None:
    id_ = f"hedged{is_streaming}"
    assert sent(billing, id_, model="hedged", stream=is_streaming) == 200
    rows = {row["target"]: row for row in billing.rows(id_, 2)}
    assert at_reservation(rows["bill/silent"])
    assert rows["bill/silent"]["flags"] & HEDGE
    assert rows["bill/x"]["nano"] == bills(billing, id_)[1]


def test_an_attempt_without_content_in_time(billing: Billing) -> None:
    assert sent(billing, "moves", model="moves", stream=True) == 200
    first, second = billing.rows("moves", 2)
    assert at_reservation(first)
    assert (first["outcome"], second["nano"]) == ("upstream_timeout", bills(billing, "moves")[1])


def test_a_client_whose_time_is_over(billing: Billing) -> None:
    headers = {"x-stainless-timeout": "0.5", "x-stainless-retry-count": "0"}
    assert sent(billing, "timeout", metadata={"fault": "silent"}, headers=headers) == 504
    (row,) = billing.rows("timeout")
    assert at_reservation(row)


@pytest.mark.parametrize("fault", ["slow", "silent"])
@pytest.mark.parametrize("is_streaming", [True, False])
def test_a_client_that_leaves(billing: Billing, fault: str, is_streaming: bool) -> None:
    id_ = f"left-{fault}-{is_streaming}"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-request-id: {id_}\r\n"
        f"authorization: Bearer {KEY.format(name='app')}\r\ncontent-type: application/json\r\n"
    )
    body = f'{{"model": "m", "stream": {str(is_streaming).lower()}, "max_tokens": 64, '
    body += f'"messages": [{{"role": "user", "content": "Hi"}}], "metadata": {{"id": "{id_}", "fault": "'
    body += f'{fault if is_streaming else "silent"}"}}}}'
    with socket.create_connection(("127.0.0.1", billing.proxy.port)) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        wait_until(lambda: len(bills(billing, id_)) == 1)
        if is_streaming and fault == "slow":
            assert client.recv(1000)
    (row,) = billing.rows(id_)
    assert at_reservation(row)
    assert (row["outcome"], row["flags"]) == ("client_left", ESTIMATED | CUT)


def test_a_strict_budget_reserves_the_most_that_a_request_can_cost(billing: Billing) -> None:
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "Hi"},
        {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
    ]
    body = json.dumps({"model": "window", "messages": [{"role": "user", "content": content}]}).encode()
    assert posted(billing, "image", body) == (len(body) + 77) * 5_000 + 64 * 10_000
    # A stored file: the request can be as long as the window.
    content.append({"type": "file", "file": {"file_id": "file-1"}})
    body = json.dumps({"model": "window", "messages": [{"role": "user", "content": content}]}).encode()
    assert posted(billing, "file", body) == 1000 * 5_000 + 64 * 10_000


def posted(billing: Billing, id_: str, body: bytes) -> int:
    """What a request of the strict client has reserved."""
    headers = {"authorization": f"Bearer {KEY.format(name='strict')}", "x-request-id": id_}
    assert billing.proxy.request("POST", "/v1/chat/completions", body, headers).status == 200
    (row,) = billing.rows(id_)
    reserved: int = row["reserved"]
    return reserved


def test_a_strict_budget_names_the_setting_that_is_missing(billing: Billing) -> None:
    reply = billing.post("strict", model="boundless", max_tokens=None)
    assert (reply.status, reply.error["param"]) == (400, "max_tokens")
    assert "`max_output`" in reply.error["message"]
    content = [{"type": "file", "file": {"file_id": "file-1"}}]
    reply = billing.post("strict", model="boundless", messages=[{"role": "user", "content": content}])
    assert reply.status == 400
    assert "`context_window`" in reply.error["message"]


def test_a_provider_that_ignores_the_limit_overdraws(billing: Billing) -> None:
    ids = [f"over{number}" for number in range(20)]  # it writes up to 49 tokens, whatever it is asked for
    for id_ in ids:
        headers, metadata = {"x-request-id": id_}, {"id": id_}
        billing.post("strict", model="window", max_tokens=1, headers=headers, metadata=metadata)
    rows = [row for id_ in ids for row in billing.rows(id_)]
    over = [row for row in rows if row["nano"] > row["reserved"]]
    assert over
    assert all(bool(row["flags"] & OVERDRAFT) == (row in over) for row in rows)
    id_ = over[0]["request_id"]
    wait_until(lambda: f"request {id_} cost" in billing.proxy.log)
