"""Pages for people, health for machines, and the OpenAPI document."""

from __future__ import annotations

import re

import pytest

from tests.support.proxy import Proxy


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js"])
def test_pages_load_nothing_from_elsewhere(proxy: Proxy, path: str) -> None:
    reply = proxy.request("GET", path)
    assert reply.status == 200
    assert not re.search(rb"(?:src|href)=[\"']?(?:https?:)?//", reply.body)
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_the_front_page_says_which_providers_are_on(proxy: Proxy) -> None:
    page = proxy.request("GET", "/", headers={"host": "localhost:<b>"}).body.decode()
    assert "<code>groq</code>" in page
    assert "<b>" not in page
    assert "__" not in page


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
        reply = proxy.request(
            method.upper(), path.replace("{model}", "echo/echo").replace("{resource_id}", "x")
        )
        assert reply.status in {200, 400}, (method, path)


def test_health_touches_no_upstream(proxy: Proxy) -> None:
    for path in ("/health", "/healthz", "/health/liveliness"):
        assert proxy.request("GET", path).json == {"status": "ok"}
    assert proxy.request("GET", "/health/readiness").json == {"status": "ready", "not_ready": []}
