"""Which provider a request names, and what of its query goes up."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.app import app
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.server.request import HeaderFields, ProxyRequest
from sanic_proxy.server.selection import dropped_headers, named_provider, query_up


def request_for(url: str, *providers: str) -> ProxyRequest:
    fields = HeaderFields()
    for provider in providers:
        fields.add(b"X-Provider", provider.encode())
    return ProxyRequest(url.encode(), fields, "1.1", "GET", None, app)


@pytest.mark.parametrize(
    ("url", "headers", "name", "query"),
    [
        ("/files", (), None, ""),
        ("/files?", (), None, ""),
        ("/files", ("groq",), "groq", ""),
        ("/files?provider=groq", (), "groq", ""),
        ("/files?provider=groq&provider=groq", ("groq",), "groq", ""),
        ("/files?%70rovider=gr%6Fq&a=1", (), "groq", "?a=1"),
        ("/files?a=1&&b=%2F&provider=groq#provider=x", (), "groq", "?a=1&b=%2F"),
        ("/files?providers=x&a[]=1", (), None, "?providers=x&a[]=1"),
        ("/files?provider", (), "", ""),
    ],
)
def test_the_name_is_found_and_does_not_go_up(
    url: str, headers: tuple[str, ...], name: str | None, query: str
) -> None:
    request = request_for(url, *headers)
    assert named_provider(request) == name
    assert query_up(request) == query


@pytest.mark.parametrize(
    ("url", "headers"),
    [("/?provider=a&provider=b", ()), ("/?provider=a", ("b",)), ("/", ("a", "a"))],
)
def test_two_providers_are_refused(url: str, headers: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        named_provider(request_for(url, *headers))


@pytest.mark.parametrize("query", ['a="', "a=<b>", "a=\\", "a={}"])
def test_what_would_need_an_escape_is_refused(query: str) -> None:
    with pytest.raises(InvalidRequest):
        query_up(request_for(f"/files?{query}"))


def test_the_header_is_sent_only_if_parameters_were_dropped() -> None:
    assert dropped_headers([]) == []
    assert dropped_headers(["seed", "x.y"]) == [("x-sanic-proxy-dropped-params", "seed,x.y")]


@given(st.lists(st.text(max_size=80) | st.sampled_from(["a\r\nset-cookie: x", "a,b", ""]), max_size=60))
def test_no_name_can_inject_a_header(names: list[str]) -> None:
    for header, value in dropped_headers(names):
        assert header == "x-sanic-proxy-dropped-params"
        parts = value.split(",")
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", part) for part in parts)
        assert len(parts) == min(len(names), 32) + (len(names) > 32)
