"""Puts load on an endpoint: wrk for whole answers, our own client for streams. Knows no gateway."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Literal

from loadtest.bench.cases import Case
from loadtest.bench.processes import child_environment, pinned

HERE = Path(__file__).parent
Metrics = dict[str, float]
Dialect = Literal["chat", "messages", "responses", "gemini"]
PATHS: Mapping[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/{model}:{verb}",
}
_GEMINI_VERBS = ("generateContent", "streamGenerateContent?alt=sse")
# The longest a stream may take, and the longest a client may run past its time.
STREAM_TIMEOUT_S = 25
OVERTIME_S = 35


class LoadError(Exception):
    """The load client itself failed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a gateway, and the form of its requests.

    `is_exact`: its streams are the upstream's, byte for byte; else only the content is compared. `dialect` is
    the API of the requests; `spoken` returns the endpoint for another one.
    """

    port: int
    model: str = "bench-model"
    headers: tuple[tuple[str, str], ...] = ()
    path: str = PATHS["chat"]
    is_exact: bool = True
    dialect: Dialect = "chat"

    def spoken(self, dialect: Dialect, model: str, *, is_stream: bool) -> Endpoint:
        """The same gateway, asked for `model` in another dialect, by its path for the kind of answer."""
        path = PATHS[dialect].format(model=model, verb=_GEMINI_VERBS[is_stream])
        return replace(self, path=path, dialect=dialect, model=model)

    def all_headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Authorization": "Bearer bench-client-key",
            **dict(self.headers),
        }

    def body(self, *, is_stream: bool, size_bytes: int = 0) -> bytes:
        """A request of about 250 bytes; a chat is padded to `size_bytes` with a long system message."""
        question = "How do I distinguish a slow gateway from a slow provider? Answer in two sentences."
        system = "You are a patient engineer."
        fields: dict[str, object] = {"model": self.model, "stream": is_stream}
        if is_stream and self.dialect == "chat":
            fields["stream_options"] = {"include_usage": True}
        fields["temperature"] = 0.7
        if self.dialect == "messages":
            asked = {"max_tokens": 500, "system": system, "messages": [{"role": "user", "content": question}]}
            return json.dumps({**fields, **asked}).encode()
        if self.dialect == "gemini":
            asked = {
                "systemInstruction": {"parts": [{"text": system}]},
                "contents": [{"role": "user", "parts": [{"text": question}]}],
                "generationConfig": {"temperature": 0.7},
            }
            return json.dumps(asked).encode()
        if self.dialect == "responses":
            # As agents ask: a stored response costs a transaction.
            asked = {"instructions": system, "input": question, "store": False}
            return json.dumps({**fields, **asked}).encode()
        fields["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        missing = size_bytes - len(json.dumps(fields))
        if missing > 0:
            padded = system + (" Long context, as agents send it." * (missing // 33 + 1))[:missing]
            fields["messages"] = [
                {"role": "system", "content": padded},
                {"role": "user", "content": question},
            ]
        return json.dumps(fields).encode()

    def request(self, body: bytes) -> bytes:
        """The request as bytes, for a client that knows no HTTP beyond the answer's."""
        headers = {"Host": f"127.0.0.1:{self.port}", **self.all_headers(), "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    def send(self, body: bytes, timeout_s: float = 10.0) -> tuple[int, bytes]:
        """Send one request over a connection of its own: status and body. Raises OSError or HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("POST", self.path, body, self.all_headers())
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class KeptConnection:
    """One connection for many requests, each sent with one call.

    http.client sends head and body separately, and a server then reads them in one step or in two as chance
    has it: figures per request would depend on timing.
    """

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> HTTPResponse:
        """The response, whose body must be read before the next request. Raises OSError or HTTPException."""
        self._socket.sendall(request)
        response = HTTPResponse(self._socket, method="POST")
        response.begin()
        return response

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Loader:
    """The load clients: the folder of the compiled one, a scratch folder, and the cores they run on."""

    binaries: Path
    scratch: Path
    cores: frozenset[int]

    def run(self, case: Case, endpoint: Endpoint, seconds: int) -> Metrics:
        """Put `case` on `endpoint`. Raises LoadError if nothing was measured."""
        return self._streams(case, endpoint, seconds) if case.frames else self._whole(case, endpoint, seconds)

    def _whole(self, case: Case, endpoint: Endpoint, seconds: int) -> Metrics:
        body, headers = self.scratch / "body", self.scratch / "headers"
        body.write_bytes(endpoint.body(is_stream=False, size_bytes=case.body_bytes))
        headers.write_text("".join(f"{k}: {v}\n" for k, v in endpoint.all_headers().items()))
        url = f"http://127.0.0.1:{endpoint.port}{endpoint.path}"
        argv = ("wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "30s")
        metrics = self._report(
            (*argv, "-s", str(HERE / "post.lua"), url),
            {"BENCH_BODY": str(body), "BENCH_HEADERS": str(headers)},
            seconds + OVERTIME_S,
        )
        return {**metrics, "requests_per_s": metrics["requests"] / metrics["seconds"]}

    def _streams(self, case: Case, endpoint: Endpoint, seconds: int) -> Metrics:
        length = ("--total", str(case.total)) if case.total else ("--seconds", str(seconds))
        stagger = ("--stagger-ms", str(case.stagger_ms))
        argv = (*self._stream_argv(endpoint, case.connections, case.frames), *length, *stagger)
        return self._report(argv, {}, seconds + OVERTIME_S)

    def _stream_argv(self, endpoint: Endpoint, connections: int, frames: int) -> tuple[str, ...]:
        request = self.scratch / f"request-{endpoint.port}"
        request.write_bytes(endpoint.request(endpoint.body(is_stream=True)))
        where = ("--port", str(endpoint.port), "--request", str(request))
        amount = ("--connections", str(connections), "--frames", str(frames))
        argv = (str(self.binaries / "streams"), *where, *amount, "--timeout-s", str(STREAM_TIMEOUT_S))
        return argv if endpoint.is_exact else (*argv, "--loose")

    def _report(self, argv: Sequence[str], env: dict[str, str], timeout_s: float) -> Metrics:
        try:
            with pinned(self.cores):
                done = subprocess.run(
                    argv,
                    env=child_environment(env),
                    capture_output=True,
                    text=True,
                    timeout=timeout_s,
                    check=False,
                )
        except subprocess.TimeoutExpired as exc:
            raise LoadError(f"{Path(argv[0]).name} was not done in {timeout_s:.0f} s") from exc
        return parsed_report(done.stdout, done.stderr)

    @contextmanager
    def held_streams(self, endpoint: Endpoint, count: int, frames: int) -> Iterator[Metrics]:
        """Keep `count` streams open inside, each after its first frame."""
        argv = (*self._stream_argv(endpoint, count, frames), "--hold", "--stagger-ms", "1000")
        with (
            pinned(self.cores),
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client,
        ):
            try:
                assert client.stdout is not None
                is_ready = select.select([client.stdout], [], [], STREAM_TIMEOUT_S + OVERTIME_S)[0]
                yield parsed_report(client.stdout.readline() if is_ready else "", "no report in time")
            finally:
                client.kill()


def parsed_report(output: str, error_output: str) -> Metrics:
    """The numbers of the last line of JSON. Raises LoadError without one, or without answers."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadError(f"no report: {(output + error_output).strip()[-300:]}")
    report = json.loads(lines[-1])
    first_error = report.pop("first_error", "")
    if not (report.get("requests") or report.get("streams") or report.get("held")):
        raise LoadError(f"no answer at all: {first_error or report}")
    if first_error:
        print(f"  a stream was lost: {first_error}", file=sys.stderr)
    return {name: float(value) for name, value in report.items()}
