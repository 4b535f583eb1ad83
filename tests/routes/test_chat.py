"""Chat completions through a real proxy, against the scripted upstream."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import pytest

from tests.support.load import GENEROUS_S, quickest_s, wait_until
from tests.support.proxy import Proxy
from tests.support.settings import GROQ_KEY
from tests.support.upstream import DONE, Exchange, Upstream, completion, frame, text_stream


def test_a_whole_answer_passes_byte_for_byte(proxy: Proxy, upstream: Upstream) -> None:
    body = (
        '{ "id":"x",\n "choices":[{"message":{"content":"ü\\u00fc"},"z":12345678901234567890123}], "e":1.0 }'
    )

    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            body.encode(),
            200,
            ("x-request-id", "up-1"),
            ("x-ratelimit-remaining-tokens", "7"),
            ("set-cookie", "a=b"),
        )

    upstream.on("m1", script)
    reply = proxy.chat("groq/m1")
    assert reply.status == 200
    assert reply.body == body.encode()
    assert reply.headers["x-upstream-request-id"] == "up-1"
    assert reply.headers["x-ratelimit-remaining-tokens"] == "7"
    assert "set-cookie" not in reply.headers


@pytest.mark.row(48, 58)
def test_only_the_models_value_changes_upstream(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion())

    upstream.on("m/2:x", script)
    sent = b'{"messages":[{"role":"user","content":"\\u00fc \\"model\\""}],  "model" : "GROQ/m/2:x",'
    sent += b'"n":1.50,"big":12345678901234567890123}'
    headers = {
        "user-agent": "test/1",
        "idempotency-key": "k1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cookie": "secret=1",
        "x-api-base": "http://evil",
        "authorization": "Bearer client-key",
    }
    reply = proxy.request("POST", "/v1/chat/completions", sent, headers)
    assert reply.status == 200
    seen = upstream.requests[-1]
    assert seen.body == sent.replace(b"GROQ/m/2:x", b"m/2:x")
    assert seen.path == "/openai/v1/chat/completions"
    assert seen.header("authorization") == f"Bearer {GROQ_KEY}"
    assert [seen.header(h) for h in ("user-agent", "idempotency-key", "traceparent")] == [
        "test/1",
        "k1",
        None,
    ]
    assert seen.header("x-api-base") is None


def test_a_stream_passes_byte_for_byte(proxy: Proxy, upstream: Upstream) -> None:
    pieces = [
        b'data:{"choices":[{"delta":{"content":"a"},"odd":"\\ud83d"}],"x":1}\n\n',
        *text_stream("b ", "ü😀"),
    ]

    async def script(exchange: Exchange) -> None:
        await exchange.stream(pieces)

    upstream.on("s1", script)
    reply, _ = proxy.stream("groq/s1")
    assert reply.body == b"".join(pieces)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"


def test_frames_come_as_they_are_sent(proxy: Proxy, upstream: Upstream) -> None:
    taken = threading.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for number in range(3):
            await exchange.chunk(frame({"content": f"number {number}"}))
            # The client has this one: it was held back nowhere.
            while not taken.acquire(blocking=False):  # noqa: ASYNC110 - released in another thread
                await asyncio.sleep(0.005)
        await exchange.chunk(frame(finish="stop") + DONE)
        await exchange.end_stream()

    upstream.on("paced", script)
    received = b""
    with proxy.open_stream("groq/paced") as client:
        for number in range(3):
            while b"number %d" % number not in received:
                received += client.recv(65536)
            taken.release()
        while b"[DONE]" not in received:
            received += client.recv(65536)


@pytest.mark.row(24, 25, 26, 27, 32)
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"error": {"message": "bad n", "type": "invalid_request_error", "param": "n", "code": "c"}},
            (400, "c", "n"),
        ),
        (400, [{"error": {"message": "google", "code": 400}}], (400, "400", None)),
        (400, b"<html><b>no</b></html>", (400, "upstream_bad_request", None)),
        (
            401,
            {"error": {"message": "key gsk-abcdefgh bad", "type": "x", "code": "invalid_api_key"}},
            (502, "upstream_auth_error", None),
        ),
        (403, b"", (502, "upstream_access_denied", None)),
        (404, {"detail": "Not Found"}, (404, "model_not_found", None)),
        (418, b"", (418, "upstream_rejected", None)),
        (
            429,
            {"error": {"message": "slow down", "type": "rate_limit_error"}},
            (429, "rate_limit_exceeded", None),
        ),
        (
            429,
            {"error": {"message": "no credit", "type": "insufficient_quota"}},
            (429, "insufficient_quota", None),
        ),
        (302, b"", (502, "upstream_redirect", None)),
        (500, b"Traceback (most recent call last):", (502, "upstream_error", None)),
        (503, b"", (503, "upstream_unavailable", None)),
        (504, b"", (504, "upstream_timeout", None)),
    ],
)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_an_upstream_failure_keeps_its_meaning(
    proxy: Proxy,
    upstream: Upstream,
    status: int,
    body: object,
    expected: tuple[int, str, str | None],
    streaming: bool,
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status, ("retry-after", "7"), ("location", "http://127.0.0.1:1/"))

    upstream.on("fails", script)
    reply = proxy.chat("groq/fails", stream=streaming)
    assert (reply.status, reply.error["code"], reply.error["param"]) == expected
    assert "gsk-" not in reply.body.decode()
    assert "<" not in reply.error["message"]
    wait_s, should_retry = reply.headers.get("retry-after"), reply.headers.get("x-should-retry")
    if expected[1] == "insufficient_quota":
        assert wait_s == "3600"
    elif expected[0] in {429, 503}:
        assert wait_s == "7"
    else:
        assert (wait_s is None) == (should_retry == "false")
    hopeless = expected[1] not in {
        "rate_limit_exceeded",
        "upstream_error",
        "upstream_unavailable",
        "upstream_timeout",
    }
    assert reply.headers.get("x-should-retry") == ("false" if hopeless else None)


@pytest.mark.row(9, 15, 16, 19)
@pytest.mark.parametrize(
    "pieces",
    [
        [frame({"content": "a"}), b'data: {"choices":[{"del'],
        [frame({"content": "a"})],
        [
            frame({"content": "a"}),
            b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
            frame(finish="stop"),
            DONE,
        ],
        [frame({"content": "a"}), b"data: {nope}\n\n", frame(finish="stop"), DONE],
        [
            frame({"content": "a"}),
            b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n',
            DONE,
        ],
        [
            frame({"content": "a"}),
            b'data: {"choices":[{"delta":{"content":NaN}}]}\n\n',
            frame(finish="stop"),
            DONE,
        ],
    ],
    ids=["half frame", "no end", "invalid utf-8", "bad json", "error object", "nan"],
)
def test_a_broken_stream_ends_with_an_error_frame_and_no_done(
    proxy: Proxy, upstream: Upstream, pieces: list[bytes]
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(pieces)

    upstream.on("broken", script)
    reply, frames = proxy.stream("groq/broken")
    assert reply.status == 200
    assert frames[0] == pieces[0]
    assert set(json.loads(frames[-1][6:])["error"]) == {"message", "type", "param", "code"}
    assert len(frames) == 2
    assert b"[DONE]" not in reply.body


@pytest.mark.row(8)
def test_a_reset_in_the_middle_is_an_error_frame(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
        await asyncio.sleep(0.05)
        exchange.reset()

    upstream.on("reset", script)
    _, frames = proxy.stream("groq/reset")
    assert json.loads(frames[-1][6:])["error"]["code"] == "upstream_disconnected"


@pytest.mark.row(10)
def test_a_finish_reason_without_done_gets_its_done(proxy: Proxy, upstream: Upstream) -> None:
    pieces = text_stream("a")[:-1]

    async def script(exchange: Exchange) -> None:
        await exchange.stream([*pieces[:-1], pieces[-1].rstrip(b"\n")])

    upstream.on("no-done", script)
    reply, _ = proxy.stream("groq/no-done")
    assert reply.body == b"".join(pieces) + DONE


@pytest.mark.row(11)
def test_what_comes_after_done_is_dropped(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream([*text_stream("a"), frame({"content": "late"})])

    upstream.on("after", script)
    assert proxy.stream("groq/after")[0].body == b"".join(text_stream("a"))


@pytest.mark.row(13, 18)
def test_frames_that_break_clients_are_repaired_or_dropped(proxy: Proxy, upstream: Upstream) -> None:
    first, *rest = text_stream("a")
    odd = [
        b"\xef\xbb\xbf: hello\n\n",
        first.replace(b"\n\n", b"\r\n\r\n"),
        b"data: {}\n\n",
        b": OPENROUTER PROCESSING\n\n",
        b'id: 1\nretry: 5\nevent: x\ndata: {"choices":[]}\n\n',
        b'data: {"choices":\ndata: []}\n\n',
    ]

    async def script(exchange: Exchange) -> None:
        await exchange.stream([*odd, *rest])

    upstream.on("odd", script)
    reply, frames = proxy.stream("groq/odd")
    assert frames == [first, b'data: {"choices":[]}\n\n', b'data: {"choices": []}\n\n', *rest]
    assert reply.status == 200


@pytest.mark.row(21)
def test_a_whole_answer_to_a_streaming_request_is_replayed_as_a_stream(
    proxy: Proxy, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("one two"))

    upstream.on("whole", script)
    _, frames = proxy.stream("groq/whole", stream_options={"include_usage": True})
    chunks = [json.loads(frame[6:]) for frame in frames[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == "one two"
    assert chunks[-1]["usage"]["total_tokens"] == 11
    assert frames[-1] == DONE


@pytest.mark.row(21)
def test_a_stream_labelled_as_json_is_relayed(proxy: Proxy, upstream: Upstream) -> None:
    data = b"".join(text_stream("a", "b"))

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", str(len(data))), kind="application/json")
        for index in range(0, len(data), 50):
            await exchange.send(data[index : index + 50])
            await asyncio.sleep(0.001)

    upstream.on("labelled", script)
    assert proxy.stream("groq/labelled")[0].body == data


@pytest.mark.row(7)
def test_heartbeats_are_sent_while_a_whole_answer_is_slow(proxy: Proxy, upstream: Upstream) -> None:
    body = json.dumps(completion("late")).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", str(len(body))))
        await asyncio.sleep(0.8)
        await exchange.send(body)

    upstream.on("slowly", script)
    reply, frames = proxy.stream("groq/slowly")
    assert reply.body.startswith(b": ping\n: ping\n")
    assert frames[-1] == DONE


@pytest.mark.row(20, 22, 23)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>login</html>", "text/html"),
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"".join(text_stream("a")), "text/event-stream"),
        (b'{"choices":', "application/json"),
        (json.dumps({"error": {"message": "no", "type": "x"}}).encode(), "application/json"),
    ],
    ids=["html", "empty", "no choices", "stream", "cut json", "200 with error"],
)
def test_garbage_with_status_200_is_a_502(proxy: Proxy, upstream: Upstream, body: bytes, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, kind=kind)

    upstream.on("garbage", script)
    reply = proxy.chat("groq/garbage")
    assert reply.status == 502
    assert "html" not in reply.error["message"]


@pytest.mark.row(23)
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_garbage_instead_of_a_stream_is_a_502(proxy: Proxy, upstream: Upstream, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"<html>login</html>", kind=kind)

    upstream.on("garbage", script)
    assert proxy.chat("groq/garbage", stream=True).error["code"] == "upstream_bad_response"


# The clocks


@pytest.mark.row(5)
def test_silence_before_the_status_is_a_504(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on("silent", script)

    def send_chat() -> None:
        reply = proxy.chat("groq/silent")
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")

    assert 1.8 < quickest_s(send_chat, 3.5) < 3.5


@pytest.mark.row(5, 74)
def test_a_silent_stream_is_kept_alive_and_then_ends_with_an_error(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on("silent", script)
    reply, _ = proxy.stream("groq/silent")
    assert reply.status == 200
    assert reply.body.startswith(b": ping\n: ping\n: ping\n")
    assert b'"upstream_timeout"' in reply.body
    assert b"[DONE]" not in reply.body


@pytest.mark.row(6)
def test_silence_inside_a_stream_ends_it_with_an_error(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
        await exchange.client_leaves()
        upstream.left.append("hangs")

    upstream.on("hangs", script)

    def send_chat() -> None:
        reply, _ = proxy.stream("groq/hangs")
        assert b": ping\n" in reply.body
        assert b'"upstream_timeout"' in reply.body

    assert 0.9 < quickest_s(send_chat, 2) < 2


@pytest.mark.row(7)
def test_heartbeats_come_between_frames_and_never_inside_one(proxy: Proxy, upstream: Upstream) -> None:
    role, first, *rest = text_stream("a")
    first = role + first
    second = frame({"content": "b"})

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(first + second[:20])
        await asyncio.sleep(0.5)
        await exchange.chunk(second[20:] + b"".join(rest))
        await exchange.end_stream()

    upstream.on("halved", script)
    reply, _ = proxy.stream("groq/halved")
    assert reply.body.startswith(first + b": ping\n")
    assert reply.body.replace(b": ping\n", b"") == first + second + b"".join(rest)


def test_heartbeats_never_reset_the_total_clock(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for _ in range(100):
            await exchange.chunk(frame({"content": "a"}))
            await asyncio.sleep(0.3)

    upstream.on("endless", script)
    started = time.monotonic()
    reply, _ = proxy.stream("groq/endless")
    assert 3.5 < time.monotonic() - started < 20  # its script takes 30 s
    assert b'"upstream_timeout"' in reply.body


# Clients that leave


@pytest.mark.row(40)
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_disconnects_cancels_its_upstream_request(
    proxy: Proxy, upstream: Upstream, how: str
) -> None:
    gone = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
        await exchange.client_leaves()
        gone.set()

    upstream.on("leaves", script)
    client = proxy.open_stream("groq/leaves")
    head = client.recv(65536).decode("latin-1").lower()
    request_id = head.split("x-request-id: ")[1].split("\r\n")[0]
    if how == "rst":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
    line = proxy.log_line(request_id)
    assert "status=499" in line
    assert "ended=client_left" in line
    assert gone.wait(GENEROUS_S)


@pytest.mark.row(39)
@pytest.mark.parametrize("model", ["groq/waits", "straico/waits"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    "after_s", [0.05, 0.3, 0.6], ids=["at once", "after a heartbeat", "after the commit"]
)
def test_a_client_that_disconnects_before_the_answer_cancels_its_upstream_request(
    proxy: Proxy, upstream: Upstream, model: str, streaming: bool, after_s: float
) -> None:
    gone = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()
        gone.set()

    upstream.on("waits", script)
    before = proxy.log.count("ended=client_left")
    client = proxy.open_stream(model, stream=streaming)
    time.sleep(after_s)
    assert not gone.is_set()
    client.close()
    wait_until(lambda: proxy.log.count("ended=client_left") > before)
    assert gone.wait(GENEROUS_S)


@pytest.mark.row(35)
def test_an_idle_connection_that_died_costs_an_attempt_and_is_not_used_again(
    proxy: Proxy, upstream: Upstream
) -> None:
    connections: list[int] = []

    async def script(exchange: Exchange) -> None:
        connections.append(exchange.seen.connection)
        if len(connections) == 2:
            exchange.close()
            return
        await exchange.answer(completion())

    upstream.on("stale", script)
    statuses = [proxy.chat("groq/stale").status for _ in range(3)]
    assert statuses == [200, 502, 200]  # the proxy of these tests makes one attempt
    assert len(connections) == 3
    assert connections[0] == connections[1] != connections[2]


def test_a_finished_stream_gives_its_connection_back(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream("a"))

    upstream.on("reuse", script)
    for _ in range(10):  # the next request may come before the end of the body has been read
        proxy.stream("groq/reuse")
    assert len({seen.connection for seen in upstream.seen("reuse")}) < 10


# Bad requests


@pytest.mark.row(45, 46, 47, 49, 50, 52)
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"x"', None),
        (b'\xef\xbb\xbf{"model":"echo/echo"}', None),
        (b'{"model":"echo/echo","messages":[{"role":"user","content":"\xff"}]}', None),
        (b'{"model":"echo/echo","messages":[{"role":"user","content":"\\ud83d"}]}', None),
        (b'{"model":"echo/echo","messages":[],"x":NaN}', None),
        (b"[" * 100_000, None),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"echo/echo","messages":"x"}', "messages"),
        (b'{"model":"echo/echo","messages":[]}', "messages"),
        (b'{"model":"echo/echo","messages":[{"role":"user","content":"x"}],"stream":"true"}', "stream"),
        (b'{"model":"groq/a","model":"groq/b","messages":[{"role":"user","content":"x"}]}', "model"),
    ],
)
def test_a_bad_body_is_a_400_with_the_reason(proxy: Proxy, body: bytes, param: str | None) -> None:
    reply = proxy.request("POST", "/v1/chat/completions", body)
    assert (reply.status, reply.error["type"], reply.error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.row(51)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=UTF-8"}, 200),
        ({"content-type": ""}, 200),
    ],
)
def test_the_content_type_decides_whether_a_body_is_read(
    proxy: Proxy, headers: dict[str, str], status: int
) -> None:
    body = {"model": "echo/echo", "messages": [{"role": "user", "content": "x"}]}
    assert proxy.request("POST", "/v1/chat/completions", body, headers).status == status


def test_a_stream_carries_the_limits_of_its_provider(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream(("x-ratelimit-remaining-tokens", "7"), ("x-request-id", "up-1"))
        for piece in text_stream("Hi"):
            await exchange.chunk(piece)
        await exchange.end_stream()

    upstream.on("limits", script)
    reply, _ = proxy.stream("groq/limits")
    assert reply.headers["x-ratelimit-remaining-tokens"] == "7"
    assert reply.headers["x-upstream-request-id"] == "up-1"


@pytest.mark.row(44)
def test_a_body_past_the_limit_is_a_413(proxy: Proxy) -> None:
    reply = proxy.request("POST", "/v1/chat/completions", b" " * 2_000_001)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


@pytest.mark.row(54)
@pytest.mark.parametrize(
    "model", ["", "nope/x", "a\nb", "groq/", "x" * 300, "echo/none", "groq\x00/x", "ü/x"]
)
def test_an_unknown_model_is_a_404(proxy: Proxy, model: str) -> None:
    reply = proxy.chat(model)
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")


def test_a_known_provider_without_a_key_names_its_variable(proxy: Proxy) -> None:
    reply = proxy.chat("openai/gpt-4o")
    assert (reply.status, reply.error["code"]) == (400, "provider_not_configured")
    assert "OPENAI_API_KEY" in reply.error["message"]
