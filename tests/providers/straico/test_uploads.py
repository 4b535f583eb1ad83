"""Conversations with images, through a real proxy."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.load import wait_until
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.straico import (
    PROMPT,
    UPLOAD,
    StraicoUpstream,
    always,
    failing,
    in_turn,
    running_upstream,
    v1_reply,
)
from tests.support.upstream import Exchange, straico_completion


@pytest.fixture(scope="module")
def scripted() -> Iterator[StraicoUpstream]:
    with running_upstream() as started:
        yield started


@pytest.fixture(scope="module")
def gateway(scripted: StraicoUpstream) -> Iterator[Proxy]:
    limits = {"SANIC_PROXY_MAX_BODY_BYTES": "50000000"}
    with running_proxy({**provider_settings(scripted), **limits}) as started:
        yield started
    assert "Traceback" not in started.last_log


@pytest.fixture(scope="module")
def hurried(scripted: StraicoUpstream) -> Iterator[Proxy]:
    """A proxy whose requests have 1.5 seconds in all."""
    with running_proxy({**provider_settings(scripted), "SANIC_PROXY_TIMEOUT_TOTAL": "1.5"}) as started:
        yield started


@pytest.fixture
def upstream(scripted: StraicoUpstream) -> Iterator[StraicoUpstream]:
    scripted.forget()
    scripted.on(f"POST {PROMPT}", in_turn(*[v1_reply("A cat.")] * 9))
    yield scripted
    assert not scripted.problems


def image(content: bytes, kind: str = "image/png") -> dict[str, Any]:
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def link(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


def send(gateway: Proxy, *parts: Any, **fields: Any) -> Reply:
    return gateway.chat("straico/openai/gpt-4o", **{"messages": user(*parts), **fields})


def test_an_image_is_uploaded_and_answered(gateway: Proxy, upstream: StraicoUpstream) -> None:
    content = bytes(range(256)) + b"\r\n--\r\n\n"
    reply = send(gateway, image(content, "image/jpeg"), temperature=0.1, max_tokens=5)
    assert reply.json["choices"][0]["message"]["content"] == "A cat."
    assert reply.json["model"] == "straico/openai/gpt-4o"
    assert reply.headers["x-straico-price-total"] == "0.05"
    (file,) = upstream.files
    assert (file.field_name, file.kind, file.content) == ("file", "image/jpeg", content)
    assert file.name.endswith(".jpg")
    assert upstream.prompts() == [
        {
            "models": ["openai/gpt-4o"],
            "message": "What is it?\n[image 1]",
            "images": [f"https://files.example/{file.name}"],
            "temperature": 0.1,
            "max_tokens": 5,
        }
    ]


def test_an_https_url_is_passed_on_and_never_fetched(gateway: Proxy, upstream: StraicoUpstream) -> None:
    url = f"https://127.0.0.1:{upstream.port}/cat.png"
    assert send(gateway, link(url)).status == 200
    assert upstream.prompts()[0]["images"] == [url]
    assert [seen.path for seen in upstream.requests] == [PROMPT]


def test_a_stream_is_emulated_with_images_too(gateway: Proxy, upstream: StraicoUpstream) -> None:
    reply, frames = gateway.stream("straico/m", messages=user(image(b"stream")), seed=1)
    assert reply.headers["x-sanic-proxy-dropped-params"] == "seed"
    assert any(b"A cat." in frame for frame in frames)
    assert frames[-1] == b"data: [DONE]\n\n"


def test_the_same_image_is_uploaded_once(gateway: Proxy, upstream: StraicoUpstream) -> None:
    assert send(gateway, image(b"same"), image(b"other"), image(b"same")).status == 200
    assert sorted(file.content for file in upstream.files) == [b"other", b"same"]
    first, second, third = upstream.prompts()[0]["images"]
    assert first == third != second
    turns = [*user(image(b"same")), {"role": "assistant", "content": "A cat."}, *user(image(b"new"))]
    assert gateway.chat("straico/m", messages=turns).status == 200
    assert [file.content for file in upstream.files][2:] == [b"new"]
    prompt = upstream.prompts()[1]
    assert prompt["images"][0] == first
    assert prompt["message"].index("[image 1]") < prompt["message"].index("A cat.")
    assert prompt["message"].index("A cat.") < prompt["message"].index("[image 2]")


def test_at_most_four_are_uploaded_at_once(gateway: Proxy, upstream: StraicoUpstream) -> None:
    upstream.upload_pause_s = 0.05
    images = [image(b"many %d" % number) for number in range(9)]
    assert send(gateway, *images).status == 200
    assert (len(upstream.files), upstream.busiest) == (9, 4)
    connections = [seen.connection for seen in upstream.requests if seen.path == UPLOAD]
    assert len(set(connections)) == 9  # new ones, as an upload is not repeated
    names = {file.content: file.name for file in upstream.files}
    assert upstream.prompts()[0]["images"] == [
        f"https://files.example/{names[b'many %d' % number]}" for number in range(9)
    ]


def test_tools_and_formats_work_with_images(gateway: Proxy, upstream: StraicoUpstream) -> None:
    upstream.on(f"POST {PROMPT}", in_turn(v1_reply("A cat."), v1_reply('{"animal":"cat"}')))
    reply = send(gateway, image(b"json"), response_format={"type": "json_object"})
    assert reply.json["choices"][0]["message"]["content"] == '{"animal":"cat"}'
    assert reply.json["usage"]["total_tokens"] == 22
    first, second = upstream.prompts()
    assert "one JSON object" in first["message"]
    assert second["images"] == first["images"]
    assert "A cat." in second["message"]
    assert len(upstream.files) == 1
    tools = [{"type": "function", "function": {"name": "ls"}}]
    call = '<tool_calls>[{"name":"ls","arguments":{}}]</tool_calls>'
    upstream.on(f"POST {PROMPT}", in_turn(v1_reply(call)))
    assert send(gateway, link("https://a/b"), tools=tools).json["choices"][0]["finish_reason"] == "tool_calls"


def test_without_images_the_other_endpoint_is_used(gateway: Proxy, upstream: StraicoUpstream) -> None:
    upstream.on("openai/gpt-4o", in_turn(straico_completion("Hi")))
    assert send(gateway).status == 200
    assert [seen.path for seen in upstream.requests] == ["/v2/chat/completions"]


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        (failing(401, "Token is not valid"), (502, "upstream_auth_error")),
        (failing(500, "broken"), (502, "upstream_error")),
        (
            failing(422, "The daily API limit for spending coins has been reached"),
            (429, "insufficient_quota"),
        ),
        (always({"success": True}), (502, "upstream_bad_response")),
        (always({"data": {"url": "javascript:1"}}), (502, "upstream_bad_response")),
    ],
)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_an_upload_that_fails_is_the_answers_error(
    gateway: Proxy, upstream: StraicoUpstream, upload: Any, expected: tuple[int, str], streaming: bool
) -> None:
    upstream.upload = upload
    reply = send(gateway, image(b"fails"), image(b"fails too"), stream=streaming)
    assert (reply.status, reply.error["code"]) == expected
    assert upstream.prompts() == []


def test_uploads_are_inside_the_time_of_the_request(hurried: Proxy, upstream: StraicoUpstream) -> None:
    upstream.upload_pause_s = 30.0
    started = time.monotonic()
    reply = send(hurried, *[image(b"slow %d" % number) for number in range(20)])
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - started < upstream.upload_pause_s


def test_a_disconnecting_client_cancels_its_uploads(gateway: Proxy, upstream: StraicoUpstream) -> None:
    left: list[bytes] = []

    async def waits(exchange: Exchange) -> None:
        await exchange.client_leaves()
        left.append(exchange.seen.body)

    upstream.upload = waits
    client = gateway.open_stream("straico/m", messages=user(image(b"left 1"), image(b"left 2")))
    wait_until(lambda: len(upstream.files) == 2)
    client.close()
    wait_until(lambda: len(left) == 2)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:image/png;base64,!"])
def test_other_urls_are_rejected_before_anything_is_sent(
    gateway: Proxy, upstream: StraicoUpstream, url: str
) -> None:
    reply = send(gateway, image(b"good"), link(url))
    assert (reply.status, reply.error["param"]) == (400, "messages.0.content.2.image_url")
    assert upstream.requests == []


def test_a_large_image_arrives_whole(gateway: Proxy, upstream: StraicoUpstream) -> None:
    content = bytes(range(256)) * 40_000
    assert send(gateway, image(content)).status == 200
    assert upstream.files[0].content == content
