"""Files for browsers: their tags, types and security policy."""

from __future__ import annotations

import pytest

from sanic_proxy.server.admission import DOCS_FILES, PAGE_FILES
from tests.support.proxy import Proxy

FILES = (*PAGE_FILES, *DOCS_FILES)


@pytest.mark.parametrize("path", ["/docs", *FILES])
def test_a_browser_asks_for_a_changed_file_only(proxy: Proxy, path: str) -> None:
    first = proxy.request("GET", path)
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = proxy.request("GET", path, headers={"if-none-match": known})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert proxy.request("GET", path, headers={"if-none-match": '"other"'}).body == first.body


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ],
)
def test_types_are_not_guessed(proxy: Proxy, path: str, content_type: str) -> None:
    reply = proxy.request("HEAD", path)
    assert reply.headers["content-type"] == content_type
    assert reply.headers["x-content-type-options"] == "nosniff"
