"""Azure OpenAI: as a provider, and its clients in front of other providers. The judge is OpenAI's SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import AzureOpenAI, NotFoundError, OpenAI

from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import ONCE, provider_settings
from tests.support.upstream import Upstream, completion, text_stream

CLIENT_KEY = "client-canary-0123456789"
AZURE_KEY = "azure-canary-0123456789"
VERSION = "2024-10-21"
EMBEDDINGS = {
    "object": "list",
    "model": "e",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
HELLO: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_API_KEYS": CLIENT_KEY,
        "AZURE_OPENAI_API_KEY": AZURE_KEY,
        "AZURE_OPENAI_ENDPOINT": f"{shared_upstream.url}/",
    }
    with running_proxy(settings) as started:
        yield started
        log = started.log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def dated(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **ONCE,
        "AZURE_OPENAI_API_KEY": AZURE_KEY,
        "AZURE_OPENAI_ENDPOINT": shared_upstream.url,
        "AZURE_OPENAI_API_VERSION": VERSION,
    }
    with running_proxy(settings) as started:
        yield started


def azure_client(proxy: Proxy, **options: Any) -> AzureOpenAI:
    return AzureOpenAI(
        azure_endpoint=proxy.url, api_key=CLIENT_KEY, api_version=VERSION, max_retries=0, **options
    )


# Azure's clients


@pytest.mark.parametrize("deployment", [None, "groq/v/g"])
def test_azures_client_chats_with_any_provider(
    front: Proxy, upstream: Upstream, deployment: str | None
) -> None:
    upstream.on("v/g", lambda exchange: exchange.answer(completion("Hello")))
    client = azure_client(front, azure_deployment=deployment)
    answer = client.chat.completions.create(model="groq/v/g" if deployment is None else "x", messages=HELLO)
    assert answer.choices[0].message.content == "Hello"
    assert upstream.requests[-1].json["model"] == "v/g"
    upstream.on("v/g", lambda exchange: exchange.stream(text_stream("Hel", "lo")))
    stream = client.chat.completions.create(model="groq/v/g", messages=HELLO, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == "Hello"


def test_a_body_without_a_model_gets_that_of_the_path(front: Proxy, upstream: Upstream) -> None:
    upstream.on("g", lambda exchange: exchange.answer(completion("Hello")))
    path = f"/openai/deployments/groq/g/chat/completions?api-version={VERSION}"
    body = {"messages": HELLO}
    assert front.request("POST", path, body, {"api-key": CLIENT_KEY}).status == 200
    assert upstream.requests[-1].json == {"messages": HELLO, "model": "g"}


def test_azures_client_creates_embeddings(front: Proxy, upstream: Upstream) -> None:
    upstream.on("e", lambda exchange: exchange.answer(EMBEDDINGS))
    client = azure_client(front)
    answer = client.embeddings.create(model="groq/e", input="x", encoding_format="float")
    assert answer.data[0].embedding == [0.5]
    assert upstream.requests[-1].path == "/openai/v1/embeddings"


def test_azures_client_lists_models_and_creates_responses(front: Proxy, upstream: Upstream) -> None:
    client = azure_client(front)
    assert "echo/echo" in [model.id for model in client.models.list()]
    upstream.on("g", lambda exchange: exchange.answer(completion("Hello")))
    assert client.responses.create(model="groq/g", input="Hi").output_text == "Hello"


def test_the_undated_endpoint(front: Proxy, upstream: Upstream) -> None:
    upstream.on("g", lambda exchange: exchange.answer(completion("Hello")))
    client = OpenAI(base_url=f"{front.url}/openai/v1/", api_key=CLIENT_KEY, max_retries=0)
    answer = client.chat.completions.create(model="groq/g", messages=HELLO)
    assert answer.choices[0].message.content == "Hello"
    assert "echo/echo" in [model.id for model in client.models.list()]


def test_other_operations_of_a_deployment_are_not_found(front: Proxy) -> None:
    with pytest.raises(NotFoundError, match="/v1/images/edits"):
        azure_client(front).post("/deployments/x/images/edits", body={}, cast_to=object)


# The provider


def test_the_undated_endpoint_is_the_default(front: Proxy, upstream: Upstream) -> None:
    upstream.on("my-gpt", lambda exchange: exchange.answer(completion("Hello")))
    body = {"model": "azure/my-gpt", "messages": HELLO}
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    assert front.request("POST", "/v1/chat/completions", body, headers).status == 200
    seen = upstream.requests[-1]
    assert seen.path == "/openai/v1/chat/completions"
    assert seen.header("api-key") == AZURE_KEY
    assert seen.header("authorization") is None
    assert seen.json["model"] == "my-gpt"


def test_a_dated_version_has_deployments(dated: Proxy, upstream: Upstream) -> None:
    upstream.on("my-gpt", lambda exchange: exchange.answer(completion("Hello")))
    upstream.on("e", lambda exchange: exchange.answer(EMBEDDINGS))
    body = {"model": "azure/my-gpt", "messages": HELLO}
    reply = dated.request("POST", "/v1/chat/completions", body)
    assert reply.status == 200
    seen = upstream.requests[-1]
    assert seen.path == f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
    assert seen.header("api-key") == AZURE_KEY
    assert dated.request("POST", "/v1/embeddings", {"model": "azure/e", "input": "x"}).status == 200
    assert upstream.requests[-1].path == f"/openai/deployments/e/embeddings?api-version={VERSION}"
    upstream.on("my-gpt", lambda exchange: exchange.stream(text_stream("Hel", "lo")))
    _, frames = dated.stream("azure/my-gpt")
    assert any(b"Hel" in piece for piece in frames)


@pytest.mark.parametrize("model", ["azure/../x", "azure/a/b", "azure/x?y", "azure/.."])
def test_a_deployment_cannot_leave_its_path(dated: Proxy, upstream: Upstream, model: str) -> None:
    count = len(upstream.requests)
    for path, body in (
        ("/v1/chat/completions", {"model": model, "messages": HELLO}),
        ("/v1/embeddings", {"model": model, "input": "x"}),
    ):
        reply = dated.request("POST", path, body)
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert len(upstream.requests) == count
