"""The faulty upstream: its faults, and that each occurs as requested."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from loadtest.faults import DONE, SCENARIOS, Fault, Turns, parse, pieces
from loadtest.faulty_upstream import FaultyUpstream
from tests.support.faulty import faulty_upstream


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FaultyUpstream, int]]:
    with faulty_upstream() as started:
        yield started


def status(port: int, model: str, **fields: object) -> int:
    """Of a whole answer; 0 where it broke off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": model, **fields}))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (http.client.HTTPException, ConnectionError):
        return 0
    finally:
        connection.close()


def test_a_name_selects_the_fault() -> None:
    assert parse("good") == Fault()
    assert parse("status;code=503;retry-after=7;first=1") == Fault(
        "status", code=503, retry_after="7", first=1
    )
    assert parse("good;cut=0;by=rst;pause=0.5") == Fault(cut=0, by="rst", pause=0.5)


@pytest.mark.parametrize("name", ["", "nothing", "good;cut", "good;cut=x", "good;who=me", "good;by=sword"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no such|invalid literal"):
        parse(name)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("is_streaming", [False, True])
def test_every_scenario_has_bytes_and_can_be_cut_anywhere(scenario: str, is_streaming: bool) -> None:
    whole = b"".join(pieces(Fault(scenario), is_streaming=is_streaming))
    assert whole
    middle = len(whole) // 2
    for cut in (0, 1, middle):
        assert b"".join(pieces(Fault(scenario, cut=cut, step=1000), is_streaming=is_streaming)) == whole[:cut]
    assert b"".join(pieces(Fault(scenario, step=1 + middle), is_streaming=is_streaming)) == whole


def test_a_fault_occurs_as_often_as_configured(served: tuple[FaultyUpstream, int]) -> None:
    _, port = served
    assert [status(port, "status;code=503;first=2") for _ in range(4)] == [503, 503, 200, 200]
    assert [status(port, "status;code=500;rate=0.5") for _ in range(6)].count(500) == 3
    assert status(port, "no such fault") == 404


@pytest.mark.parametrize(("rate", "taken"), [(0.0, 0), (0.1, 10), (0.25, 25), (1.0, 100)])
def test_a_share_is_even(rate: float, taken: int) -> None:
    turns = Turns()
    chosen = [turns.select(f"status;rate={rate}", is_streaming=False) for _ in range(100)]
    assert [fault.scenario for fault in chosen].count("status") == taken


@pytest.mark.parametrize(
    ("name", "streams", "wholes"),
    [
        ("status|good", ["status"] * 3, ["status"] * 3),
        ("status;first=1|captive", ["status", "captive", "captive"], ["captive"] * 3),
        ("no-end;only=stream|captive;only=whole", ["no-end"] * 3, ["captive"] * 3),
        ("no-end;only=stream", ["no-end"] * 3, ["good"] * 3),
        ("no-end;rate=0.5|status;rate=0.5", ["good", "no-end", "status"], ["no-end", "good", "no-end"]),
    ],
)
def test_the_first_alternative_that_applies_is_used(name: str, streams: list[str], wholes: list[str]) -> None:
    turns = Turns()
    for is_streaming, expected in ((True, streams), (False, wholes)):
        chosen = [turns.select(name, is_streaming=is_streaming).scenario for _ in expected]
        assert chosen == expected


@pytest.mark.parametrize("name", ["good|nothing", "good|", "good;only=forms"])
def test_each_alternative_has_to_exist(name: str) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        Turns().select(name, is_streaming=False)


def received(port: int, model: str) -> bytes:
    """Until the end of the connection. Raises what ended it."""
    body = json.dumps({"model": model}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        data = b""
        while piece := client.recv(4096):
            data += piece
        return data


def test_a_cut_ends_the_connection_as_configured(served: tuple[FaultyUpstream, int]) -> None:
    _, port = served
    assert len(received(port, "good;cut=40")) == 40
    with pytest.raises(ConnectionResetError):
        received(port, "good;cut=40;by=rst")


def test_a_stale_connection_takes_one_request(served: tuple[FaultyUpstream, int]) -> None:
    _, port = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", '{"model": "stale"}')
    assert connection.getresponse().read()
    connection.request("POST", "/v1/chat/completions", '{"model": "stale"}')
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()


def test_an_early_answer_waits_for_no_body(served: tuple[FaultyUpstream, int]) -> None:
    _, port = served
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n"
        client.sendall(head + b'{"model": "early;code=413"' + b" " * 70_000)
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_answer_is_streamed_only_if_requested(served: tuple[FaultyUpstream, int]) -> None:
    _, port = served
    assert status(port, "good") == status(port, "good", stream=True) == 200
    assert DONE in b"".join(pieces(Fault(), is_streaming=True))
    assert DONE not in b"".join(pieces(Fault(), is_streaming=False))
