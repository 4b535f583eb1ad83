"""Batches of clients with budgets at a real proxy: what they reserve, and what they cost in the end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance.leases import ESTIMATED, OVERDRAFT
from sanic_proxy.routes.batch_charging import MAX_LOOKS
from tests.support.load import wait_until
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.upstream import Exchange, Upstream

KEY = "sk-{}-0123456789abcdef"
SETTINGS = """
[providers.lab]
base_url = "{url}/v1"
api_key_env = "LAB_KEY"
[models.m]
targets = ["lab/m"]
max_output = 100
prices = {{ input = 2, output = 10, batch = {{ input = 1, output = 5 }} }}
[clients.app]
key_env = "APP_KEY"
endpoints = ["/files*", "/batches*"]
budget = {{ usd = 10, per = "day" }}
[clients.strict]
key_env = "STRICT_KEY"
endpoints = ["/files*", "/batches*"]
budget = {{ usd = 0.0018, strict = true }}
[clients.unlisted]
key_env = "UNLISTED_KEY"
budget = {{ usd = 10 }}
[clients.plain]
key_env = "PLAIN_KEY"
[clients.slow]
key_env = "SLOW_KEY"
endpoints = ["/files*", "/batches*"]
budget = {{ usd = 10 }}
rpm = 1
"""
MAX_UPLOAD_BYTES = 100_000
PLAIN = str.maketrans("[] ", "---")
NAMES = ("app", "strict", "unlisted", "plain", "slow")


def request_line(number: int, **body: Any) -> str:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, **body}
    return json.dumps(
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}
    )


def answer_line(number: int, given: int, made: int, **more: Any) -> str:
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    body = {"object": "chat.completion", "model": "m-2026-01-01", "usage": usage, "choices": []}
    response = {"status_code": 200, "request_id": f"q{number}", "body": body, **more}
    return json.dumps({"id": f"b{number}", "custom_id": f"r{number}", "response": response, "error": None})


ERROR = json.dumps({"custom_id": "r9", "response": None, "error": {"code": "batch_expired", "message": "no"}})
INPUT = "\n".join(request_line(number) for number in range(3)) + "\n"
OUTPUT = "\n".join((answer_line(0, 10, 20), ERROR, answer_line(1, 30, 40))) + "\n"
COST = (10 + 30) * 1_000 + (20 + 40) * 5_000
# A token per byte, and all of `max_tokens`.
MOST = len(INPUT.replace("\n", "")) * 1_000 + 3 * 50 * 5_000


class Batches:
    """A provider with one input file and batches whose state a test sets."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.made = self.reads = 0
        self.refuses = False
        self.serve("in", INPUT)
        upstream.on("POST /v1/batches", self._create)

    def serve(self, file: str, content: str, *, breaks: bool = False) -> None:
        async def script(exchange: Exchange) -> None:
            self.reads += 1
            data = content.encode()
            await exchange.head(200, ("content-length", str(len(data))), kind="application/octet-stream")
            await exchange.send(data[: len(data) // 2])
            if breaks:
                exchange.close()
            else:
                await exchange.send(data[len(data) // 2 :])

        self.upstream.on(f"GET /v1/files/{file}/content", script)

    def set(self, batch: str, status: str, **fields: Any) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.answer({"id": batch, "object": "batch", "status": status, **fields})

        self.upstream.on(f"GET /v1/batches/{batch}", script)

    async def _create(self, exchange: Exchange) -> None:
        if self.refuses:
            await exchange.answer({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
            return
        self.made += 1
        fields = {"object": "batch", "status": "validating", "completion_window": "24h"}
        await exchange.answer({"id": f"batch_{self.made}", **fields})


class Setup:
    """The proxy, its provider, and its state directory; `id_` is that of the requests that create batches."""

    def __init__(self, proxy: Proxy, batches: Batches, directory: Path) -> None:
        self.proxy = proxy
        self.batches = batches
        self.id_ = "made"
        self._file = directory / "state" / "state.sqlite"

    def request(self, method: str, path: str, body: object = None, client: str = "app", **more: str) -> Reply:
        headers = {"authorization": f"Bearer {KEY.format(client)}", "x-provider": "lab", **more}
        return self.proxy.request(method, f"/v1{path}", body, headers)

    def create(self, client: str = "app", file: str = "in") -> Reply:
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return self.request("POST", "/batches", body, client, **{"x-request-id": self.id_})

    def created(self, client: str = "app") -> str:
        """The id of a new batch, which is in the store."""
        reply = self.create(client)
        assert reply.status == 200, reply.body
        name: str = reply.json["id"]
        self.wait_for(name)
        return name

    def wait_for(self, batch: str) -> None:
        """Wait until a batch is in the store."""
        wait_until(lambda: bool(self.read("SELECT 1 FROM ledger_batch WHERE batch = ?", batch)))

    def completed(self, batch: str, output: str, client: str = "app", **faults: bool) -> None:
        """Have the client learn that a batch is complete, and fetch its output."""
        self.batches.set(batch, "completed", output_file_id=f"out-{batch}", error_file_id=None)
        self.batches.serve(f"out-{batch}", output, **faults)
        assert self.request("GET", f"/batches/{batch}", client=client).json["status"] == "completed"
        reply = self.request("GET", f"/files/out-{batch}/content", client=client)
        assert reply.body.decode() == output

    def has_tables(self) -> bool:
        return bool(self.read("SELECT 1 FROM sqlite_master WHERE name = 'ledger_worker'"))

    def read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file)) as connection:
            return connection.execute(sql, values).fetchall()

    def used(self, client: str = "app") -> int:
        found = self.read("SELECT used FROM budget_counter WHERE name = ?", client)
        return int(found[0][0]) if found else 0

    def row(self) -> tuple[Any, ...]:
        """The row of the batch, once it is there: outcome, cost, flags, reservation."""
        wait_until(lambda: bool(self.rows()))
        (row,) = self.rows()
        return row[:4]

    def rows(self) -> list[tuple[Any, ...]]:
        columns = "outcome, nano, flags, reserved, model, input, output"
        return self.read(f"SELECT {columns} FROM ledger_row WHERE request_id = ?", self.id_)

    def expire(self) -> None:
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute("UPDATE ledger_batch SET until_ms = 1")


@contextmanager
def running(directory: Path, batches: Batches, more: str = "") -> Iterator[Setup]:
    file = directory / "proxy.toml"
    file.write_text(SETTINGS.format(url=batches.upstream.url) + more)
    keys = {f"{name.upper()}_KEY": KEY.format(name) for name in NAMES}
    state = {"SANIC_PROXY_CONFIG": str(file), "SANIC_PROXY_STATE_DIR": str(directory / "state")}
    state["SANIC_PROXY_MAX_UPLOAD_BYTES"] = str(MAX_UPLOAD_BYTES)
    state["SANIC_PROXY_UNOWNED_FILES"] = ",".join(NAMES)  # the input files are the provider's
    with running_proxy({**keys, **state, "LAB_KEY": "sk-lab-0123456789"}, "--workers=2") as proxy:
        setup = Setup(proxy, batches, directory)
        wait_until(setup.has_tables)
        yield setup
    assert "Traceback" not in proxy.log


@pytest.fixture(scope="module")
def batches() -> Iterator[Batches]:
    upstream = Upstream()
    upstream.start()
    try:
        yield Batches(upstream)
    finally:
        upstream.stop()


@pytest.fixture(scope="module")
def started(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with running(tmp_path_factory.mktemp("batches"), batches) as setup:
        yield setup


@pytest.fixture
def setup(started: Setup, request: pytest.FixtureRequest) -> Setup:
    started.id_ = request.node.name.translate(PLAIN)[-60:]
    return started


def test_a_batch_costs_what_its_output_says(setup: Setup) -> None:
    before = setup.used()
    batch = setup.created()
    reserved = setup.used() - before
    assert 0 < reserved < MOST
    setup.batches.set(batch, "in_progress", output_file_id="too-early")
    setup.request("GET", f"/batches/{batch}")
    assert setup.rows() == []
    setup.completed(batch, OUTPUT)
    assert setup.row() == ("batch_completed", COST, 0, reserved)
    setup.completed(batch, OUTPUT)  # costs nothing more
    assert [row[4:] for row in setup.rows()] == [("m", 40, 60)]
    assert setup.used() - before == COST


def test_an_output_costs_the_same_for_a_client_that_never_asks_for_its_batch(setup: Setup) -> None:
    before = setup.used()
    gone, batch = setup.created(), setup.created()
    setup.batches.set(batch, "finalizing", output_file_id="unasked")
    setup.batches.serve("unasked", OUTPUT)
    reply = setup.request("GET", "/files/unasked/content")
    assert (reply.status, reply.error["param"]) == (400, "id")
    setup.batches.set(batch, "completed", output_file_id="unasked")
    setup.batches.set(gone, "failed")
    assert setup.request("GET", "/files/unasked/content").body.decode() == OUTPUT
    wait_until(lambda: len(setup.rows()) == 2)
    assert setup.used() - before == COST
    assert setup.request("GET", "/files/in/content").body.decode() == INPUT


def test_a_batch_whose_output_is_missing_stays_open(setup: Setup) -> None:
    batch = setup.created()
    reserved = setup.used()
    setup.batches.set(batch, "completed", request_counts={"total": 3, "completed": 2, "failed": 1})
    setup.request("GET", f"/batches/{batch}")
    assert (setup.rows(), setup.used()) == ([], reserved)
    setup.batches.set(batch, "completed", request_counts={"total": 3, "completed": 0, "failed": 3})
    setup.request("GET", f"/batches/{batch}")
    assert setup.row()[:2] == ("batch_completed", 0)


def test_what_is_fetched_in_part_is_not_booked_yet(setup: Setup) -> None:
    before = setup.used()
    batch = setup.created()
    reserved = setup.used() - before
    with pytest.raises((HTTPException, OSError)):
        setup.completed(batch, OUTPUT, breaks=True)
    assert setup.used() - before == reserved != COST
    assert setup.rows() == []
    setup.completed(batch, OUTPUT)
    assert setup.row() == ("batch_completed", COST, 0, reserved)
    assert setup.used() - before == COST


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_batch_that_has_ended_without_output_costs_nothing(setup: Setup, status: str) -> None:
    before = setup.used()
    batch = setup.created()
    setup.batches.set(batch, status, output_file_id=None)
    assert setup.used() > before
    setup.request("GET", f"/batches/{batch}")
    assert setup.row()[:3] == (f"batch_{status}", 0, 0)
    assert setup.used() == before


def test_a_list_of_batches_says_as_much(setup: Setup) -> None:
    before = setup.used()
    described = {"id": setup.created(), "object": "batch", "status": "failed"}

    async def script(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [{}, described]})

    setup.batches.upstream.on("GET /v1/batches", script)
    setup.request("GET", "/batches")
    assert setup.row()[:2] == ("batch_failed", 0)
    assert setup.used() == before


def test_a_strict_budget_reserves_the_most_that_a_batch_can_cost(setup: Setup) -> None:
    batch = setup.created("strict")
    assert setup.used("strict") == MOST
    # A second one would be beyond the budget, and waiting does not help.
    made = setup.batches.made
    reply = setup.create("strict")
    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
    assert reply.headers["x-should-retry"] == "false"
    assert setup.batches.made == made
    setup.completed(batch, answer_line(0, 10_000, 100_000), "strict")
    assert setup.row() == ("batch_completed", 510_000_000, OVERDRAFT, MOST)
    wait_until(lambda: f"batch {batch} cost 510000000 nano-dollars" in setup.proxy.log)


@pytest.mark.parametrize(
    "lines",
    [[answer_line(0, 1, 1), "no JSON"], [answer_line(0, 1, 1, body={"choices": []})]],
    ids=["odd", "without usage"],
)
def test_an_answer_without_usage_makes_the_batch_cost_its_reservation(setup: Setup, lines: list[str]) -> None:
    before = setup.used()
    batch = setup.created()
    reserved = setup.used() - before
    setup.completed(batch, "\n".join(lines))
    assert setup.row() == ("batch_completed", reserved, ESTIMATED, reserved)


def test_what_a_batch_needs(setup: Setup) -> None:
    made = setup.batches.made
    reply = setup.create("unlisted")
    assert (reply.status, reply.error["code"]) == (403, "endpoint_not_allowed")
    for content, status, code in (
        (request_line(0, model="unknown"), 403, "price_unknown"),
        ("{}", 400, None),
        ("[1", 400, None),
    ):
        setup.batches.serve("odd", content)
        reply = setup.create(file="odd")
        assert (reply.status, reply.error["code"]) == (status, code)
    assert setup.create(file="missing").status == 404
    for file in ("", "in?x", "a/b"):
        reply = setup.create(file=file)
        assert (reply.status, reply.error["param"]) == (400, "input_file_id")
    assert setup.batches.made == made
    assert setup.created()  # the provider is not believed to have failed


def test_no_input_is_read_that_the_rates_do_not_admit(setup: Setup) -> None:
    assert setup.create("slow").status == 200
    read = setup.batches.reads
    reply = setup.create("slow")
    assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
    assert setup.batches.reads == read


def test_a_client_reads_one_input_at_a_time(setup: Setup) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await asyncio.to_thread(go_on.wait)
        await exchange.answer(INPUT.encode())

    setup.batches.upstream.on("GET /v1/files/held/content", script)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(setup.create, file="held")
        try:
            assert arrived.wait(30)
            refused = setup.create()
            other = setup.create("strict", file="missing")
        finally:
            go_on.set()
        setup.wait_for(first.result().json["id"])
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.error["message"].startswith("Rate limit of batch input app reached")
    assert other.status == 404  # it was read
    assert setup.created()


def test_an_input_has_a_limit(setup: Setup) -> None:
    setup.batches.serve("large", "\n" * (MAX_UPLOAD_BYTES + 1))
    reply = setup.create(file="large")
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


def test_a_batch_that_is_refused_costs_nothing(setup: Setup) -> None:
    before = setup.used()
    setup.batches.refuses = True
    try:
        assert setup.create().status == 400
    finally:
        setup.batches.refuses = False
    assert setup.row()[1] == 0
    assert setup.used() == before


def test_a_batch_without_a_budget_is_booked_by_its_output(setup: Setup) -> None:
    read = setup.batches.reads
    batch = setup.created("plain")
    assert setup.batches.reads == read
    setup.completed(batch, answer_line(0, 10, 20), "plain")
    assert setup.row()[::3] == ("batch_completed", 0)


def test_a_client_with_many_batches_has_to_ask_for_the_one_whose_output_it_wants(setup: Setup) -> None:
    created = [setup.create("plain").json["id"] for _ in range(MAX_LOOKS + 1)]
    for batch in created:
        setup.wait_for(batch)
        setup.batches.set(batch, "in_progress")
    last = created[-1]
    setup.batches.set(last, "completed", output_file_id="of-last")
    setup.batches.serve("of-last", OUTPUT)
    reply = setup.request("GET", "/files/of-last/content", client="plain")
    assert (reply.status, reply.error["param"]) == (400, "id")
    setup.completed(last, OUTPUT, "plain")


OF_MODELS = """
[models.small]
targets = ["lab/small"]
prices = { input = 2, output = 10 }
budget = { usd = 0.001 }
"""


def test_a_batch_counts_in_the_budgets_of_its_models(batches: Batches, tmp_path: Path) -> None:
    batches.serve("small", request_line(0, model="small") + "\n" + request_line(1, model="unpriced"))
    batches.serve("large", request_line(0, model="small", messages="x" * 4000))
    with running(tmp_path, batches, OF_MODELS) as setup:
        assert setup.create("plain", "small").status == 200
        wait_until(lambda: setup.used("small") > 0)
        made = batches.made
        reply = setup.create("app", "large")
        assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
        assert "model small" in reply.error["message"]
        assert batches.made == made


def test_a_batch_survives_restarts_and_is_booked_in_the_end(batches: Batches, tmp_path: Path) -> None:
    with running(tmp_path, batches) as first:
        batch, other = first.created(), first.created()
        reserved = first.used() // 2
    with running(tmp_path, batches) as second:
        assert second.used() == 2 * reserved
        second.completed(batch, OUTPUT)
        assert second.row() == ("batch_completed", COST, 0, reserved)
        assert second.used() == reserved + COST
        second.expire()
    with running(tmp_path, batches) as third:  # which looks when it starts, and then every hour
        wait_until(lambda: len(third.rows()) == 2)
        assert third.rows()[1][:4] == ("batch_not_fetched", reserved, ESTIMATED, reserved)
        batches.set(other, "failed")
        third.request("GET", f"/batches/{other}")
        assert third.used() == reserved + COST
        wait_until(lambda: "1 batches were not fetched" in second.proxy.log + third.proxy.log)
