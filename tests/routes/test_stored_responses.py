"""Stored responses through real proxies with several workers, by openai-python's own calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.responses import ResponseInputItemParam
from openai.types.responses.response_input_item_param import ItemReference

from tests.support.proxy import Proxy, running_proxy
from tests.support.responses import events_of, judge_response, judge_stream
from tests.support.stored_responses import client_of, echo, settings_for
from tests.support.upstream import Exchange, Upstream, completion, frame, text_stream

TRIES = 12  # connections enough for the kernel to have given some to each worker
PREVIOUS = "previous_response_id"
KEYS = ("key-of-a-0123", "key-of-b-0123")


@contextlib.contextmanager
def proxy_at(upstream: Upstream, *arguments: str, **settings: str) -> Iterator[Proxy]:
    with running_proxy(settings_for(upstream, **settings), *arguments) as started:
        yield started
        log = started.log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    with proxy_at(shared_upstream, "--workers", "2") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def two_clients(shared_upstream: Upstream) -> Iterator[Proxy]:
    """A proxy that keeps what its two clients store apart."""
    with proxy_at(shared_upstream, SANIC_PROXY_API_KEYS=",".join(KEYS)) as proxy:
        yield proxy


@pytest.fixture
def client(front: Proxy, upstream: Upstream) -> Iterator[OpenAI]:
    upstream.on("g", echo)
    with client_of(front) as made:
        yield made


def create(proxy: Proxy, model: str = "groq/g", input_: object = "Hi", **fields: Any) -> dict[str, Any]:
    """A response by a connection of its own, so by any worker."""
    reply = proxy.request("POST", "/v1/responses", {"model": model, "input": input_, **fields})
    assert reply.status == 200, reply.body
    if not fields.get("stream"):
        judge_response(reply.json)
        response: dict[str, Any] = reply.json
        return response
    return judge_stream(events_of(reply.body.replace(b": ping\n", b"")))


def text_of(response: dict[str, Any]) -> str:
    text: str = response["output"][0]["content"][0]["text"]
    return text


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_there_at_once_in_every_worker(front: Proxy, client: OpenAI, *, stream: bool) -> None:
    for number in range(TRIES):
        made = create(front, input_=f"Hi {number}", stream=stream)
        assert made["store"] is True
        found = front.request("GET", f"/v1/responses/{made['id']}")
        assert found.status == 200
        assert found.json == made
        assert client.responses.retrieve(made["id"]).output_text == f"Hi {number}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_in_every_worker(front: Proxy, client: OpenAI, *, stream: bool) -> None:
    made = create(front, input_="0", stream=stream, instructions="Be brief")
    assert text_of(made) == "Be brief|0"
    texts = ["0", "Be brief|0"]
    for number in range(1, 6):
        made = create(front, input_=str(number), stream=stream, **{PREVIOUS: made["id"]})
        texts.append(str(number))
        assert text_of(made) == "|".join(texts)  # instructions are not carried over
        texts.append(text_of(made))
    items = client.responses.input_items.list(made["id"], limit=4, order="asc")
    listed = [item.to_dict()["content"][0]["text"] for item in items]  # type: ignore[index]
    assert listed == texts[:-1]
    assert len({item.id for item in items}) == len(listed)


def test_items_of_an_input_are_listed_in_pages(front: Proxy, client: OpenAI) -> None:
    given = [
        {"role": "user", "content": "a"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "b"},
        {"role": "user", "content": [{"type": "input_text", "text": "c"}]},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]
    made = create(front, input_=given)
    path = f"/v1/responses/{made['id']}/input_items"
    newest = front.request("GET", path).json
    assert [item["type"] for item in newest["data"]][-2:] == ["function_call", "message"]
    assert (newest["has_more"], newest["first_id"]) == (False, newest["data"][0]["id"])
    pages = client.responses.input_items.list(made["id"], limit=2, order="asc")
    assert [item.type for item in pages] == [item["type"] for item in reversed(newest["data"])]
    first = front.request("GET", f"{path}?limit=2&order=asc").json
    assert first["has_more"] is True
    second = front.request("GET", f"{path}?limit=2&order=asc&after={first['last_id']}").json
    assert [item["type"] for item in second["data"]] == ["function_call_output", "message"]
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=none"):
        assert front.request("GET", f"{path}?{query}").status == 400


def test_a_deleted_response_is_gone_in_every_worker(front: Proxy, client: OpenAI) -> None:
    made = create(front)
    client.responses.delete(made["id"])
    for _ in range(TRIES):
        assert front.request("GET", f"/v1/responses/{made['id']}").status == 404
    with pytest.raises(NotFoundError):
        client.responses.delete(made["id"])
    with pytest.raises(BadRequestError, match="not found") as refused:
        client.responses.create(model="groq/g", input="x", previous_response_id=made["id"])
    assert refused.value.code == "previous_response_not_found"


def test_store_false_keeps_nothing(front: Proxy, client: OpenAI) -> None:
    made = create(front, store=False)
    assert made["store"] is False
    for path in ("", "/input_items"):
        assert front.request("GET", f"/v1/responses/{made['id']}{path}").status == 404
    with pytest.raises(BadRequestError):
        client.responses.create(model="groq/g", input="x", previous_response_id=made["id"])
    stored = create(front)
    followed = create(front, input_="x", store=False, **{PREVIOUS: stored["id"]})
    assert text_of(followed) == "Hi|Hi|x"
    assert followed[PREVIOUS] == stored["id"]


def test_a_stream_that_fails_is_a_failed_response(upstream: Upstream) -> None:
    async def cut_late(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"role": "assistant", "content": "Hel"}))
        exchange.close()

    async def cut_early(exchange: Exchange) -> None:
        await asyncio.sleep(1.0)  # longer than the commit delay
        exchange.close()

    upstream.on("late", cut_late)
    upstream.on("early", cut_early)
    fast = {"SANIC_PROXY_STREAM_COMMIT_DELAY": "0.2", "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2"}
    with proxy_at(upstream, "--workers", "2", **fast) as proxy:
        for model in ("groq/late", "groq/early"):
            reply = proxy.request("POST", "/v1/responses", {"model": model, "input": "Hi", "stream": True})
            last = events_of(reply.body.replace(b": ping\n", b""))[-1]
            assert last["type"] == "response.failed"
            response = last["response"]
            for _ in range(TRIES):
                assert proxy.request("GET", f"/v1/responses/{response['id']}").json == response
            assert response["status"] == "failed"
            body = {"model": model, "input": "x", PREVIOUS: response["id"]}
            reply = proxy.request("POST", "/v1/responses", body)
            assert (reply.status, reply.error["param"]) == (400, PREVIOUS)


def test_only_a_background_response_is_cancelled(front: Proxy, client: OpenAI) -> None:
    made = create(front)
    with pytest.raises(BadRequestError, match="background"):
        client.responses.cancel(made["id"])


@pytest.mark.parametrize(
    "fields", [{"store": "yes"}, {PREVIOUS: 5}, {"background": True, "store": False}, {"background": 1}]
)
def test_a_wrong_field_is_named(front: Proxy, client: OpenAI, fields: dict[str, Any]) -> None:
    reply = front.request("POST", "/v1/responses", {"model": "groq/g", "input": "x", **fields})
    assert reply.status == 400
    assert reply.json["error"]["param"] in fields


def test_another_client_sees_nothing(two_clients: Proxy, upstream: Upstream) -> None:
    upstream.on("g", echo)
    mine, other = (client_of(two_clients, key) for key in KEYS)
    made = mine.responses.create(model="groq/g", input="Hi")
    assert mine.responses.retrieve(made.id).id == made.id
    messages = []
    for id_ in (made.id, "resp_none"):
        for call in (other.responses.retrieve, other.responses.delete, other.responses.cancel):
            with pytest.raises(NotFoundError) as refused:
                call(id_)
            messages.append(str(refused.value).replace(id_, "ID"))
        with pytest.raises(BadRequestError) as unknown:
            other.responses.create(model="groq/g", input="x", previous_response_id=id_)
        messages.append(str(unknown.value).replace(id_, "ID"))
    assert messages[:4] == messages[4:]
    assert mine.responses.create(model="groq/g", input="x", previous_response_id=made.id).output_text


def test_items_of_stored_responses_can_be_referred_to(front: Proxy, client: OpenAI) -> None:
    made = create(front, input_="0", stream=True)
    (item,) = made["output"]
    (given,) = client.responses.input_items.list(made["id"])
    asked = [{"id": given.id}, {"type": "item_reference", "id": item["id"]}, {"role": "user", "content": "1"}]
    assert text_of(create(front, input_=asked)) == "0|0|1"
    followed = create(front, input_=asked, stream=True)
    assert text_of(followed) == "0|0|1"
    listed = client.responses.input_items.list(followed["id"], order="asc")
    assert [each.to_dict()["content"][0]["text"] for each in listed] == ["0", "0", "1"]  # type: ignore[index]
    client.responses.delete(made["id"])
    again = create(front, input_="x", **{PREVIOUS: followed["id"]})
    assert text_of(again) == "0|0|1|0|0|1|x"
    reply = front.request("POST", "/v1/responses", {"model": "groq/g", "input": asked})
    assert (reply.status, reply.error["param"]) == (400, "input.0.id")


def reference_to(id_: str | None) -> ItemReference:
    return {"type": "item_reference", "id": str(id_)}


def test_items_of_another_client_are_not_found(two_clients: Proxy, upstream: Upstream) -> None:
    upstream.on("g", echo)
    upstream.on("m", lambda exchange: exchange.answer(native_response("resp_n", output=NATIVE_OUTPUT)))
    mine, other = (client_of(two_clients, key) for key in KEYS)
    made = mine.responses.create(model="groq/g", input="Hi")
    native = mine.responses.create(model="openai/m", input="Hi")
    for id_ in (made.output[0].id, native.output[0].id, "msg_none"):
        for model in ("groq/g", "openai/m"):
            with pytest.raises(NotFoundError, match="not found") as refused:
                other.responses.create(model=model, input=[reference_to(id_)])
            assert refused.value.param == "input"
        with pytest.raises(BadRequestError, match="References"):
            other.responses.input_tokens.count(model="openai/m", input=[reference_to(id_)])
    refers: list[ResponseInputItemParam] = [reference_to(native.output[0].id)]
    assert mine.responses.create(model="openai/m", input=refers, store=False).id == "resp_n"
    assert upstream.requests[-1].json["input"] == refers
    with pytest.raises(BadRequestError, match="the provider openai has stored"):
        mine.responses.create(model="groq/g", input=refers)


NATIVE_OUTPUT = [
    {
        "type": "message",
        "id": "msg_native_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "x", "annotations": []}],
    }
]


def native_response(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "object": "response", "created_at": 1, "status": "completed", "output": [], **fields}


def test_what_a_provider_stores_is_found_there_with_the_same_key(upstream: Upstream) -> None:
    keys: list[str | None] = []

    async def created(exchange: Exchange) -> None:
        key = exchange.seen.header("authorization")
        if key is not None and "9876543210" not in key and not exchange.seen.json.get(PREVIOUS):
            await exchange.answer({"error": {"message": "limit", "code": "rate_limit_exceeded"}}, 429)
            return
        keys.append(key)
        await exchange.answer(native_response("resp_native_1"))

    async def stored(exchange: Exchange) -> None:
        keys.append(exchange.seen.header("authorization"))
        await exchange.answer(native_response("resp_native_1"))

    upstream.on("m", created)
    for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
        upstream.on(f"{method} /oai/v1/responses/resp_native_1{path}", stored)
    body = {"model": "openai/m", "input": "Hi"}
    with proxy_at(upstream, "--workers", "2", SANIC_PROXY_ATTEMPTS="4") as proxy:
        assert proxy.request("POST", "/v1/responses", body).json["id"] == "resp_native_1"
        follow = {**body, PREVIOUS: "resp_native_1"}
        for _ in range(TRIES // 2):
            assert proxy.request("GET", "/v1/responses/resp_native_1").status == 200
            assert proxy.request("POST", "/v1/responses", follow).status == 200
        assert upstream.requests[-1].json[PREVIOUS] == "resp_native_1"
        assert proxy.request("GET", "/v1/responses/resp_native_1/input_items").status == 200
        assert proxy.request("POST", "/v1/responses/resp_native_1/cancel").status == 200
        refused = proxy.request("POST", "/v1/responses", {**follow, "model": "groq/g"})
        assert refused.status == 400
        assert "openai" in refused.json["error"]["message"]
        assert proxy.request("DELETE", "/v1/responses/resp_native_1").status == 200
        assert proxy.request("GET", "/v1/responses/resp_native_1").status == 404
    assert {key and key[-10:] for key in keys} == {"9876543210"}


def test_a_native_stream_is_kept_and_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    stream = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_s","x":1}}\n\n'
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
        b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_s"}}\n\n'
    )
    for cut in (40, len(stream)):
        upstream.on("m", lambda exchange, cut=cut: exchange.stream([stream[:cut], stream[cut:]]))  # type: ignore[misc]
        body = {"model": "openai/m", "input": "Hi", "stream": True}
        assert front.request("POST", "/v1/responses", body).body == stream
    upstream.on(
        "GET /oai/v1/responses/resp_s?include=x", lambda exchange: exchange.answer(native_response("resp_s"))
    )
    assert front.request("GET", "/v1/responses/resp_s?include=x").json["id"] == "resp_s"
    assert upstream.requests[-1].path.endswith("?include=x")


@pytest.mark.row(81)
def test_a_response_that_is_too_large_is_answered_and_says_that_it_is_not_stored(
    front: Proxy, client: OpenAI, upstream: Upstream
) -> None:
    body = {"model": "groq/g", "input": "x" * (17 * 2**20)}

    async def short(exchange: Exchange) -> None:
        exchange.seen.json["messages"][:] = []
        await echo(exchange)

    upstream.on("g", short)
    reply = front.request("POST", "/v1/responses", body)
    assert reply.status == 200
    assert reply.json["store"] is False
    assert reply.headers["x-sanic-proxy-not-stored"] == "too_large"
    assert front.request("GET", f"/v1/responses/{reply.json['id']}").status == 404


def test_a_store_on_disk_outlives_the_proxy(upstream: Upstream) -> None:
    upstream.on("g", echo)
    with tempfile.TemporaryDirectory() as directory:
        settings = {"SANIC_PROXY_RESPONSE_STORE": "sqlite", "SANIC_PROXY_STATE_DIR": f"{directory}/state"}
        with proxy_at(upstream, "--workers", "2", **settings) as proxy:
            assert not (Path(directory) / "state").exists()
            proxy.chat("groq/g")
            assert not (Path(directory) / "state").exists()
            made = create(proxy)
        file = Path(directory) / "state/responses.sqlite"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with proxy_at(upstream, **settings) as proxy:
            assert proxy.request("GET", f"/v1/responses/{made['id']}").json == made
            follow = create(proxy, input_="x", **{PREVIOUS: made["id"]})
            assert text_of(follow) == "Hi|Hi|x"


def test_a_client_with_another_key_keeps_its_responses(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("g", echo)
    config = tmp_path / "sanic-proxy.toml"
    config.write_text('[clients.app]\nkey_env = "APP_KEY"\n[clients.other]\nkey_env = "OTHER_KEY"\n', "utf-8")
    settings = {
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_RESPONSE_STORE": "sqlite",
        "SANIC_PROXY_STATE_DIR": str(tmp_path / "state"),
        "OTHER_KEY": "key-of-other-0123",
    }
    with proxy_at(upstream, APP_KEY="key-old-of-app-0123", **settings) as proxy:
        id_ = client_of(proxy, "key-old-of-app-0123").responses.create(model="groq/g", input="Hi").id
    with proxy_at(upstream, APP_KEY="key-new-of-app-0123", **settings) as proxy:
        assert client_of(proxy, "key-new-of-app-0123").responses.retrieve(id_).output_text == "Hi"
        with pytest.raises(NotFoundError):
            client_of(proxy, "key-of-other-0123").responses.retrieve(id_)


def test_without_a_store_nothing_is_kept(upstream: Upstream) -> None:
    upstream.on("g", echo)
    upstream.on("m", lambda exchange: exchange.answer(native_response("resp_1")))
    with proxy_at(upstream, SANIC_PROXY_RESPONSE_STORE="off") as proxy:
        made = create(proxy)
        assert made["store"] is False
        assert proxy.request("GET", f"/v1/responses/{made['id']}").status == 404
        body = {"model": "groq/g", "input": "x", PREVIOUS: made["id"]}
        refused = proxy.request("POST", "/v1/responses", body)
        assert (refused.status, refused.json["error"]["param"]) == (400, PREVIOUS)
        native = proxy.request("POST", "/v1/responses", {**body, "model": "openai/m"})
        assert native.status == 200


def memory_directories(proxy: Proxy) -> set[Path]:
    """The directories in memory in which a process of the proxy has a file open."""
    found = set()
    for pid in (proxy.process.pid, *proxy.worker_pids()):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                directory = descriptor.readlink().parent
                if directory.name.startswith("sanic-proxy-"):
                    found.add(directory)
    return found


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--single-process",)])
def test_the_store_in_memory_ends_with_its_proxy(upstream: Upstream, arguments: tuple[str, ...]) -> None:
    upstream.on("g", echo)
    with proxy_at(upstream, *arguments) as proxy:
        proxy.chat("groq/g")
        create(proxy, store=False)
        assert memory_directories(proxy) == set()
        made = create(proxy)
        (directory,) = memory_directories(proxy)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        os.kill(proxy.process.pid, signal.SIGHUP)
        for _ in range(TRIES):
            assert proxy.request("GET", f"/v1/responses/{made['id']}").json == made
        assert memory_directories(proxy) == {directory}
    assert not directory.exists()


@pytest.mark.row(62)
def test_responses_outlive_the_worker_that_made_them(upstream: Upstream) -> None:
    upstream.on("g", echo)
    with proxy_at(upstream, "--workers", "2") as proxy:
        made = [create(proxy, input_=str(number)) for number in range(TRIES)]
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        proxy.wait_for_log("Worker ready", 4)
        for response in made:
            assert proxy.request("GET", f"/v1/responses/{response['id']}").json == response


@pytest.mark.row(72)
def test_a_store_that_fails_costs_no_answer(upstream: Upstream) -> None:
    upstream.on("g", echo)
    with tempfile.TemporaryDirectory() as directory:
        settings = {"SANIC_PROXY_RESPONSE_STORE": "sqlite", "SANIC_PROXY_STATE_DIR": directory}
        with proxy_at(upstream, **settings) as proxy:
            made = create(proxy)
            with contextlib.closing(sqlite3.connect(f"{directory}/responses.sqlite")) as database:
                database.execute("DROP TABLE response_content")
                database.commit()
            reply = proxy.request("POST", "/v1/responses", {"model": "groq/g", "input": "Hi"})
            assert (reply.status, reply.json["store"]) == (200, False)
            assert reply.headers["x-sanic-proxy-not-stored"] == "store_unavailable"
            stream = create(proxy, stream=True)
            assert stream["store"] is False
            lost = proxy.request("GET", f"/v1/responses/{made['id']}")
            assert (lost.status, lost.json["error"]["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_with_a_lone_surrogate_can_be_continued(
    front: Proxy, client: OpenAI, upstream: Upstream, *, stream: bool
) -> None:
    async def cut(exchange: Exchange) -> None:
        if stream:
            await exchange.stream(
                [frame.replace(b"CUT", b"\\ud83d") for frame in text_stream("Hi ", "CUT", "\\ud83d")]
            )
        else:
            await exchange.answer(json.dumps(completion("Hi \ud83d\\ud83d")).encode())

    upstream.on("cut", cut)
    body = {"model": "groq/cut", "input": "Hi", "stream": stream}
    reply = front.request("POST", "/v1/responses", body)
    assert reply.status == 200
    made = events_of(reply.body.replace(b": ping\n", b""))[-1]["response"] if stream else reply.json
    assert made["store"] is True
    followed = create(front, input_="x", **{PREVIOUS: made["id"]})
    assert text_of(followed) == "Hi|Hi \ufffd\\ud83d|x"
    assert text_of(front.request("GET", f"/v1/responses/{made['id']}").json) == "Hi \ufffd\\ud83d"


def test_a_native_answer_whose_id_the_store_refuses_is_passed_on(front: Proxy, upstream: Upstream) -> None:
    answer = b'{"id":"resp_\\ud83d","object":"response","status":"completed","output":[]}'
    upstream.on("m", lambda exchange: exchange.answer(answer))
    reply = front.request("POST", "/v1/responses", {"model": "openai/m", "input": "Hi"})
    assert (reply.status, reply.body) == (200, answer)


def assert_several_clients_cannot_continue(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", lambda exchange: exchange.answer(native_response("resp_2")))
    conversations: tuple[dict[str, Any], ...] = (
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
    )
    for fields in ({PREVIOUS: "resp_1"}, *conversations):
        body = {"model": "openai/m", "input": "x", **fields}
        refused = proxy.request("POST", "/v1/responses", body, {"authorization": f"Bearer {KEYS[0]}"})
        assert (refused.status, refused.json["error"]["param"]) == (400, *fields)
        assert not upstream.requests


def test_several_clients_cannot_continue_what_may_be_anothers(two_clients: Proxy, upstream: Upstream) -> None:
    assert_several_clients_cannot_continue(two_clients, upstream)


def test_several_clients_cannot_continue_anything_without_a_store(upstream: Upstream) -> None:
    settings = {"SANIC_PROXY_API_KEYS": ",".join(KEYS), "SANIC_PROXY_RESPONSE_STORE": "off"}
    with proxy_at(upstream, **settings) as proxy:
        assert_several_clients_cannot_continue(proxy, upstream)
