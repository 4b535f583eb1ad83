"""Invalid and unusual bodies: an error of ours or an answer, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.dialects.chat import error_object
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatRequest
from sanic_proxy.providers.echo import completion as echoed
from sanic_proxy.providers.straico.replies import model_list
from sanic_proxy.streams.filters import ChatStreamFilter
from sanic_proxy.upstream import error_parser
from tests.support.odd import CONVERSATIONS, OBJECTS, VALUES


@given(CONVERSATIONS, OBJECTS)
def test_no_request_breaks_the_echo(messages: list[Any], fields: dict[str, Any]) -> None:
    record = RequestRecord("id", "POST", "/")
    request = ChatRequest(b"", {**fields, "messages": messages}, "echo/echo", "echo", False, {}, record)
    with suppress(InvalidRequest):
        assert codec.dumps(echoed(request))


@given(VALUES)
def test_no_body_breaks_a_list_or_an_error(body: Any) -> None:
    for read in (model_list, error_parser.is_error, error_parser.message_of):
        with suppress(ProxyError):
            read(body)
    for error in (
        error_parser.error_in_band(body),
        error_parser.error_in_band({"error": body}),
        error_parser.error_from_answer(400, {}, codec.dumps({"error": body})),
    ):
        assert codec.dumps(error_object(error.redacted(["secret-of-ours"])))


@given(
    st.lists(
        st.binary(max_size=40) | st.just(b"data: ") | st.just(b"\n\n") | st.just(b'{"choices":[1]}'),
        max_size=12,
    )
)
def test_no_stream_breaks_the_filter(pieces: list[bytes]) -> None:
    guard = ChatStreamFilter()
    for piece in pieces:
        guard.feed(piece)
    try:
        guard.end()
    except ProxyError:
        return
