"""The request as the proxy extends it."""

from __future__ import annotations

import pytest

from sanic_proxy.app import app
from sanic_proxy.server.request import HeaderFields, ProxyRequest, Reply, header_lines


def request_with(*headers: tuple[str, str]) -> ProxyRequest:
    fields = HeaderFields()
    for name, value in headers:
        fields.add(name.encode(), value.encode())
    return ProxyRequest(b"/v1/x?secret=1", fields, "1.1", "GET", None, app)


def test_its_record_holds_no_query() -> None:
    record = request_with().record
    assert (record.method, record.path) == ("GET", "/v1/x")


@pytest.mark.parametrize(("given", "is_kept"), [("a-1", True), ("", False), ("a\nb", False), ("é", False)])
def test_a_request_id_is_the_clients_or_a_new_one(given: str, is_kept: bool) -> None:
    request = request_with(("x-request-id", given))
    assert (request.record.request_id == given) is is_kept
    assert request.answer_lines == f"x-request-id: {request.record.request_id}\r\n"


def test_without_connection_there_is_nothing_to_break_off() -> None:
    request = request_with()
    request.abort()
    request.end_connection()


def test_a_changed_header_map_changes_the_fields_and_a_copy_does_not() -> None:
    request = request_with(("X-A", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2"))
    assert dict(request.fields) == {"x-a": "1, 2", "cookie": "a=1; b=2"}
    headers = request.headers
    assert headers.getall("x-a") == ["1", "2"]
    headers.copy()["x-a"] = "copy"
    headers.add("X-A", "3")
    headers["Host"] = "h"
    headers.extend({"x-b": "4"})
    assert dict(request.fields) == {"x-a": "1, 2, 3", "cookie": "a=1; b=2", "host": "h", "x-b": "4"}
    assert request.fields.repeated["x-a"] == ["1", "2", "3"]
    headers.popall("x-a")
    del headers["cookie"]
    headers.update({"x-b": "5"})
    headers.setdefault("x-c", "6")
    assert dict(request.fields) == {"host": "h", "x-b": "5", "x-c": "6"}
    assert not request.fields.repeated
    headers.clear()
    assert not request.fields


def test_the_head_of_a_request_is_rendered_as_parsed() -> None:
    assert request_with(("Host", "h")).head == b"GET /v1/x?secret=1 HTTP/1.1\r\nhost: h\r\n"


def test_a_replys_headers_count_once_they_have_been_read() -> None:
    reply = Reply(header_lines([("a", "1"), ("b", "x: y")]), b"body")
    assert not reply.has_headers
    assert dict(reply.headers) == {"a": "1", "b": "x: y"}
    reply.headers["a"] = "2"
    assert (reply.has_headers, reply.headers["a"]) == (True, "2")
