"""The thread that sends spans: batches, retries, drops, and that nothing waits for the receiver."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from sanic_proxy.observability.span_exporter import MAX_BATCH, Receiver, SpanExporter
from tests.support.load import wait_until
from tests.support.otlp import TRACES, take
from tests.support.proxy import free_port
from tests.support.upstream import Exchange, Upstream


@pytest.fixture
def receiver() -> Iterator[Upstream]:
    made = Upstream()
    made.start()
    yield made
    made.stop()
    assert made.problems == []


def exporter(url: str, *, max_queued: int = 1000, timeout_s: float = 60.0) -> SpanExporter[int]:
    return SpanExporter(
        Receiver(f"{url}/v1/traces", {"x-team": "a"}, timeout_s=timeout_s, wait_s=0.01),
        lambda item: [{"number": item}],
        lambda spans: {"spans": spans},
        max_queued=max_queued,
        pause_s=0.01,
    )


def numbers(receiver: Upstream) -> list[int]:
    return [span["number"] for seen in list(receiver.requests) for span in seen.json["spans"]]


def test_items_arrive_once_and_in_order(receiver: Upstream) -> None:
    receiver.on(TRACES, take)
    sending = exporter(receiver.url)
    for number in range(2 * MAX_BATCH + 3):
        sending.put(number)
    sending.close(60.0)
    assert numbers(receiver) == list(range(2 * MAX_BATCH + 3))
    assert max(len(seen.json["spans"]) for seen in receiver.requests) <= MAX_BATCH
    assert sending.dropped == 0
    seen = receiver.requests[0]
    assert (seen.header("content-type"), seen.header("x-team")) == ("application/json", "a")


def test_they_are_sent_without_a_full_batch(receiver: Upstream) -> None:
    receiver.on(TRACES, take)
    sending = exporter(receiver.url)
    sending.put(7)
    wait_until(lambda: numbers(receiver) == [7])
    sending.close(60.0)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_receiver_gets_the_batch_again(receiver: Upstream, status: int) -> None:
    async def busy_once(exchange: Exchange) -> None:
        await exchange.answer({}, status if len(receiver.requests) == 1 else 200)

    receiver.on(TRACES, busy_once)
    sending = exporter(receiver.url)
    sending.put(7)
    wait_until(lambda: numbers(receiver) == [7, 7])
    sending.close(60.0)
    assert sending.dropped == 0


def test_it_is_dropped_after_a_few_attempts_and_counted(
    receiver: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.answer({}, 503, ("retry-after", "0"))

    receiver.on(TRACES, busy)
    sending = exporter(receiver.url)
    with caplog.at_level(logging.WARNING):
        sending.put(7)
        wait_until(lambda: sending.dropped == 1)
        sending.close(60.0)
    assert numbers(receiver) == [7, 7, 7]
    assert [record.getMessage() for record in caplog.records] == [
        "traces of 1 requests were dropped: the OTLP receiver 127.0.0.1 does not take them"
    ]


def test_what_it_refuses_is_not_sent_again(receiver: Upstream) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer({"message": "no"}, 400)

    receiver.on(TRACES, refuse)
    sending = exporter(receiver.url)
    sending.put(7)
    wait_until(lambda: sending.dropped == 1)
    sending.close(60.0)
    assert numbers(receiver) == [7]


def test_nothing_waits_for_a_receiver_that_hangs(receiver: Upstream) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.client_leaves()

    receiver.on(TRACES, hang)
    sending = exporter(receiver.url, max_queued=10)
    sending.put(0)
    wait_until(lambda: numbers(receiver) == [0])  # it has this one, and does not answer
    for number in range(1, 31):
        sending.put(number)
    assert sending.dropped == 20
    closed = threading.Thread(target=sending.close, args=(0.1,))
    closed.start()
    closed.join(30.0)  # the receiver's time is 60 s
    assert not closed.is_alive()
    assert sending.dropped >= 30
    sending.put(99)
    assert sending.dropped >= 31


def test_a_receiver_that_sends_no_answer_in_time_is_left(receiver: Upstream) -> None:
    async def hang_once(exchange: Exchange) -> None:
        if len(receiver.requests) == 1:
            await exchange.client_leaves()
        else:
            await take(exchange)

    receiver.on(TRACES, hang_once)
    sending = exporter(receiver.url, timeout_s=0.5)
    sending.put(7)
    wait_until(lambda: len(receiver.requests) >= 2)
    sending.close(60.0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}", "https://127.0.0.1:{}"])
def test_a_receiver_that_is_not_there(url: str) -> None:
    sending = exporter(url.format(free_port()))
    sending.put(7)
    wait_until(lambda: sending.dropped == 1)
    sending.close(60.0)


def test_an_answer_that_is_no_http(receiver: Upstream) -> None:
    async def babble(exchange: Exchange) -> None:
        await exchange.send(b"220 smtp.example ESMTP\r\n\r\n")
        exchange.is_closing = True

    receiver.on(TRACES, babble)
    sending = exporter(receiver.url)
    sending.put(7)
    wait_until(lambda: sending.dropped == 1)
    sending.close(60.0)


def test_nothing_is_started_before_the_first_item() -> None:
    before = threading.active_count()
    sending = exporter("http://127.0.0.1:9")
    assert threading.active_count() == before
    sending.close()
    assert sending.dropped == 0


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Receiver("http://127.0.0.1:9", {"authorization": "secret"}))


def test_large_answers_are_not_read_to_their_end(receiver: Upstream) -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.head(200)
        try:
            while True:
                await exchange.send(b"x" * 65536)
        except ConnectionError:
            exchange.is_closing = True

    receiver.on(TRACES, flood)
    sending = exporter(receiver.url)
    sending.put(7)
    wait_until(lambda: numbers(receiver) == [7])
    sending.close(60.0)
    assert sending.dropped == 0


class Proxy:
    """An outbound proxy that gives `answer` to one request, of which it keeps the head."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._head = b""

    @property
    def url(self) -> str:
        return f"http://user:pa%3Ass@127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def head(self) -> bytes:
        self._thread.join()
        return self._head

    def _serve(self) -> None:
        with self._server, self._server.accept()[0] as connection:
            while b"\r\n\r\n" not in self._head:
                self._head += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 " + self._answer + b"\r\nContent-Length: 0\r\n\r\n")


def test_a_receiver_behind_an_outbound_proxy() -> None:
    proxy = Proxy(b"200 OK")
    assert Receiver("http://otlp.invalid/v1/traces", proxy=proxy.url).post(b"{}") == (200, 0.0)
    assert proxy.head.startswith(b"POST http://otlp.invalid/v1/traces HTTP/1.1\r\nHost: otlp.invalid\r\n")
    assert b"proxy-authorization: Basic dXNlcjpwYTpzcw==\r\n" in proxy.head


def test_a_proxy_learns_only_where_an_encrypted_receiver_is() -> None:
    proxy = Proxy(b"407 No")
    asked = Receiver("https://otlp.invalid/v1/traces", {"x-key": "receiver-canary"}, proxy=proxy.url)
    assert asked.post(b"{}") == (0, 0.0)
    assert proxy.head.startswith(b"CONNECT otlp.invalid:443 HTTP/1.")
    assert b"proxy-authorization: Basic dXNlcjpwYTpzcw==\r\n" in proxy.head
    assert b"canary" not in proxy.head
    assert "pa%3Ass" not in repr(asked)
