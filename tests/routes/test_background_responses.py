"""Background responses through real proxies: polled, cancelled and lost, in every worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.responses import events_of, judge_response, judge_stream
from tests.support.stored_responses import client_of, echo, settings_for
from tests.support.upstream import Exchange, Upstream, completion

UNFINISHED = {"queued", "in_progress"}
LOST_S = 60.0  # a lease is over much sooner


class Slow:
    """A chat that is answered when `go_on` has been set; `left` counts the requests that were given up."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.asked = self.left = 0
        self.is_going_on = False

    async def __call__(self, exchange: Exchange) -> None:
        self.asked += 1
        reading = asyncio.create_task(exchange.reader.read(1))
        while not self.is_going_on:
            if reading.done():
                self.left += 1
                exchange.close()
                return
            await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait({reading})
        await echo(exchange)


@pytest.fixture
def slow(upstream: Upstream) -> Slow:
    script = Slow(upstream)
    upstream.on("slow", script)
    upstream.on("g", echo)
    return script


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = settings_for(shared_upstream, SANIC_PROXY_BACKGROUND_RESPONSES="1")
    with running_proxy(settings, "--workers", "2") as started:
        yield started
        log = started.log
    assert "Traceback" not in log


@pytest.fixture
def client(front: Proxy) -> Iterator[OpenAI]:
    with client_of(front) as made:
        yield made


def begin(proxy: Proxy, model: str = "groq/slow", **fields: Any) -> str:
    """Create a background response by a connection of its own: its id."""
    body = {"model": model, "input": "Hi", "background": True, **fields}
    reply = proxy.request("POST", "/v1/responses", body)
    assert reply.status == 200, reply.body
    judge_response(reply.json)
    assert (reply.json["status"], reply.json["background"]) == ("queued", True)
    id_: str = reply.json["id"]
    assert found(proxy, id_)["id"] == id_
    return id_


def found(proxy: Proxy, id_: str) -> dict[str, Any]:
    reply = proxy.request("GET", f"/v1/responses/{id_}")
    assert reply.status == 200, reply.body
    judge_response(reply.json)
    response: dict[str, Any] = reply.json
    return response


def finished(proxy: Proxy, id_: str) -> dict[str, Any]:
    """The response once it is finished, which every worker shows from then on."""
    wait_until(lambda: found(proxy, id_)["status"] not in UNFINISHED, LOST_S)
    response = found(proxy, id_)
    assert all(found(proxy, id_) == response for _ in range(6))
    return response


def test_a_background_response_is_polled_and_continued(front: Proxy, client: OpenAI, slow: Slow) -> None:
    id_ = begin(front, instructions="Be brief")
    wait_until(lambda: slow.asked == 1, LOST_S)
    assert client.responses.retrieve(id_).status == "in_progress"
    with pytest.raises(BadRequestError, match="in_progress"):
        client.responses.create(model="groq/g", input="x", previous_response_id=id_)
    slow.is_going_on = True
    response = finished(front, id_)
    assert (response["id"], response["status"], response["background"]) == (id_, "completed", True)
    assert response["instructions"] == "Be brief"
    assert client.responses.retrieve(id_).output_text == "Be brief|Hi"
    assert client.responses.cancel(id_).status == "completed"
    follow = client.responses.create(model="groq/g", input="x", previous_response_id=id_)
    assert follow.output_text == "Hi|Be brief|Hi|x"
    (item,) = client.responses.input_items.list(id_)
    assert item.type == "message"


def test_a_cancelled_response_ends_in_every_worker(front: Proxy, client: OpenAI, slow: Slow) -> None:
    for number in range(1, 5):
        id_ = begin(front)
        wait_until(lambda number=number: slow.asked == number, LOST_S)  # type: ignore[misc]
        assert client.responses.cancel(id_).status == "cancelled"
        wait_until(lambda number=number: slow.left == number, LOST_S)  # type: ignore[misc]
        assert finished(front, id_)["status"] == "cancelled"
        assert client.responses.cancel(id_).status == "cancelled"


def test_deleting_a_response_ends_it(front: Proxy, client: OpenAI, slow: Slow) -> None:
    id_ = begin(front)
    wait_until(lambda: slow.asked == 1, LOST_S)
    client.responses.delete(id_)
    wait_until(lambda: slow.left == 1, LOST_S)
    assert front.request("GET", f"/v1/responses/{id_}").status == 404


def streamed(proxy: Proxy, id_: str, query: str = "") -> list[dict[str, Any]]:
    reply = proxy.request("GET", f"/v1/responses/{id_}?stream=true{query}")
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply.body)


def judged(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response of a background response's stream."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    others = [event for event in events if event["type"] != "response.queued"]
    assert len(others) == len(events) - 1
    return judge_stream([{**event, "sequence_number": at} for at, event in enumerate(others)])


def test_the_events_of_a_background_response(front: Proxy, client: OpenAI, slow: Slow) -> None:
    """Streamed at once and from any event on, by any worker, and again when all is over."""
    with client.responses.create(model="groq/slow", input="Hi", background=True, stream=True) as begun:
        seen = [json.loads(next(begun).to_json()) for _ in range(3)]
    id_ = seen[0]["response"]["id"]
    assert [event["type"].partition(".")[2] for event in seen] == ["created", "queued", "in_progress"]
    with client.responses.retrieve(id_, stream=True, starting_after=1) as stream:
        assert next(stream).sequence_number == 2
        slow.is_going_on = True
        following = [event.sequence_number for event in stream]
    assert following == list(range(3, 3 + len(following)))
    assert slow.left == 0, "the client of the first stream has left, and the response with it"
    events = streamed(front, id_)
    assert len(events) == 3 + len(following)
    assert judged(events) == found(front, id_)
    for after in range(len(events)):
        assert streamed(front, id_, f"&starting_after={after}") == events[after + 1 :]
    wrong = front.request("GET", f"/v1/responses/{id_}?stream=true&starting_after=x")
    assert (wrong.status, wrong.error["param"]) == (400, "starting_after")


def test_the_events_of_a_response_that_fails_or_is_deleted(front: Proxy, client: OpenAI, slow: Slow) -> None:
    *_, last = client.responses.create(model="groq/none", input="Hi", background=True, stream=True)
    assert last.type == "response.failed"
    assert found(front, last.response.id)["status"] == "failed"
    id_ = begin(front)
    with client.responses.retrieve(id_, stream=True) as stream:
        assert next(stream).type == "response.created"
        client.responses.delete(id_)
        *_, last = stream
    assert last.type == "response.failed"
    assert "deleted" in ((last.response.error and last.response.error.message) or "")


def test_a_failure_is_the_responses_own(front: Proxy, slow: Slow) -> None:
    response = finished(front, begin(front, "groq/none"))
    assert response["status"] == "failed"
    assert response["error"]["code"] in {"invalid_prompt", "server_error"}
    front.wait_for_log("method=BACKGROUND")


@pytest.mark.parametrize(("fields", "param"), [({"store": False}, "store"), ({"input": 5}, "input")])
def test_a_wrong_request_is_rejected_at_once(
    front: Proxy, slow: Slow, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "groq/slow", "input": "Hi", "background": True, **fields}
    reply = front.request("POST", "/v1/responses", body)
    assert (reply.status, reply.json["error"]["param"]) == (400, param)


@pytest.mark.row(60)
def test_there_is_a_limit_of_count_and_time(upstream: Upstream, slow: Slow) -> None:
    settings = settings_for(
        upstream, SANIC_PROXY_BACKGROUND_RESPONSES="1", SANIC_PROXY_TIMEOUT_BACKGROUND="2"
    )
    with running_proxy(settings) as proxy:
        id_ = begin(proxy)
        body = {"model": "groq/slow", "input": "Hi", "background": True}
        refused = proxy.request("POST", "/v1/responses", body)
        assert (refused.status, refused.json["error"]["code"]) == (503, "server_overloaded")
        response = finished(proxy, id_)
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert "2 s" in response["error"]["message"]
        slow.is_going_on = True
        assert finished(proxy, begin(proxy))["status"] == "completed"


@pytest.mark.row(62)
def test_a_response_whose_worker_is_killed_has_failed(upstream: Upstream, slow: Slow) -> None:
    with running_proxy(settings_for(upstream), "--workers", "2") as proxy:
        ids = [begin(proxy) for _ in range(4)]
        wait_until(lambda: slow.asked == 4, LOST_S)
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        proxy.wait_for_log("Worker ready", 4)
        for id_ in ids:
            response = finished(proxy, id_)
            assert (response["status"], response["error"]["code"]) == ("failed", "server_error")


@pytest.mark.row(64)
@pytest.mark.parametrize("drain_s", ["60", "1"])
def test_a_worker_that_stops_waits_for_its_responses(
    upstream: Upstream, slow: Slow, drain_s: str, tmp_path: Any
) -> None:
    disk = {"SANIC_PROXY_RESPONSE_STORE": "sqlite", "SANIC_PROXY_STATE_DIR": str(tmp_path)}
    settings = settings_for(upstream, SANIC_PROXY_DRAIN_SECONDS=drain_s, **disk)
    with running_proxy(settings, "--workers", "1") as proxy:
        id_ = begin(proxy)
        wait_until(lambda: slow.asked == 1, LOST_S)
        proxy.terminate()
        proxy.wait_for_log("Stopping worker")
        slow.is_going_on = drain_s == "60"
        assert proxy.process.wait(LOST_S) == 0
    with running_proxy(settings) as proxy:
        response = found(proxy, id_)
    assert response["status"] == ("completed" if drain_s == "60" else "failed")


def test_a_provider_that_speaks_responses_runs_them_itself(front: Proxy, upstream: Upstream) -> None:
    queued = b'{"id":"resp_b","object":"response","status":"queued","output":[]}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(queued)

    upstream.on("m", script)
    upstream.on("GET /oai/v1/responses/resp_b", script)
    upstream.on("POST /oai/v1/responses/resp_b/cancel", script)
    body = {"model": "openai/m", "input": "Hi", "background": True}
    assert front.request("POST", "/v1/responses", body).body == queued
    assert upstream.requests[-1].json["background"] is True
    assert front.request("GET", "/v1/responses/resp_b").body == queued
    assert front.request("POST", "/v1/responses/resp_b/cancel").body == queued


@pytest.mark.row(81)
def test_a_result_that_is_too_large_fails_and_drops_no_other_response(front: Proxy, slow: Slow) -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.answer(completion("x" * (17 * 2**20)))

    kept = finished(front, begin(front, "groq/g"))
    slow.upstream.on("large", large)
    response = finished(front, begin(front, "groq/large"))
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "16 MiB" in response["error"]["message"]
    assert found(front, kept["id"]) == kept


@pytest.mark.row(72)
def test_a_store_that_fails_does_not_hide_the_end_of_a_response(
    upstream: Upstream, slow: Slow, tmp_path: Any
) -> None:
    disk = {"SANIC_PROXY_RESPONSE_STORE": "sqlite", "SANIC_PROXY_STATE_DIR": str(tmp_path)}
    with running_proxy(settings_for(upstream, SANIC_PROXY_BACKGROUND_RESPONSES="1", **disk)) as proxy:
        begin(proxy)
        wait_until(lambda: slow.asked == 1, LOST_S)
        with contextlib.closing(sqlite3.connect(tmp_path / "responses.sqlite")) as database:
            database.execute("DROP TABLE response_content")
            database.commit()
        slow.is_going_on = True
        proxy.wait_for_log("method=BACKGROUND")
        proxy.wait_for_log("a background response could not be stored")
        assert "Traceback" not in proxy.log


def test_a_result_with_a_lone_surrogate_can_be_continued(front: Proxy, slow: Slow) -> None:
    slow.upstream.on("cut", lambda exchange: exchange.answer(json.dumps(completion("Hi \ud83d")).encode()))
    response = finished(front, begin(front, "groq/cut"))
    assert response["output"][0]["content"][0]["text"] == "Hi \ufffd"
    body = {"model": "groq/g", "input": "x", "previous_response_id": response["id"]}
    assert front.request("POST", "/v1/responses", body).status == 200
