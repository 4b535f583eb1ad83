"""Responses over a websocket, through real proxies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from openai.types.responses import ResponseErrorEvent
from websockets.exceptions import InvalidStatusCode

from tests.support import messages
from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.response_websocket import Socket, open_socket
from tests.support.responses import judge_stream
from tests.support.stored_responses import echo, settings_for
from tests.support.upstream import Exchange, Upstream, straico_completion, text_stream

KEYS = {"SANIC_PROXY_API_KEYS": "key-of-a-0123,key-of-b-0123"}
PREVIOUS = "previous_response_id"
MESSAGE = b"".join([messages.start(), *messages.text_block(0, "Hel", "lo"), *messages.stop()])


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = settings_for(shared_upstream, SANIC_PROXY_MAX_BODY_BYTES="100000")
    with running_proxy(settings, "--workers", "2") as started:
        yield started
        log = started.log
    assert "Traceback" not in log


@pytest.fixture(autouse=True)
def scripts(upstream: Upstream) -> None:
    upstream.on("g", echo)


def talk(proxy: Proxy, use: Callable[[Socket], Awaitable[Any]], **options: Any) -> Any:
    async def work() -> Any:
        async with open_socket(proxy, **options) as socket:
            return await use(socket)

    return asyncio.run(work())


def text_of(event: dict[str, Any]) -> str:
    assert event["type"] == "response.completed", event
    text: str = event["response"]["output"][0]["content"][0]["text"]
    return text


def code_of(event: dict[str, Any]) -> tuple[int, str]:
    """The status and code of an error, which has the fields of the HTTP error and of an error event."""
    ResponseErrorEvent.model_validate(event)
    assert event["type"] == "error"
    assert event["error"]["message"] == event["message"]
    return event["status"], event["error"]["code"]


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
def test_responses_are_made_one_after_the_other(front: Proxy, path: str) -> None:
    async def use(socket: Socket) -> None:
        for number in range(3):
            await socket.send(input_=f"Hi {number}")
        for number in range(3):
            events = await socket.events()
            judge_stream(events)
            assert text_of(events[-1]) == f"Hi {number}"

    talk(front, use, path=path)
    front.wait_for_log("status=101")


def test_streams_share_a_connection(front: Proxy, upstream: Upstream) -> None:
    """Their events have their names; a stream continues what another one has begun."""
    upstream.on("none", lambda exchange: exchange.answer({"error": {"message": "no"}}, 404))

    async def use(socket: Socket) -> None:
        latest: dict[str, str] = {}
        events: list[dict[str, Any]] = []
        for name in ("a", "b", "a"):
            fields = {PREVIOUS: latest[name]} if name in latest else {}
            await socket.send(input_=name, store=False, stream_id=name, **fields)
            events = await socket.events()
            assert {event.pop("stream_id") for event in events} == {name}
            judge_stream(events)
            latest[name] = events[-1]["response"]["id"]
        assert text_of(events[-1]) == "a|a|a"
        fork = await socket.create(input_="c", store=False, stream_id="c", **{PREVIOUS: latest["b"]})
        assert (text_of(fork), fork["stream_id"]) == ("b|b|c", "c")
        refused = await socket.create("groq/none", stream_id="c")
        assert (refused["type"], refused["stream_id"]) == ("error", "c")
        wrong = await socket.create(stream_id=5)
        assert (wrong["error"]["param"], "stream_id" in wrong) == ("stream_id", False)
        plain = await socket.create(input_="d")
        assert "stream_id" not in plain

    talk(front, use)


def test_responses_of_several_streams_are_made_at_the_same_time(front: Proxy, upstream: Upstream) -> None:
    """The first answer waits for the second request; the third, of the first stream, for the first answer."""
    asked: list[str] = []
    second_came = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        text = exchange.seen.json["messages"][-1]["content"]
        asked.append(text)
        if text == "second":
            second_came.set()
        await asyncio.wait_for(second_came.wait(), 60)
        await exchange.stream(text_stream(text))

    upstream.on("slow", answer)

    async def use(socket: Socket) -> None:
        for stream, text in (("a", "first"), ("b", "second"), ("a", "third")):
            await socket.send("groq/slow", input_=text, store=False, stream_id=stream)
        ends: dict[str, list[str]] = {"a": [], "b": []}
        while len(ends["a"]) < 2 or not ends["b"]:
            event = await socket.event()
            if event["type"] == "response.completed":
                ends[event["stream_id"]].append(text_of(event))
            assert event["type"] != "error"
        assert ends == {"a": ["first", "third"], "b": ["second"]}

    talk(front, use)
    assert asked.index("first") < asked.index("third")
    assert sorted(asked) == ["first", "second", "third"]


def test_a_client_that_leaves_ends_the_responses_of_all_streams(front: Proxy, upstream: Upstream) -> None:
    left: list[str] = []

    async def silent(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.client_leaves()
        left.append(exchange.seen.json["messages"][-1]["content"])

    upstream.on("silent", silent)

    async def use(socket: Socket) -> None:
        for stream in ("a", "b"):
            await socket.send("groq/silent", input_=stream, store=False, stream_id=stream)
        await asyncio.to_thread(wait_until, lambda: len(upstream.seen("silent")) == 2)

    talk(front, use)
    wait_until(lambda: sorted(left) == ["a", "b"])


@pytest.mark.parametrize("model", ["groq/g", "straico/openai/g", "anthropic/m"])
def test_every_dialect_answers(front: Proxy, upstream: Upstream, model: str) -> None:
    upstream.on("m", lambda exchange: exchange.stream([MESSAGE]))
    upstream.on("openai/g", lambda exchange: exchange.answer(straico_completion("Hi")))

    async def use(socket: Socket) -> None:
        await socket.send(model)
        assert text_of(judge_and_last(await socket.events())) in {"Hi", "Hello"}

    talk(front, use)


def judge_and_last(events: list[dict[str, Any]]) -> dict[str, Any]:
    judge_stream(events)
    return events[-1]


@pytest.mark.parametrize("store", [True, False])
def test_a_connection_continues_its_latest_response(front: Proxy, *, store: bool) -> None:
    async def use(socket: Socket) -> str:
        made = await socket.create(input_="0", store=store)
        assert made["response"]["store"] is store
        made = await socket.create(input_="1", store=store, **{PREVIOUS: made["response"]["id"]})
        assert text_of(made) == "0|0|1"
        made = await socket.create(input_="2", store=store, **{PREVIOUS: made["response"]["id"]})
        assert text_of(made) == "0|0|1|0|0|1|2"
        id_: str = made["response"]["id"]
        return id_

    id_ = talk(front, use)
    found = front.request("GET", f"/v1/responses/{id_}")
    assert found.status == (200 if store else 404)
    again = talk(front, lambda socket: socket.create(input_="3", **{PREVIOUS: id_}))
    if store:
        assert text_of(again).endswith("|2|0|0|1|0|0|1|2|3")
    else:
        assert code_of(again) == (400, "previous_response_not_found")
        assert text_of(talk(front, lambda socket: socket.create(input_="3", store=False))) == "3"


def test_a_response_that_was_not_stored_may_be_stored_with_its_continuation(front: Proxy) -> None:
    async def use(socket: Socket) -> str:
        made = await socket.create(input_="0", store=False)
        made = await socket.create(input_="1", **{PREVIOUS: made["response"]["id"]})
        id_: str = made["response"]["id"]
        return id_

    id_ = talk(front, use)
    body = {"model": "groq/g", "input": "2", PREVIOUS: id_}
    reply = front.request("POST", "/v1/responses", body)
    assert reply.json["output"][0]["content"][0]["text"] == "0|0|1|0|0|1|2"


def test_a_failed_continuation_forgets_what_it_continued(front: Proxy, upstream: Upstream) -> None:
    async def use(socket: Socket) -> None:
        made = await socket.create(store=False)
        follow = {PREVIOUS: made["response"]["id"], "store": False}
        assert code_of(await socket.create(input_=5, **follow))[0] == 400
        assert code_of(await socket.create(**follow)) == (400, "previous_response_not_found")

        made = await socket.create(store=False)
        follow = {PREVIOUS: made["response"]["id"], "store": False}
        failed = await socket.create("groq/cut", **follow)
        assert failed["type"] == "response.failed"
        assert code_of(await socket.create(**follow)) == (400, "previous_response_not_found")
        assert text_of(await socket.create()) == "Hi"

    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(text_stream("Hel")[:2]))
        exchange.close()

    upstream.on("cut", cut)
    talk(front, use)


def test_a_request_that_only_prepares_asks_no_model(front: Proxy, upstream: Upstream) -> None:
    async def use(socket: Socket) -> None:
        before = len(upstream.requests)
        made = await socket.create(input_="0", generate=False)
        assert (made["type"], made["response"]["output"]) == ("response.completed", [])
        assert len(upstream.requests) == before
        made = await socket.create(input_="1", **{PREVIOUS: made["response"]["id"]})
        assert text_of(made) == "0|1"

    talk(front, use)


def test_a_native_provider_is_asked_with_the_whole_conversation_if_it_stores_nothing(
    front: Proxy, upstream: Upstream
) -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    response = {"id": "resp_n", "status": "completed", "output": [thought, item]}
    last = {"type": "response.completed", "response": response}
    stream = b"event: response.completed\ndata: %b\n\n" % json.dumps(last).encode()
    upstream.on("m", lambda exchange: exchange.stream([stream]))

    async def use(socket: Socket) -> None:
        assert await socket.create("openai/m", "0", store=False) == last
        await socket.create("openai/m", "1", store=False, **{PREVIOUS: "resp_n"})

    talk(front, use)
    sent = upstream.requests[-1].json
    assert [given["role"] for given in sent["input"]] == ["user", "assistant", "user"]
    assert PREVIOUS not in sent
    assert sent["stream"] is True


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("{", 400),
        ("[]", 400),
        (b"{}", 400),
        ('{"type":"response.append"}', 400),
        ('{"type":"response.create"}', 400),
        ('{"type":"response.create","model":"none/x","input":"x"}', 404),
        ('{"type":"response.create","model":"groq/g","input":"x","background":true}', 400),
        ('{"type":"response.create","model":"groq/g","input":"x","previous_response_id":"resp_none"}', 400),
        ('{"type":"response.create","model":"groq/none","input":"x"}', 404),
    ],
)
def test_a_wrong_event_is_an_error_and_the_connection_goes_on(
    front: Proxy, message: str | bytes, status: int
) -> None:
    async def use(socket: Socket) -> None:
        await socket.connection.send(message)
        (event,) = await socket.events()
        assert code_of(event)[0] == status
        assert text_of(await socket.create()) == "Hi"

    talk(front, use)


@pytest.mark.row(44)
def test_a_message_that_is_too_large_closes_the_connection(front: Proxy) -> None:
    async def use(socket: Socket) -> int | None:
        await socket.send(input_="x" * 100_001)
        return await socket.closed()

    assert talk(front, use) == 1009


def test_a_plain_request_is_told_what_to_do(front: Proxy) -> None:
    reply = front.request("GET", "/v1/responses")
    assert reply.status == 404
    assert "POST" in reply.json["error"]["message"]


@pytest.mark.row(40)
def test_a_client_that_leaves_takes_its_response_along(front: Proxy, upstream: Upstream) -> None:
    left = []

    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(text_stream("Hel")[0] + text_stream("Hel")[1])
        await exchange.client_leaves()
        left.append(exchange)

    upstream.on("endless", endless)

    async def use(socket: Socket) -> None:
        await socket.send("groq/endless")
        await socket.connection.recv()
        socket.connection.transport.abort()

    talk(front, use)
    front.wait_for_log("client_left")


def test_keys_count_and_clients_are_apart(upstream: Upstream) -> None:
    with running_proxy(settings_for(upstream, **KEYS)) as proxy:
        with pytest.raises(InvalidStatusCode) as refused:
            talk(proxy, lambda socket: socket.create())
        assert refused.value.status_code == 401
        mine, other = ({"authorization": f"Bearer key-of-{name}-0123"} for name in "ab")
        made = talk(proxy, lambda socket: socket.create(), headers=mine)["response"]["id"]
        follow = {PREVIOUS: made}
        assert text_of(talk(proxy, lambda socket: socket.create(**follow), headers=mine)) == "Hi|Hi|Hi"
        refusal = talk(proxy, lambda socket: socket.create(**follow), headers=other)
        assert code_of(refusal) == (400, "previous_response_not_found")
        assert "client=" in proxy.log


def test_without_a_store_a_connection_still_remembers(upstream: Upstream) -> None:
    async def use(socket: Socket) -> None:
        made = await socket.create()
        follow = {PREVIOUS: made["response"]["id"]}
        assert text_of(await socket.create(**follow)) == "Hi|Hi|Hi"
        assert code_of(await socket.create(**follow)) == (400, "previous_response_not_found")

    with running_proxy(settings_for(upstream, SANIC_PROXY_RESPONSE_STORE="off")) as proxy:
        talk(proxy, use)


def test_an_idle_connection_is_closed(upstream: Upstream) -> None:
    with running_proxy(settings_for(upstream, SANIC_PROXY_TIMEOUT_WEBSOCKET="0.5")) as proxy:
        assert talk(proxy, Socket.closed) == 1000


@pytest.mark.row(60)
def test_a_websocket_counts_only_while_it_makes_a_response(upstream: Upstream) -> None:
    go_on: list[Exchange] = []

    async def slow(exchange: Exchange) -> None:
        go_on.append(exchange)
        await asyncio.to_thread(wait_until, lambda: len(go_on) > 1)
        await echo(exchange)

    upstream.on("slow", slow)

    async def use(proxy: Proxy) -> None:
        async with open_socket(proxy) as first, open_socket(proxy) as second:
            await first.send("groq/slow")
            await asyncio.to_thread(wait_until, lambda: bool(go_on))
            assert code_of(await second.create()) == (503, "server_overloaded")
            go_on.append(go_on[0])
            assert text_of((await first.events())[-1]) == "Hi"
            assert text_of(await second.create()) == "Hi"

    with running_proxy(settings_for(upstream, SANIC_PROXY_MAX_CONCURRENT="1")) as proxy:
        asyncio.run(use(proxy))


@pytest.mark.row(64)
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_drain_closes_a_connection_behind_its_response(upstream: Upstream, *, is_busy: bool) -> None:
    go_on: list[Exchange] = []

    async def slow(exchange: Exchange) -> None:
        go_on.append(exchange)
        await asyncio.to_thread(wait_until, lambda: len(go_on) > 1)
        await echo(exchange)

    upstream.on("slow", slow)

    async def use(socket: Socket) -> None:
        if is_busy:
            await socket.send("groq/slow")
            await asyncio.to_thread(wait_until, lambda: bool(go_on))
        proxy.terminate()
        if is_busy:
            await asyncio.to_thread(proxy.wait_for_log, "Stopping worker")
            go_on.append(go_on[0])
            assert text_of((await socket.events())[-1]) == "Hi"
        assert await socket.closed() == 1001

    with running_proxy(settings_for(upstream), "--workers", "1") as proxy:
        talk(proxy, use)
        assert proxy.process.wait(60) == 0


@pytest.mark.row(65)
def test_a_response_that_outlasts_the_drain_fails(upstream: Upstream) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(text_stream("Hel")[0] + text_stream("Hel")[1])
        await exchange.client_leaves()

    upstream.on("endless", endless)

    async def use(socket: Socket) -> None:
        await socket.send("groq/endless")
        await socket.connection.recv()
        proxy.terminate()
        events = await socket.events()
        assert events[-1]["type"] == "response.failed"
        assert await socket.closed() == 1001

    with running_proxy(settings_for(upstream, SANIC_PROXY_DRAIN_SECONDS="1"), "--workers", "1") as proxy:
        talk(proxy, use)
