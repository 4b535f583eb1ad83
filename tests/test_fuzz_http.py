"""Invalid and unusual requests through a real proxy: answered or refused, and never a 5xx."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.faulty import faulty_upstream
from tests.support.odd import CONVERSATIONS, OBJECTS, VALUES
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import GROQ_KEY, ONCE

BOUNDARY = b"b0undary"
FUZZED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PATHS = st.sampled_from(
    ["/v1/chat/completions", "/v1/embeddings", "/v1/audio/transcriptions", "/v1/files", "/nothing"]
)
MODELS = st.sampled_from(["echo/echo", "groq/good", "nobody/x", ""]) | st.text(max_size=20)
NO_BODY = b'{"error":{"message":"none","type":"","param":null,"code":null}}'  # as the answer to a HEAD
LAST = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
GOOD_BODY = b'{"model":"echo/echo","messages":[{"role":"user","content":"x"}],"stream":false}'
NAMES = st.sampled_from(
    [
        *(
            "content-type",
            "content-length",
            "transfer-encoding",
            "expect",
            "connection",
            "upgrade",
            "host",
            "origin",
        ),
        *(
            "x-provider",
            "authorization",
            "content-encoding",
            "x-request-id",
            "accept",
            "te",
            "cookie",
            "x-api-key",
        ),
    ]
)
TEXTS = st.sampled_from(
    [
        *(
            "application/json",
            "multipart/form-data",
            f"multipart/form-data; boundary={BOUNDARY.decode()}",
            "text/plain",
        ),
        *(
            "0",
            "1",
            "99",
            "-1",
            "chunked",
            "gzip",
            "close",
            "keep-alive",
            "100-continue",
            "groq",
            "echo",
            "*",
            "",
        ),
    ]
) | st.text(st.characters(max_codepoint=0x2FF), max_size=20)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Proxy]:
    with faulty_upstream() as (_, port):
        url = f"http://127.0.0.1:{port}/v1"
        with running_proxy(
            {**ONCE, "GROQ_API_KEY": GROQ_KEY, "GROQ_BASE_URL": url, "SANIC_PROXY_ECHO": "on"}
        ) as proxy:
            yield proxy
        assert "Traceback" not in proxy.log


def judge(status: int, body: bytes) -> None:
    """An answer below 500; a refusal has all of an error's fields."""
    assert status < 500, body
    if status >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]


def judge_raw(proxy: Proxy, request: bytes) -> int:
    """All answers to raw bytes with a good request behind them; how many there were.

    None is an answer, too: what has come may not be a request yet.
    """
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.1) as client:
        client.sendall(request + LAST)
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := client.recv(65536):
                received += piece
    proxy.check(received)
    count = 0
    while received.startswith(b"HTTP/1.1 "):
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"\ncontent-length: (\d+)", head)
        size = 0 if length is None else int(length[1])
        judge(int(head[9:12]), received[:size] if size else NO_BODY)
        received = received[size:]
        count += 1
    return count


def judge_posted(proxy: Proxy, path: str, body: bytes, headers: dict[str, str]) -> None:
    reply = proxy.request("POST", path, body, headers)
    judge(reply.status, reply.body)


@pytest.mark.row(45, 51, 52)
@given(path=PATHS, model=MODELS | VALUES, messages=CONVERSATIONS | VALUES, fields=OBJECTS, stream=VALUES)
@FUZZED
def test_no_json_is_our_failure(
    fuzzed: Proxy, path: str, model: Any, messages: Any, fields: dict[str, Any], stream: Any
) -> None:
    body = {**fields, "model": model, "messages": messages, "stream": stream}
    judge_posted(fuzzed, path, json.dumps(body).encode("utf-8", "surrogatepass"), {})


@given(path=PATHS, at=st.integers(0, len(GOOD_BODY)), cut=st.integers(0, 9), instead=st.binary(max_size=9))
@FUZZED
def test_no_damage_to_json_is_our_failure(
    fuzzed: Proxy, path: str, at: int, cut: int, instead: bytes
) -> None:
    judge_posted(fuzzed, path, GOOD_BODY[:at] + instead + GOOD_BODY[at + cut :], {})


@given(
    path=PATHS,
    headers=st.lists(st.tuples(NAMES | st.text(max_size=9), TEXTS), max_size=5),
    body=st.binary(max_size=99),
)
@FUZZED
def test_no_header_is_our_failure(
    fuzzed: Proxy, path: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    judge_raw(fuzzed, head.encode("utf-8", "surrogatepass") + body)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    judge_raw(
        fuzzed,
        head.replace("content-length: ", "transfer-encoding: chunked\r\nx: ").encode("utf-8", "surrogatepass")
        + chunks,
    )


@given(
    target=st.binary(max_size=60)
    | st.text(max_size=30).map(lambda text: f"/v1/models/{text}".encode("utf-8", "surrogatepass"))
)
@FUZZED
def test_no_target_is_our_failure(fuzzed: Proxy, target: bytes) -> None:
    judge_raw(fuzzed, b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % target)


@given(data=st.binary(max_size=200))
@FUZZED
def test_no_bytes_are_our_failure(fuzzed: Proxy, data: bytes) -> None:
    judge_raw(fuzzed, data)


def test_the_judge_sees_the_answers(fuzzed: Proxy) -> None:
    assert judge_raw(fuzzed, LAST.replace(b"connection: close", b"x: y")) == 2
    assert judge_raw(fuzzed, b"nonsense\r\n\r\n") == 1
    with pytest.raises(AssertionError):
        judge(500, NO_BODY)
    with pytest.raises(KeyError):
        judge(400, b"{}")


PARTS = st.lists(
    st.sampled_from(
        [
            *(
                b"--" + BOUNDARY,
                b"--",
                b"\r\n",
                b"\n",
                b"\r\n\r\n",
                b"content-disposition: form-data; ",
                b'name="model"',
            ),
            *(
                b'name="file"; filename="a"',
                b"groq/good",
                b"echo/echo",
                b"content-type: x\r\n",
                b";",
                b'"',
                b"\\",
            ),
        ]
    )
    | st.binary(max_size=9),
    max_size=14,
)
HEAD = b"--" + BOUNDARY + b'\r\ncontent-disposition: form-data; name="model"\r\n\r\n'


@given(
    before=PARTS,
    value=st.sampled_from([b"groq/good", b"nobody/x", b"\xff"]) | st.binary(max_size=9),
    after=PARTS,
)
@FUZZED
def test_no_form_is_our_failure(fuzzed: Proxy, before: list[bytes], value: bytes, after: list[bytes]) -> None:
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    whole = HEAD + value + b"\r\n" + b"".join(after) + b"\r\n--" + BOUNDARY + b"--\r\n"
    for body in (whole, b"".join(before) + whole, b"".join(before + after)):
        try:
            reply = fuzzed.request("POST", "/v1/audio/transcriptions", body, kind)
        except (http.client.HTTPException, ConnectionError):
            pytest.fail("no answer")
        judge(reply.status, reply.body)
