"""The endpoints that pass through: bytes up, bytes down, however the provider is selected."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import GROQ_KEY, provider_settings
from tests.support.upstream import DONE, Exchange, Upstream

BOUNDARY = "BoUnDaRy"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
BASE = "/openai/v1"
EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}


def form(**fields: str | bytes) -> bytes:
    parts = b""
    for name, value in fields.items():
        extra = (
            "" if isinstance(value, str) else '; filename="a.bin"\r\nContent-Type: application/octet-stream'
        )
        data = value.encode() if isinstance(value, str) else value
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        parts += head.encode() + data + b"\r\n"
    return parts + f"--{BOUNDARY}--\r\n".encode()


def script_answer(
    upstream: Upstream, path: str, answer: Any, *headers: tuple[str, str], kind: str = ""
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer, 200, *headers, **({"kind": kind} if kind else {}))

    upstream.on(path, script)


# JSON up and down


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_the_model_names_the_provider_and_no_other_byte_changes(
    proxy: Proxy, upstream: Upstream, prefix: str
) -> None:
    script_answer(upstream, "embed", EMBEDDINGS, ("x-ratelimit-limit-requests", "9"))
    body = b'{ "input":["a",  "\\u00e4"],"model" : "groq/embed", "n": 12345678901234567890123 }'
    reply = proxy.request("POST", f"{prefix}/embeddings", body)
    assert (reply.status, reply.json) == (200, EMBEDDINGS)
    assert reply.headers["x-sanic-proxy-provider"] == "groq"
    assert reply.headers["x-ratelimit-limit-requests"] == "9"
    seen = upstream.requests[-1]
    assert seen.body == body.replace(b"groq/embed", b"embed")
    assert (seen.method, seen.path, seen.header("authorization")) == (
        "POST",
        f"{BASE}/embeddings",
        f"Bearer {GROQ_KEY}",
    )
    line = proxy.log_line(reply.headers["x-request-id"])
    assert "provider=groq model=groq/embed" in line
    assert "prompt_tokens=3" in line


@pytest.mark.parametrize(
    "path",
    [
        "/completions",
        "/moderations",
        "/rerank",
        "/images/generations",
        "/images/edits",
        "/audio/speech",
        "/batches",
    ],
)
def test_every_endpoint_that_takes_json_passes(proxy: Proxy, upstream: Upstream, path: str) -> None:
    answer = {"object": "x", "choices": [{"text": "a"}]}
    script_answer(upstream, f"POST {BASE}{path}", answer)
    reply = proxy.request("POST", f"/v1{path}", {"model": "groq/m"}, {"accept": "application/json"})
    assert (reply.status, reply.json) == (200, answer)
    assert upstream.requests[-1].json == {"model": "m"}
    assert upstream.requests[-1].header("accept") == "application/json"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/embeddings", {"x-provider": "Groq"}),
        ("/embeddings?provider=groq", {}),
        ("/embeddings?provider=groq", {"x-provider": "groq"}),
    ],
)
def test_a_provider_that_is_named_gets_the_bytes_as_they_are(
    proxy: Proxy, upstream: Upstream, path: str, headers: dict[str, str]
) -> None:
    script_answer(upstream, f"POST {BASE}/embeddings", EMBEDDINGS)
    body = b'{"model":"openai/text-embedding","input":"x"}'
    assert proxy.request("POST", f"/v1{path}", body, headers).status == 200
    seen = upstream.requests[-1]
    assert (seen.path, seen.body) == (f"{BASE}/embeddings", body)


def test_what_else_stands_in_the_query_goes_up(proxy: Proxy, upstream: Upstream) -> None:
    script_answer(upstream, f"GET {BASE}/files?after=f%201&limit=2", {"object": "list", "data": []})
    reply = proxy.request("GET", "/v1/files?after=f%201&provider=groq&limit=2")
    assert reply.json == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("method", "path", "up"),
    [
        ("GET", "/files/file-1.a_b", "/files/file-1.a_b"),
        ("DELETE", "/files/file-1", "/files/file-1"),
        ("GET", "/batches/batch_1", "/batches/batch_1"),
        ("POST", "/batches/batch_1/cancel", "/batches/batch_1/cancel"),
    ],
)
def test_resources_are_reached_by_their_id(
    proxy: Proxy, upstream: Upstream, method: str, path: str, up: str
) -> None:
    script_answer(upstream, f"{method} {BASE}{up}", {"id": "x"})
    assert proxy.request(method, f"/v1{path}", headers={"x-provider": "groq"}).json == {"id": "x"}
    assert upstream.requests[-1].body == b""


@pytest.mark.row(54)
@pytest.mark.parametrize("resource", ["..", ".", "a%2fb", "a%20b", "%2e%2e", "a;b", "x" * 300, "a%0d%0ab"])
def test_an_id_cannot_lead_elsewhere(proxy: Proxy, upstream: Upstream, resource: str) -> None:
    reply = proxy.request("GET", f"/v1/files/{resource}", headers={"x-provider": "groq"})
    assert (reply.status, reply.error["type"]) == (404, "invalid_request_error")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("route", "body", "headers", "expected"),
    [
        ("POST /v1/embeddings", {"input": "x"}, {}, (400, None)),
        ("GET /v1/files", None, {}, (400, None)),
        ("DELETE /v1/files/f", None, {}, (400, None)),
        ("POST /v1/batches", {"input_file_id": "f"}, {}, (400, None)),
        ("POST /v1/embeddings", {"model": 3}, {}, (400, None)),
        ("POST /v1/embeddings", b"{", {"x-provider": "groq"}, (400, None)),
        ("POST /v1/embeddings", {}, {"x-provider": "nope"}, (400, "provider_not_found")),
        ("POST /v1/embeddings", {}, {"x-provider": "openai"}, (400, "provider_not_configured")),
        ("POST /v1/embeddings?provider=echo", {}, {"x-provider": "groq"}, (400, None)),
        ("POST /v1/embeddings?provider=echo&provider=groq", {}, {}, (400, None)),
        ("POST /v1/embeddings", {"model": "nope/x"}, {}, (404, "model_not_found")),
        ("POST /v1/embeddings", {"model": "straico/x"}, {}, (404, "endpoint_not_found")),
        ("POST /v1/completions", {"model": "straico/x", "stream": True}, {}, (404, "endpoint_not_found")),
        ("GET /v1/files", None, {"x-provider": "echo"}, (404, "endpoint_not_found")),
        (
            "POST /v1/embeddings",
            b"a=b",
            {"content-type": "application/x-www-form-urlencoded"},
            (415, "unsupported_media_type"),
        ),
        ("POST /v1/embeddings", form(model="groq/x"), FORM, (415, "unsupported_media_type")),
        ("POST /v1/chat/completions", form(model="groq/x"), FORM, (415, "unsupported_media_type")),
        ("PUT /v1/files/f", None, {"x-provider": "groq"}, (405, "method_not_allowed")),
        ("GET /v1/files?a=%22&provider=groq&b=\x22", None, {}, (400, None)),
    ],
)
def test_a_request_that_cannot_be_forwarded_is_a_clear_error(
    proxy: Proxy,
    upstream: Upstream,
    route: str,
    body: Any,
    headers: dict[str, str],
    expected: tuple[int, str | None],
) -> None:
    method, path = route.split()
    reply = proxy.request(method, path, body, headers)
    assert (reply.status, reply.error["code"]) == expected
    assert reply.error["type"] == "invalid_request_error"
    assert not upstream.requests


def test_a_provider_without_the_endpoint_is_a_404(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"<html><h1>404 Not Found</h1></html>", 404, kind="text/html")

    upstream.on(f"POST {BASE}/moderations", script)
    reply = proxy.request("POST", "/v1/moderations", {"model": "groq/m", "input": "x"})
    assert (reply.status, reply.error["type"]) == (404, "invalid_request_error")
    assert "<" not in reply.error["message"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>log in</html>", "text/html"),
        (b"not json", "application/json"),
        (b'{"error":{"message":"no","type":"t"}}', "application/json"),
        (b'{"code":20012,"message":"no"}', "application/json"),
        (b'{"object":"error","message":"no","code":500}', "application/json"),
        (b'{"base_resp":{"status_code":1004,"status_msg":"no"}}', "application/json"),
        (b'{"code":20012,"message":"no"}', "text/event-stream"),
        (b'error: {"message":"no"}', "text/event-stream"),
    ],
)
@pytest.mark.parametrize("path", ["/embeddings", "/rerank", "/images/generations", "/audio/speech"])
def test_an_invalid_success_is_a_502(
    proxy: Proxy, upstream: Upstream, path: str, body: bytes, kind: str
) -> None:
    script_answer(upstream, f"POST {BASE}{path}", body, kind=kind)
    reply = proxy.request("POST", f"/v1{path}", {"model": "groq/m"})
    assert reply.status == 502
    assert "log in" not in reply.error["message"]


def test_a_status_other_than_200_stays(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"id": "b", "object": "batch", "error": {"message": "a field of it"}}, 201)

    upstream.on(f"POST {BASE}/batches", script)
    reply = proxy.request("POST", "/v1/batches", {}, {"x-provider": "groq"})
    assert (reply.status, reply.json["id"]) == (201, "b")


def test_a_chat_may_name_its_provider_too(proxy: Proxy, upstream: Upstream) -> None:
    reply = proxy.chat("openai/anything", headers={"x-provider": "echo"})
    assert reply.status == 404  # the echo provider got the request, and has no such model
    assert reply.error["code"] == "model_not_found"
    assert not upstream.requests


# Completions, and other streams


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    return (
        b"data: "
        + json.dumps({"id": "c", "object": "text_completion", "choices": [choice]}).encode()
        + b"\n\n"
    )


def test_a_stream_of_completions_passes_byte_for_byte(proxy: Proxy, upstream: Upstream) -> None:
    frames = [chunk("a"), chunk("b", "stop"), DONE]

    async def script(exchange: Exchange) -> None:
        await exchange.stream(frames)

    upstream.on("m", script)
    reply = proxy.request("POST", "/v1/completions", {"model": "groq/m", "prompt": "x", "stream": True})
    assert reply.body == b"".join(frames)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_stream_of_completions_that_is_cut_ends_with_an_error(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream([chunk("a")])

    upstream.on("m", script)
    reply = proxy.request("POST", "/v1/completions", {"model": "groq/m", "prompt": "x", "stream": True})
    assert b'"code":"upstream_disconnected"' in reply.body
    assert DONE not in reply.body


@pytest.mark.row(20, 23)
@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (DONE, "text/event-stream", "upstream_empty_response"),
        (b'{"choices":[]}', "application/json", "upstream_empty_response"),
        (b"<html>", "text/html", "upstream_bad_response"),
        (b'{"error":{"message":"no","code":429}}', "text/event-stream", "rate_limit_exceeded"),
    ],
)
def test_a_stream_of_completions_without_content_is_an_error(
    proxy: Proxy, upstream: Upstream, body: bytes, kind: str, code: str
) -> None:
    script_answer(upstream, "m", body, kind=kind)
    reply = proxy.request("POST", "/v1/completions", {"model": "groq/m", "prompt": "x", "stream": True})
    assert reply.status >= 400
    assert reply.error["code"] == code


@pytest.mark.row(21)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
def test_a_whole_text_completion_to_a_streaming_request_becomes_a_stream(
    proxy: Proxy, upstream: Upstream, kind: str
) -> None:
    answer = json.loads(chunk("a b", "stop")[6:])
    script_answer(upstream, "m", json.dumps(answer, indent=1).encode(), kind=kind)
    reply = proxy.request("POST", "/v1/completions", {"model": "groq/m", "prompt": "x", "stream": True})
    frame, done = reply.body.split(b"\n\n", 1)
    assert json.loads(frame[6:]) == answer
    assert done == DONE


def test_json_labelled_as_an_event_stream_is_json(proxy: Proxy, upstream: Upstream) -> None:
    script_answer(upstream, "embed", EMBEDDINGS, kind="text/event-stream")
    reply = proxy.request("POST", "/v1/embeddings", {"model": "groq/embed", "input": "x"})
    assert (reply.status, reply.json) == (200, EMBEDDINGS)
    assert reply.headers["content-type"] == "application/json"


def test_a_silent_stream_of_completions_is_kept_alive(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(1)
        await exchange.stream([chunk("a", "stop"), DONE])

    upstream.on("m", script)
    reply = proxy.request("POST", "/v1/completions", {"model": "groq/m", "prompt": "x", "stream": True})
    assert reply.body.startswith(b": ping\n")
    assert reply.body.endswith(DONE)


EVENTS = [
    b'event: image_generation.partial_image\r\ndata: {"type":"image_generation.partial_image"}\r\n\r\n',
    b'event: image_generation.completed\ndata: {"type": "image_generation.completed", "b64_json": "'
    + b"A" * 300_000,
    b'"}\n\n',
]


def test_a_stream_of_another_kind_passes_byte_for_byte(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(EVENTS, pause_s=0.02)

    upstream.on("img", script)
    reply = proxy.request("POST", "/v1/images/generations", {"model": "groq/img", "stream": True})
    assert reply.body == b"".join(EVENTS)


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_cut_stream_of_another_kind_ends_with_an_error(proxy: Proxy, upstream: Upstream, end: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(EVENTS[0] + b"data: half a fra")
        await asyncio.sleep(0.05)
        getattr(exchange, end)()

    upstream.on("img", script)
    reply = proxy.request("POST", "/v1/images/generations", {"model": "groq/img", "stream": True})
    assert reply.body.startswith(EVENTS[0])
    assert b"half" not in reply.body
    assert json.loads(reply.body[len(EVENTS[0]) + 6 :])["error"]["code"] == "upstream_disconnected"


@pytest.mark.parametrize(
    ("last", "is_good"),
    [(b'data: {"type":"speech.audio.done"}\n\n', True), (b'data: {"type":"x"}\n\n', False)],
)
def test_a_stream_without_length_needs_an_event_that_ends_it(
    proxy: Proxy, upstream: Upstream, last: bytes, is_good: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("connection", "close"), kind="text/event-stream")
        await exchange.send(b'data: {"type":"speech.audio.delta"}\n\n' + last)
        exchange.close()

    upstream.on("speak", script)
    reply = proxy.request("POST", "/v1/audio/speech", {"model": "groq/speak", "stream_format": "sse"})
    assert (b"upstream_disconnected" not in reply.body) == is_good
    assert last in reply.body


# Files down


def test_what_is_spoken_comes_as_it_is(proxy: Proxy, upstream: Upstream) -> None:
    sound = bytes(range(256)) * 4000
    script_answer(
        upstream, "tts", sound, ("content-disposition", "attachment; filename=a.mp3"), kind="audio/mpeg"
    )
    reply = proxy.request("POST", "/v1/audio/speech", {"model": "groq/tts", "input": "x", "voice": "y"})
    assert reply.body == sound
    assert reply.headers["content-type"] == "audio/mpeg"
    assert reply.headers["content-length"] == str(len(sound))
    assert reply.headers["content-disposition"] == "attachment; filename=a.mp3"


def test_a_file_is_passed_unchanged_whatever_its_content(proxy: Proxy, upstream: Upstream) -> None:
    script_answer(upstream, f"GET {BASE}/files/f/content", b'{"error": 1}\nnot json', kind="application/json")
    reply = proxy.request("GET", "/v1/files/f/content?provider=groq")
    assert reply.body == b'{"error": 1}\nnot json'


def test_a_file_without_length_comes_in_chunks(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("transfer-encoding", "chunked"), kind="audio/ogg")
        for _ in range(3):
            await exchange.chunk(b"x" * 70_000)
        await exchange.end_stream()

    upstream.on("tts", script)
    reply = proxy.request("POST", "/v1/audio/speech", {"model": "groq/tts"})
    assert reply.body == b"x" * 210_000
    assert reply.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("framing", [("content-length", "1000"), ("transfer-encoding", "chunked")])
def test_a_file_that_is_cut_never_looks_whole(
    proxy: Proxy, upstream: Upstream, framing: tuple[str, str]
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, framing, kind="audio/mpeg")
        await (exchange.chunk if framing[1] == "chunked" else exchange.send)(b"x" * 100)
        await asyncio.sleep(0.05)
        exchange.close()

    upstream.on("tts", script)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        proxy.request(
            "POST", "/v1/audio/speech", {"model": "groq/tts"}, {"x-request-id": f"cut-{framing[0]}"}
        )
    assert "ended=upstream_disconnected" in proxy.log_line(f"cut-{framing[0]}")


def test_a_large_file_is_not_held_in_memory(proxy: Proxy, upstream: Upstream) -> None:
    piece, count = b"x" * 1024 * 1024, 100

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", str(len(piece) * count)), kind="application/octet-stream")
        for _ in range(count):
            await exchange.send(piece)

    upstream.on(f"GET {BASE}/files/big/content", script)
    before = peak_kib(proxy)
    size = 0
    with connected(proxy) as connection:
        connection.request("GET", "/v1/files/big/content", headers={"x-provider": "groq"})
        answer = connection.getresponse()
        time.sleep(0.3)  # the proxy could read on
        while data := answer.read(1024 * 1024):
            size += len(data)
    assert size == len(piece) * count
    assert peak_kib(proxy) - before < 20_000


def connected(proxy: Proxy) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60))


def peak_kib(proxy: Proxy) -> int:
    """The most memory that the worker ever had."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


# Forms up


@pytest.mark.parametrize(
    "path", ["/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations"]
)
@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_form_passes_with_its_model_changed(
    proxy: Proxy, upstream: Upstream, path: str, order: str
) -> None:
    script_answer(upstream, f"POST {BASE}{path}", {"text": "hello"})
    fields: dict[str, str | bytes] = {
        "file": bytes(range(256)) * 40,
        "model": "groq/whisper-1",
        "language": "en",
    }
    if order == "before":
        fields = dict(sorted(fields.items(), reverse=True))
    reply = proxy.request("POST", f"/v1{path}", form(**fields), FORM)
    assert (reply.status, reply.json) == (200, {"text": "hello"})
    seen = upstream.requests[-1]
    assert seen.body == form(**{**fields, "model": "whisper-1"})
    assert seen.header("content-type") == FORM["content-type"]
    assert seen.header("content-length") == str(len(seen.body))


def test_a_form_in_chunks_passes_in_chunks(proxy: Proxy, upstream: Upstream) -> None:
    script_answer(
        upstream, f"POST {BASE}/audio/transcriptions", b"1\n00:00 --> 00:01\nhello", kind="text/plain"
    )
    body = form(file=b"x" * 1000, model="groq/whisper-1")
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    with connected(proxy) as connection:
        connection.request("POST", "/v1/audio/transcriptions", iter(pieces), FORM, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.read() == b"1\n00:00 --> 00:01\nhello"
        assert answer.getheader("content-type") == "text/plain"
    assert upstream.requests[-1].body == form(file=b"x" * 1000, model="whisper-1")
    assert upstream.requests[-1].header("transfer-encoding") == "chunked"


def test_a_form_whose_provider_is_named_passes_unread(proxy: Proxy, upstream: Upstream) -> None:
    script_answer(upstream, f"POST {BASE}/files", {"id": "file-1", "object": "file"})
    body = form(purpose="batch", model="openai/x", file=b"{}\n")
    reply = proxy.request("POST", "/v1/files?provider=groq", body, FORM)
    assert reply.json["id"] == "file-1"
    assert upstream.requests[-1].body == body


def test_a_transcription_may_be_streamed(proxy: Proxy, upstream: Upstream) -> None:
    frames = [
        b'data: {"type":"transcript.text.delta","delta":"a"}\n\n',
        b'data: {"type":"transcript.text.done"}\n\n',
    ]

    async def script(exchange: Exchange) -> None:
        await exchange.stream(frames)

    upstream.on(f"POST {BASE}/audio/transcriptions", script)
    reply = proxy.request(
        "POST", "/v1/audio/transcriptions", form(model="groq/w", file=b"x", stream="true"), FORM
    )
    assert reply.body == b"".join(frames)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(file=b"x"), 400),
        (form(model="groq/a", file=b"x")[:-6], 400),
        (form(file=b"x", model="groq/a")[:-30], 400),
        (form(model="groq/a").replace(b"--\r\n", b"\r\n") + form(model="groq/b"), 400),
        (form(model="nope/a", file=b"x"), 404),
        (form(model="", file=b"x"), 404),
        (form(model="\x00", file=b"x"), 404),
        (form(model=b"\xff"), 404),
        (form(model="straico/x", file=b"x"), 404),
        (b"", 400),
        (b"not a form", 400),
    ],
)
def test_a_form_that_cannot_be_forwarded_is_a_clear_error(
    proxy: Proxy, upstream: Upstream, body: bytes, status: int
) -> None:
    script_answer(upstream, f"POST {BASE}/audio/transcriptions", {"text": "hello"})
    reply = proxy.request("POST", "/v1/audio/transcriptions", body, FORM)
    assert (reply.status, reply.error["type"]) == (status, "invalid_request_error")
    assert proxy.request("GET", "/health").status == 200


@pytest.fixture(scope="module")
def small(shared_upstream: Upstream) -> Iterator[Proxy]:
    """A proxy that takes uploads of 40 MB, in 100 kB of memory beside, and waits a second."""
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_MAX_BODY_BYTES": "10000",
        "SANIC_PROXY_MAX_UPLOAD_BYTES": "40000000",
        "SANIC_PROXY_TIMEOUT_IDLE": "1",
        "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "1",
    }
    with running_proxy(settings) as started:
        yield started


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_large_upload_is_held_neither_in_memory_nor_at_all(
    small: Proxy, upstream: Upstream, named: bool
) -> None:
    script_answer(upstream, f"POST {BASE}/audio/transcriptions", {"text": "hello"})
    body = form(file=b"\r\n-" * 12_000_000, model="groq/w")
    before = peak_kib(small)
    reply = small.request(
        "POST", "/v1/audio/transcriptions", body, {**FORM, **({"x-provider": "groq"} if named else {})}
    )
    assert reply.json == {"text": "hello"}
    assert peak_kib(small) - before < 15_000
    assert len(upstream.requests[-1].body) == len(body) - (0 if named else len("groq/"))
    assert not open_files(small)


def open_files(proxy: Proxy) -> list[str]:
    """Temporary files that the worker has open, shared memory excepted."""
    targets = [
        entry.readlink() for entry in Path(f"/proc/{proxy.process.pid}/fd").iterdir() if entry.is_symlink()
    ]
    return [str(path) for path in targets if "(deleted)" in str(path) and not str(path).startswith("/memfd:")]


@pytest.mark.row(44)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
def test_an_upload_past_the_limit_is_a_413(
    small: Proxy, upstream: Upstream, named: bool, chunked: bool
) -> None:
    script_answer(upstream, f"POST {BASE}/audio/transcriptions", {"text": "hello"})
    body = form(file=b"x" * 40_000_000, model="groq/w")
    headers = {**FORM, **({"x-provider": "groq"} if named else {})}
    if not chunked:
        headers["content-length"] = str(len(body))
    pieces = iter([body[start : start + 65536] for start in range(0, len(body), 65536)])
    with connected(small) as connection:
        connection.request("POST", "/v1/audio/transcriptions", pieces, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "request_too_large")
    assert not open_files(small)


def head(path: str, *lines: str) -> bytes:
    """The head of a form, for a client that is to stop in the middle of it."""
    opening = [f"POST {path} HTTP/1.1", "host: localhost", f"content-type: {FORM['content-type']}", *lines]
    return "\r\n".join([*opening, "", ""]).encode()


@pytest.mark.row(34)
def test_an_early_answer_ends_the_upload(small: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        error = {"message": "too long", "type": "invalid_request_error", "param": "file", "code": None}
        await exchange.answer({"error": error}, 413)
        await exchange.client_leaves()

    upstream.on_head(f"POST {BASE}/audio/transcriptions", script)
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        body = form(model="groq/w", file=b"x" * 1_000_000)
        client.sendall(head("/v1/audio/transcriptions", f"content-length: {len(body)}") + body[:200_000])
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too long" in answer


def test_a_provider_that_takes_nothing_is_given_up(small: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    upstream.on_head(f"POST {BASE}/files", script)
    began = time.monotonic()
    reply = small.request("POST", "/v1/files?provider=groq", form(file=b"x" * 30_000_000), FORM)
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - began < 30


def test_a_provider_that_never_answers_an_upload_is_given_up(small: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on(f"POST {BASE}/files", script)
    reply = small.request("POST", "/v1/files?provider=groq", form(file=b"x"), FORM)
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")


@pytest.mark.row(40)
def test_a_client_that_disconnects_cancels_its_upload(small: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()
        upstream.left.append("upload")

    upstream.left.clear()
    upstream.on_head(f"POST {BASE}/files", script)
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        lines = ("x-request-id: left-1", "content-length: 100000")
        client.sendall(head("/v1/files?provider=groq", *lines) + form(file=b"x"))
        wait_until(lambda: bool(upstream.requests))
    assert "status=499" in small.log_line("left-1")
    wait_until(lambda: upstream.left == ["upload"])


def test_a_client_that_waits_for_leave_gets_it(small: Proxy, upstream: Upstream) -> None:
    script_answer(upstream, f"POST {BASE}/files", {"id": "f"})
    body = form(file=b"x")
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        lines = ("expect: 100-continue", f"content-length: {len(body)}")
        client.sendall(head("/v1/files?provider=groq", *lines))
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_behind_an_unread_upload_are_served(small: Proxy) -> None:
    body = form(file=b"x" * 600_000)
    opening = head("/v1/embeddings", f"content-length: {len(body)}")
    pipelined = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = small.raw(opening + body + pipelined)
    assert answer.startswith(b"HTTP/1.1 415")
    assert b'{"status":"ok"}' in answer


@pytest.mark.parametrize("more", [b"x=\xff; boundary=B", b"boundary=a; boundary=B"])
def test_a_content_type_that_could_not_go_up_is_refused(small: Proxy, more: bytes) -> None:
    lines = [b"POST /v1/files?provider=groq HTTP/1.1", b"host: localhost", b"connection: close"]
    lines += [b"content-type: multipart/form-data; " + more, b"content-length: 1", b"", b"x"]
    assert small.raw(b"\r\n".join(lines)).startswith(b"HTTP/1.1 400")


def test_a_client_that_sends_its_form_too_slowly_gets_an_error(
    shared_upstream: Upstream, upstream: Upstream
) -> None:
    script_answer(upstream, f"POST {BASE}/files", {"id": "f"})
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_TIMEOUT_TOTAL": "0.5"}
    with running_proxy(settings) as proxy:
        body = form(file=b"x" * 1000)
        opening = head("/v1/files?provider=groq", "content-length: 100000")
        answer = proxy.raw(opening + body, wait_s=2)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in answer


@pytest.mark.parametrize("path", ["/embeddings", "/audio/speech"])
def test_a_switch_of_protocols_is_no_success(proxy: Proxy, upstream: Upstream, path: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
        exchange.close()

    upstream.on("m", script)
    assert proxy.request("POST", f"/v1{path}", {"model": "groq/m"}).status == 502


def test_an_answer_without_content_has_nothing_behind_its_head(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    upstream.on(f"GET {BASE}/files/f/content", script)
    answer = proxy.raw(b"GET /v1/files/f/content?provider=groq HTTP/1.1\r\nhost: localhost\r\n\r\n", 1)
    assert answer.startswith(b"HTTP/1.1 204")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.slow
def test_a_client_that_reads_on_gets_all_of_its_last_answer(proxy: Proxy, upstream: Upstream) -> None:
    size = 14_000_000
    script_answer(upstream, "img", b'{"data": "' + b"A" * size + b'"}')
    body = b'{"model":"groq/img"}'
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", proxy.port))
        client.settimeout(60)
        lines = ["POST /v1/images/generations HTTP/1.1", "host: localhost", "connection: close"]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        client.sendall("\r\n".join(lines).encode() + body)
        received = 0
        while piece := client.recv(65536):
            received += len(piece)
            time.sleep(len(piece) / 2_000_000)  # it takes 7 s, and Sanic would wait for 5
    assert received > size


# With the official client


@pytest.fixture
def client(proxy: Proxy) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def test_the_official_client_embeds_speaks_and_listens(client: openai.OpenAI, upstream: Upstream) -> None:
    script_answer(upstream, "embed", EMBEDDINGS)
    assert client.embeddings.create(model="groq/embed", input="x", encoding_format="float").data[
        0
    ].embedding == [0.25]
    script_answer(upstream, "tts", b"ID3sound", kind="audio/mpeg")
    assert client.audio.speech.create(model="groq/tts", voice="alloy", input="x").content == b"ID3sound"
    script_answer(upstream, f"POST {BASE}/audio/transcriptions", {"text": "hello"})
    assert client.audio.transcriptions.create(model="groq/w", file=("a.wav", b"RIFF")).text == "hello"


def test_the_official_client_keeps_files_and_batches(client: openai.OpenAI, upstream: Upstream) -> None:
    file = {"id": "f", "object": "file", "bytes": 3, "created_at": 1, "filename": "a", "purpose": "batch"}
    script_answer(upstream, f"POST {BASE}/files", {**file, "status": "processed"})
    script_answer(upstream, f"GET {BASE}/files/f/content", b"{}\n", kind="application/octet-stream")
    script_answer(upstream, f"POST {BASE}/batches", {"id": "b", "object": "batch", "status": "validating"})
    at_groq = client.with_options(default_headers={"x-provider": "groq"})
    assert at_groq.files.create(file=("a.jsonl", b"{}\n"), purpose="batch").id == "f"
    assert at_groq.files.content("f").content == b"{}\n"
    made = at_groq.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h")
    assert made.id == "b"
