"""The upstream with faults, in a process of its own, as the load test starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtest.sse_meter import StreamMeter

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    def send_request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            return self.request_on(connection, method, path, body)

    def request_on(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None
    ) -> tuple[int, bytes]:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read()

    def stream_fault(self) -> str:
        status, body = self.send_request(
            "POST", "/v1/chat/completions", {"model": "scripted", "stream": True}
        )
        assert status == 200
        meter = StreamMeter()
        for line in body.splitlines(keepends=True):
            meter.feed(line, 0.0)
        return meter.report().fault

    def stop(self) -> str:
        """Its last line of output."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return output.strip()


@contextlib.contextmanager
def running(*options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "loadtest.faulty_upstream", "--delay=0", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Running(process, int(process.stdout.readline().rpartition(":")[2]))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    with running("--frames=5", "--pace=1") as upstream:
        yield upstream


def test_a_whole_answer_has_its_tokens(plain: Running) -> None:
    status, body = plain.send_request("POST", "/v1/chat/completions", {"model": "scripted"})
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 5


def test_a_stream_is_whole(plain: Running) -> None:
    assert plain.stream_fault() == ""


def test_a_connection_carries_one_answer_after_another(plain: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", plain.port, timeout=60)
    with contextlib.closing(connection):
        for is_stream in (True, False, True):
            status, body = plain.request_on(
                connection, "POST", "/v1/chat/completions", {"model": "scripted", "stream": is_stream}
            )
            assert status == 200
            assert body.count(b"rd") == 5


def test_it_lists_its_model(plain: Running) -> None:
    status, body = plain.send_request("GET", "/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(body)["data"]] == ["good", "scripted"]


def test_faults_are_counted_and_reported_at_the_end() -> None:
    with running("--frames=4", "--pace=0", "--cut-share=0.5", "--error-share=0.25") as upstream:
        faults = [upstream.stream_fault() for _ in range(8)]
        summary = upstream.stop()
    cut, error = "ended without [DONE]", "error frame: scripted"
    assert faults == ["", cut, "", cut, "", cut, error, cut]
    assert summary == "connections=8 left=0 answered={'good': 3, 'no-end': 4, 'error-frame': 1}"


def test_a_stream_may_end_in_an_error_frame() -> None:
    with running("--pace=0", "--error-share=1") as upstream:
        assert upstream.stream_fault() == "error frame: scripted"


def test_requests_may_be_refused() -> None:
    with running("--refuse-share=1") as upstream:
        assert upstream.send_request("POST", "/v1/chat/completions", {"model": "scripted"})[0] == 503
