"""The request as the proxy extends it."""

from __future__ import annotations

import pytest

from sanic_proxy.app import app
from sanic_proxy.server.request import HeaderFields, ProxyRequest


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
