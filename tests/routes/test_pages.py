"""Pages for people, health for machines, and the OpenAPI document."""

from __future__ import annotations

import re

import pytest

from tests.support.proxy import Proxy, running_proxy


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js", "/style.css"])
def test_pages_load_nothing_from_elsewhere(proxy: Proxy, path: str) -> None:
    reply = proxy.request("GET", path)
    assert reply.status == 200
    assert not re.search(rb"(?:src|href)=[\"']?(?:https?:)?//|url\(|@import", reply.body)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_urls_of_pages_are_relative_for_hosts_with_a_path_prefix(proxy: Proxy, path: str) -> None:
    page = proxy.request("GET", path).body.decode()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.search(r"(?:src|href)=\"/", page)


def test_the_documentation_has_one_path(proxy: Proxy) -> None:
    reply = proxy.request("GET", "/docs/")
    assert (reply.status, reply.headers["location"]) == (308, "../docs")


def test_the_front_page_lists_the_providers_that_are_on(proxy: Proxy) -> None:
    page = proxy.request("GET", "/", headers={"host": "localhost:1"}).body.decode()
    assert "<code>groq</code>" in page
    assert "<b>" not in page
    assert "__" not in page


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"host": "localhost:8000"}, "http://localhost:8000"),
        ({"host": "localhost:8000", "x-forwarded-proto": "https"}, "https://localhost:8000"),
        (
            {"host": "localhost", "x-forwarded-proto": "https", "x-forwarded-host": "llm.example"},
            "https://llm.example",
        ),
        ({"host": "localhost", "x-forwarded-proto": "gopher"}, "http://localhost"),
        ({"host": "localhost", "x-forwarded-host": "<b>"}, "http://&lt;b&gt;"),
    ],
)
def test_the_example_uses_the_address_of_the_reverse_proxy(
    proxy: Proxy, headers: dict[str, str], url: str
) -> None:
    page = proxy.request("GET", "/", headers=headers).body.decode()
    assert f"curl {url}/v1/chat/completions" in page


def test_the_example_names_a_model_that_exists(proxy: Proxy) -> None:
    page = proxy.request("GET", "/").body.decode()
    listed = [entry["id"] for entry in proxy.request("GET", "/v1/models").json["data"]]
    model = re.search(r'"model": "([^"]+)"', page)
    assert model is not None
    assert model[1] in listed


def test_pages_and_document_are_open_where_keys_are_set() -> None:
    with running_proxy({"SANIC_PROXY_API_KEYS": "client-key-0123"}) as keyed:
        for path in ("/docs", "/docs/docs.js", "/style.css", "/openapi.json"):
            assert keyed.request("GET", path).status == 200
        assert keyed.request("GET", "/v1/models").status == 401


def test_the_document_is_true_for_the_routes(proxy: Proxy) -> None:
    document = proxy.request("GET", "/openapi.json").json
    assert document["info"]["title"] == "sanic-proxy"
    methods = {(method, path) for path, entry in document["paths"].items() for method in entry}
    assert {("post", "/v1/chat/completions"), ("get", "/v1/models"), ("get", "/health")} <= methods
    operations = [
        entry[method]["operationId"] for path, entry in document["paths"].items() for method in entry
    ]
    assert len(operations) == len(set(operations))
    for method, path in methods:
        # Gemini's paths end with what is to be done.
        model = "echo/echo:generateContent" if method == "post" else "echo/echo"
        reply = proxy.request(method.upper(), path.replace("{model}", model).replace("{resource_id}", "x"))
        is_unknown = "{response_id}" in path and reply.error["code"] == "response_not_found"
        assert reply.status in {200, 400} or is_unknown, (method, path)


def test_health_touches_no_upstream(proxy: Proxy) -> None:
    for path in ("/health", "/healthz", "/health/liveliness"):
        assert proxy.request("GET", path).json == {"status": "ok"}
    assert proxy.request("GET", "/health/readiness").json == {"status": "ready", "not_ready": []}
