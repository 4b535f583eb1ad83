"""Models and endpoints that a client may use, in each dialect's shape."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import anthropic
import openai
import pytest

from tests.support.admin import bearer
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Upstream

KEYS = {name: f"sk-{name}-canary-0123456789" for name in ("fast", "groq", "chats", "team", "free")}


def digest(name: str) -> str:
    return sha256(KEYS[name].encode()).hexdigest()


TOML = f"""
[models.quick]
targets = ["groq/llama-3"]

[models."echo-*"]
targets = ["echo/*"]

[teams.red]
models = ["echo/*"]
endpoints = ["/chat/completions"]

[clients.fast]
key_sha256 = "{digest("fast")}"
models = ["quick"]

[clients.groq]
key_sha256 = "{digest("groq")}"
models = ["groq/llama*", "echo-*"]

[clients.chats]
key_sha256 = "{digest("chats")}"
endpoints = ["/chat/completions", "/v1/files*"]

[clients.team]
key_sha256 = "{digest("team")}"
team = "red"

[clients.free]
key_sha256 = "{digest("free")}"
"""


@pytest.fixture(scope="module")
def ruled(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    path: Path = tmp_path_factory.mktemp("settings") / "proxy.toml"
    path.write_text(TOML)
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_CONFIG": str(path)}
    with running_proxy(settings) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("client", "model", "headers", "is_allowed"),
    [
        ("fast", "quick", {}, True),
        ("fast", "groq/llama-3", {}, False),
        ("fast", "quick", {"x-provider": "echo"}, False),
        ("fast", "llama-3", {"x-provider": "groq"}, False),
        ("groq", "groq/llama-3", {}, True),
        ("groq", "groq:llama-3", {}, True),
        ("groq", "llama-3", {"x-provider": "groq"}, True),
        ("groq", "echo-echo", {}, True),
        ("groq", "echo/echo", {}, False),
        ("groq", "quick", {}, False),
        ("groq", "groq/mixtral", {}, False),
        ("team", "echo/echo", {}, True),
        ("team", "quick", {}, False),
        ("free", "quick", {}, True),
    ],
)
def test_only_allowed_models_can_be_named(
    ruled: Proxy, client: str, model: str, headers: dict[str, str], is_allowed: bool
) -> None:
    reply = ruled.chat(model, headers={**bearer(KEYS[client]), **headers})
    assert (reply.status != 403) is is_allowed  # the upstream knows none of these models
    if not is_allowed:
        assert (reply.error["code"], reply.error["param"]) == ("model_not_allowed", "model")


def test_the_error_says_what_is_allowed(ruled: Proxy) -> None:
    reply = ruled.chat("echo/echo", headers=bearer(KEYS["groq"]))
    assert reply.error["message"] == (
        "This API key may not use the model 'echo/echo'; its models are groq/llama*, echo-*"
    )
    reply = ruled.chat("quick", headers=bearer(KEYS["team"]))
    assert reply.error["message"] == "This API key may not use the model 'quick'"


def test_only_allowed_models_are_listed(ruled: Proxy) -> None:
    def ids(client: str, path: str, **headers: str) -> set[str]:
        found = ruled.request("GET", path, headers={**bearer(KEYS[client]), **headers}).json
        return {entry.get("id") or entry["name"] for entry in found.get("data") or found["models"]}

    assert ids("fast", "/v1/models") == {"quick"}
    assert ids("fast", "/v1/models", **{"anthropic-version": "2023-06-01"}) == {"quick"}
    assert ids("fast", "/v1beta/models") == {"models/quick"}
    assert all(id_.startswith("echo/") for id_ in ids("team", "/v1/models"))
    assert {"quick", "echo/echo"} < ids("free", "/v1/models")
    for client, status in (("fast", 200), ("free", 200), ("team", 404)):
        assert ruled.request("GET", "/v1/models/quick", headers=bearer(KEYS[client])).status == status


@pytest.mark.parametrize(
    ("client", "method", "path", "status"),
    [
        ("chats", "POST", "/v1/embeddings", 403),
        ("chats", "POST", "/openai/v1/responses", 403),
        ("chats", "POST", "/v1/messages", 403),
        ("chats", "POST", "/v1beta/models/echo:generateContent", 403),
        ("chats", "POST", "/v1beta/models/echo%3AgenerateContent", 403),
        ("chats", "POST", "/v1/models/echo%3agenerateContent", 403),
        ("chats", "GET", "/v1/models", 200),
        ("chats", "GET", "/v1/models/quick", 200),
        ("chats", "POST", "/openai/deployments/quick/embeddings", 403),
        ("team", "POST", "/v1/embeddings", 403),
        ("free", "POST", "/v1/embeddings", 400),
    ],
)
def test_only_allowed_endpoints_can_be_called(
    ruled: Proxy, client: str, method: str, path: str, status: int
) -> None:
    reply = ruled.request(method, path, {} if method == "POST" else None, headers=bearer(KEYS[client]))
    assert reply.status == status


def test_an_endpoint_that_is_allowed_works_below_every_base_url(ruled: Proxy) -> None:
    body = {"model": "quick", "messages": [{"role": "user", "content": "Hi"}]}
    for path in ("/v1/chat/completions", "/chat/completions", "/openai/deployments/quick/chat/completions"):
        reply = ruled.request("POST", path, body, headers=bearer(KEYS["chats"]))
        assert reply.error["message"] == "no script"  # the upstream's own answer


def test_endpoints_without_a_model_belong_to_the_provider_that_is_named(ruled: Proxy) -> None:
    headers = {**bearer(KEYS["fast"]), "x-provider": "groq"}
    for path, body in (("/v1/moderations", {"input": "Hi"}), ("/v1/batches", {"input_file_id": "file-1"})):
        assert ruled.request("POST", path, body, headers=headers).error["code"] == "model_not_allowed"
    reply = ruled.request("POST", "/v1/embeddings", {"model": "quick", "input": "a"}, headers=headers)
    assert reply.status == 403
    counted = {"model": "groq/x", "messages": [{"role": "user", "content": "Hi"}]}
    reply = ruled.request("POST", "/v1/messages/count_tokens", counted, headers=bearer(KEYS["fast"]))
    assert (reply.status, reply.json["error"]["type"]) == (403, "permission_error")


def test_clients_see_their_own_errors(ruled: Proxy) -> None:
    chat = openai.OpenAI(base_url=f"{ruled.url}/v1", api_key=KEYS["fast"])
    with pytest.raises(openai.PermissionDeniedError, match="its models are quick"):
        chat.chat.completions.create(model="echo/echo", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.PermissionDeniedError, match="its models are quick"):
        chat.responses.create(model="echo/echo", input="Hi")
    messages = anthropic.Anthropic(base_url=ruled.url, api_key=KEYS["chats"])
    with pytest.raises(anthropic.PermissionDeniedError, match="may not use '/messages'"):
        messages.messages.create(model="quick", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
