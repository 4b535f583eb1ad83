"""Paths that are not offered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sanic_proxy.app import app
from sanic_proxy.errors import ProxyError, Unauthorized
from sanic_proxy.server import unknown_paths
from tests.support.proxy import Proxy, running_proxy

URL = "http://localhost:8000"
CHAT = "/v1/chat/completions"
BODY = {"model": "echo/echo", "input": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def locked() -> Iterator[Proxy]:
    with running_proxy({"SANIC_PROXY_API_KEYS": "client-key-0123"}) as started:
        yield started


def test_what_is_offered_are_the_apps_routes_below_v1() -> None:
    routes = {re.sub(r"<\w+:\w+>", "<id>", f"/{route.path}") for route in app.router.routes}
    assert {path.removeprefix("/v1") for path in routes if path.startswith("/v1/")} == set(
        unknown_paths.OFFERED
    )
    assert not any(unknown_paths.is_foreign(path) for path in routes)


PATHS = [
    # The base URL
    ("//v1/chat/completions", CHAT, "openai"),
    ("/v1//chat/completions", CHAT, "openai"),
    ("/v1/v1/chat/completions", CHAT, "openai"),
    ("/v1/v1/v1/models", "/v1/models", "openai"),
    ("/v1/chat/completions/chat/completions", CHAT, "openai"),
    ("/chat/completions/v1/embeddings", "/v1/embeddings", "openai"),
    ("/openai/v2/chat/completions", CHAT, "openai"),
    ("/api/v1/chat/completions", CHAT, "openai"),
    ("/v1beta/openai/chat/completions", CHAT, "openai"),
    ("/V1/Chat/Completions", CHAT, "openai"),
    ("/v1/chat/completion", CHAT, "openai"),
    ("/v1/chat", None, "openai"),
    ("/v1/threads/t/messages", None, "openai"),
    ("/v1/" + "x/" * 3000, None, "openai"),
    ("/v1/v1/files/{x}", "/v1/files/", "openai"),
    # Other APIs
    ("/v1/v1/messages", "/v1/messages", "anthropic"),
    ("//v1/messages/", "/v1/messages", "anthropic"),
    ("/anthropic/v1/messages", "/v1/messages", "anthropic"),
    ("/v1/messages/v1/messages", "/v1/messages", "anthropic"),
    ("/v1/messages/batches", None, "anthropic"),
    ("/v1/complete", CHAT, "anthropic"),
    ("/v1/v1/responses", "/v1/responses", "openai"),
    ("/v1beta/tunedModels/x:generateContent", CHAT, "gemini"),
    ("/gemini/v1beta/models/gemini-2.5-pro:generateContent", CHAT, "gemini"),
    ("/v1alpha/models/x:countTokens", CHAT, "gemini"),
    ("/v1/projects/p/locations/l/publishers/google/models/x:generateContent", CHAT, "gemini"),
    ("/v1alpha/models", "/v1/models", "gemini"),
    ("/openai/deployments/my-gpt/images/edits", "/v1/images/edits", "openai"),
    ("/api/chat", CHAT, "ollama"),
    ("/api/generate", CHAT, "ollama"),
    ("/api/embed", "/v1/embeddings", "ollama"),
    ("/api/tags", "/v1/models", "ollama"),
]


@pytest.mark.parametrize(("path", "instead", "shape"), PATHS)
def test_a_404_suggests_what_to_use_in_the_shape_of_its_api(
    proxy: Proxy, path: str, instead: str | None, shape: str
) -> None:
    reply = proxy.request("POST", path, BODY, {"host": "localhost:8000"})
    assert reply.status == 404
    message = _message(shape, 404, reply.json)
    assert f"{URL}/v1" in message
    assert len(message) < 600
    if instead is not None:
        advised = re.search(rf"{URL}([\w/]+)", message)
        assert advised is not None
        assert advised[1] == instead


@pytest.mark.parametrize("instead", sorted({instead for _, instead, _ in PATHS if instead}))
def test_what_is_advised_exists(proxy: Proxy, instead: str) -> None:
    reply = proxy.request("GET" if instead == "/v1/models" else "POST", instead, BODY)
    code = None if reply.status == 200 else reply.error["code"]
    assert code in {None, "endpoint_not_found"}  # the echo has chats only


def _message(shape: str, status: int, body: dict[str, object]) -> str:
    kinds = {401: ("authentication_error", "UNAUTHENTICATED"), 404: ("not_found_error", "NOT_FOUND")}
    anthropic, gemini = kinds[status]
    error = body["error"]
    if shape == "ollama":
        assert list(body) == ["error"]
        return str(error)
    assert isinstance(error, dict)
    if shape == "anthropic":
        assert (body["type"], error["type"], list(error)) == ("error", anthropic, ["type", "message"])
    elif shape == "gemini":
        assert (error["code"], error["status"], list(error)) == (
            status,
            gemini,
            ["code", "message", "status"],
        )
    else:
        assert list(error) == ["message", "type", "param", "code"]
    return str(error["message"])


@pytest.mark.parametrize(("path", "instead", "shape"), PATHS)
def test_a_missing_key_is_reported_in_the_shape_of_the_api_as_well(
    locked: Proxy, path: str, instead: str | None, shape: str
) -> None:
    reply = locked.request("POST", path, BODY)
    assert reply.status == 401
    assert "No API key" in _message(shape, 401, reply.json)


@pytest.mark.parametrize(
    "path",
    ["/v1alpha/models/gemini-2.5-pro:generateContent", "/openai/deployments/gemini-2.5-pro/images/edits"],
)
def test_the_model_in_the_path_is_named(path: str) -> None:
    assert '"model": "gemini-2.5-pro"' in unknown_paths.advice("POST", path, URL)


def test_a_get_of_a_model_whose_name_looks_like_a_method_is_a_get() -> None:
    assert not unknown_paths.is_foreign("/v1/models/llama:8b")
    assert not unknown_paths.is_foreign("/v1/models/groq/gemma:generic/x")


@pytest.mark.parametrize("status", [400, 403, 413, 418, 429, 500, 502, 503, 504])
def test_every_status_has_a_name_in_every_shape(status: int) -> None:
    error = ProxyError("text", status=status)
    for path, _, shape in PATHS:
        body = _body(path.partition("?")[0], error)
        if shape == "anthropic":
            assert body["error"]["type"].endswith(("_error", "_large"))
        elif shape == "gemini":
            assert body["error"]["status"].isupper()
    assert _body("/v1/messages", Unauthorized("x"))["error"]["message"] == "x"


def _body(path: str, error: ProxyError) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(unknown_paths.error_body(path, error))
    return body


def test_a_wrong_method_is_answered_with_the_right_ones(proxy: Proxy) -> None:
    error = proxy.request("GET", CHAT).error
    assert error["message"] == f"{CHAT} does not support GET: use POST"
    assert proxy.request("POST", "/v1/models", BODY).error["message"].endswith("use GET or HEAD")
