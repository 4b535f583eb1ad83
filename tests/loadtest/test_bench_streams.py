"""The two C programs: what the upstream sends, and what the client takes for a whole stream."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

from loadtest.bench import fixture
from loadtest.bench.cases import Case
from loadtest.bench.fixture import Fixture
from loadtest.bench.gateways import Paths, free_port
from loadtest.bench.load import Endpoint, Loader, LoadError

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the programs need a C compiler")

FRAMES = 4
SIX_STREAMS = Case("six", "six streams", 3, 0, 0, frames=FRAMES, total=6)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    """The upstream, running; a gateway is not."""
    folder = tmp_path_factory.mktemp("bench")
    cores = fixture.split_cores()
    loader = Loader(fixture.compiled(folder), folder, cores.load)
    made = Fixture(Paths(folder, folder, folder, folder, free_port(), free_port()), cores, loader)
    made.open()
    yield made
    made.close()


@pytest.fixture
def upstream(started: Fixture) -> Endpoint:
    started.script(frames=FRAMES)
    return Endpoint(started.paths.upstream_port)


def response_to(endpoint: Endpoint, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    """The whole answer to `body`, head included, as it came over the wire."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_whole_answer_is_of_the_size_that_the_rows_name(upstream: Endpoint) -> None:
    status, body = upstream.send(upstream.body(is_stream=False))
    assert status == 200
    assert 500 <= len(body) <= 700


def test_straico_answers_have_a_price(upstream: Endpoint) -> None:
    assert b'"price":' in response_to(upstream, b"{}", "/v2/chat/completions")


def test_a_body_may_be_written_with_spaces(upstream: Endpoint) -> None:
    assert b"data: [DONE]" in response_to(upstream, b'{ "stream" : true }')
    assert b"data: " not in response_to(upstream, b'{ "stream" : false }')


def test_usage_is_sent_only_if_requested(upstream: Endpoint) -> None:
    assert b'"total_tokens"' not in response_to(upstream, b'{"stream":true}')
    body = b'{"stream":true,"stream_options":{"include_usage":true}}'
    assert b'"total_tokens"' in response_to(upstream, body)


def test_each_frame_is_a_chunk_of_about_260_bytes(upstream: Endpoint) -> None:
    body = response_to(upstream, upstream.body(is_stream=True)).partition(b"\r\n\r\n")[2]
    sizes = [int(line, 16) for line in body.split(b"\r\n")[0:-2:2]]
    assert len(sizes) == FRAMES + 3  # usage, [DONE] and the end
    assert all(230 <= size <= 300 for size in sizes[:FRAMES])


def test_a_large_request_is_taken_whole(upstream: Endpoint) -> None:
    assert upstream.send(upstream.body(is_stream=False, size_bytes=2**20))[0] == 200


def test_whole_streams_are_counted_with_their_frames(started: Fixture, upstream: Endpoint) -> None:
    metrics = started.loader.run(SIX_STREAMS, upstream, 0)
    assert (metrics["streams"], metrics["lost"], metrics["frames"]) == (6, 0, 6 * (FRAMES + 1))


def test_paced_frames_come_at_their_time(started: Fixture, upstream: Endpoint) -> None:
    started.script(frames=FRAMES, interval_ms=10)
    metrics = started.loader.run(SIX_STREAMS, upstream, 0)
    assert metrics["first_p50_ms"] >= 10
    assert metrics["total_p50_ms"] >= 10 * FRAMES


def test_held_streams_stay_open_after_their_first_frame(started: Fixture, upstream: Endpoint) -> None:
    started.script(frames=FRAMES, hold=1)
    with started.loader.held_streams(upstream, 5, FRAMES) as report:
        assert (report["held"], report["lost"], report["frames"]) == (5, 0, 5)


@pytest.mark.parametrize("burst", [1, 2, 3, 100])
def test_a_stream_waits_for_a_step_before_each_further_burst(
    started: Fixture, upstream: Endpoint, burst: int
) -> None:
    started.script(frames=FRAMES, burst=burst, step=1)
    total = FRAMES + 2  # usage and [DONE]
    arrived: list[int] = []
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
    connection.request("POST", upstream.path, upstream.body(is_stream=True))
    response = connection.getresponse()
    while sum(arrived) < total:
        frames = 0
        while frames < min(burst, total - sum(arrived)):
            frames += response.read1().count(b"\n\n")
        arrived.append(frames)
        assert stepped(upstream) == 200
    assert response.read() == b""
    connection.close()
    whole, rest = divmod(total, burst)
    assert arrived == [burst] * whole + [rest] * bool(rest)


def stepped(upstream: Endpoint) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
    connection.request("POST", "/step", b"")
    status = connection.getresponse().status
    connection.close()
    return status


def test_streams_in_bursts_are_still_whole(started: Fixture, upstream: Endpoint) -> None:
    started.script(frames=FRAMES, burst=3)
    assert started.loader.run(SIX_STREAMS, upstream, 0)["streams"] == 6


# What the client takes for whole


def served(answer: bytes, endpoint: Endpoint, loader: Loader) -> dict[str, float]:
    """The client's report of one stream that consists of these bytes and is then closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            there = Endpoint(server.getsockname()[1], is_exact=endpoint.is_exact)
            one = Case("one", "one stream", 1, 0, 0, frames=FRAMES, total=1)
            return loader.run(one, there, 0)
        finally:
            thread.join()


def chunked(*frames: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + end


@pytest.fixture
def frames(upstream: Endpoint) -> list[bytes]:
    """The frames of a whole stream, [DONE] the last."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
    connection.request("POST", upstream.path, upstream.body(is_stream=True))
    body = connection.getresponse().read()
    connection.close()
    return [part + b"\n\n" for part in body.split(b"\n\n")[:-1]]


def test_chunks_may_be_cut_anywhere(started: Fixture, upstream: Endpoint, frames: list[bytes]) -> None:
    body = b"".join(frames)
    answer = chunked(*(body[at : at + 7] for at in range(0, len(body), 7)))
    assert served(answer, upstream, started.loader)["streams"] == 1


def test_comments_may_stand_between_frames(started: Fixture, upstream: Endpoint, frames: list[bytes]) -> None:
    metrics = served(chunked(b": ping\n\n", frames[0], b":\n\n", *frames[1:]), upstream, started.loader)
    assert (metrics["streams"], metrics["comments"]) == (1, 2)


@pytest.mark.parametrize("is_exact", [True, False], ids=["exact", "loose"])
@pytest.mark.parametrize("fault", ["dropped", "swapped", "no [DONE]", "no end", "after [DONE]", "status"])
def test_a_faulty_stream_is_lost(started: Fixture, frames: list[bytes], fault: str, is_exact: bool) -> None:
    answer = {
        "dropped": chunked(frames[0], *frames[2:]),
        "swapped": chunked(frames[1], frames[0], *frames[2:]),
        "no [DONE]": chunked(*frames[:-1]),
        "no end": chunked(*frames, end=b""),
        "after [DONE]": chunked(*frames, frames[0]),
        "status": chunked(*frames).replace(b"200 OK", b"201 Created"),
    }[fault]
    with pytest.raises(LoadError, match="no answer at all"):
        served(answer, Endpoint(1, is_exact=is_exact), started.loader)


def test_one_altered_byte_is_enough(started: Fixture, upstream: Endpoint, frames: list[bytes]) -> None:
    frames[2] = frames[2].replace(b"1700000000", b"1700000001")
    with pytest.raises(LoadError, match="other bytes than were sent, after 2 frames"):
        served(chunked(*frames), upstream, started.loader)


def test_rewritten_frames_are_whole_where_only_the_content_counts(
    started: Fixture, frames: list[bytes]
) -> None:
    rewritten = [frame.replace(b"1700000000", b"1700000001") for frame in frames]
    assert served(chunked(*rewritten), Endpoint(1, is_exact=False), started.loader)["streams"] == 1
