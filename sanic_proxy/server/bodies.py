"""The JSON body of a request, checked for what is relied on and no further; and that of an answer.

A worker has one thread: while it joins, parses or searches a body, it serves nothing else. Small bodies take
microseconds. A large one is handled in steps, with a turn of the event loop for others between two steps, and
one large body at a time: otherwise twenty bodies that are complete at the same moment would put twenty of the
longest step (orjson's, which cannot be interrupted) into one turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from sanic import HTTPResponse

from sanic_proxy.errors import InvalidRequest, UnsupportedMedia
from sanic_proxy.openai import codec, large_bodies
from sanic_proxy.server.request import ProxyRequest

T = TypeVar("T")

_JSON_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
_REFUSED_TYPES = ("text/", "application/x-www-form-urlencoded", "multipart/")


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> HTTPResponse:
    """An answer whose body is `value` as JSON."""
    return HTTPResponse(codec.dumps(value), status, headers, content_type="application/json")


def json_object(request: ProxyRequest) -> dict[str, Any]:
    """The body's object. Raises UnsupportedMedia or InvalidRequest.

    A missing content type is taken for JSON, as plain HTTP clients leave it out. Types that a web
    page may send without asking first (text, forms) are refused.
    """
    if request.parsed is None:
        fields = request.fields
        if fields.get("content-type") != "application/json" or "content-encoding" in fields:
            _check_headers(request)
        value = codec.loads_strict(request.body)
    else:
        value, request.parsed = request.parsed.value, None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The request body must be a JSON object, not {_JSON_KINDS[type(value)]}")
    return value


async def parse_in_steps(request: ProxyRequest, turn: asyncio.Lock) -> None:
    """Join and parse a large body that has been received; `json_object` then returns the result.

    `turn` is held by the one large body of the worker that is being parsed. Raises as `json_object`.
    """
    _check_headers(request)
    async with turn:
        request.body = request.take_body()
        await asyncio.sleep(0)
        request.parsed = parsed = await _run(large_bodies.parsing(request.body))
        request.model_span = parsed.model_span


async def parsed(body: bytes, turn: asyncio.Lock) -> large_bodies.ParsedBody:
    """`body`, which the proxy has made itself, parsed in steps; `turn` as in `parse_in_steps`."""
    async with turn:
        return await _run(large_bodies.parsing(body))


async def _run(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        await asyncio.sleep(0)


def _check_headers(request: ProxyRequest) -> None:
    content_type = request.fields.get("content-type", "")
    if content_type != "application/json":
        _check_type(content_type.lower())
    check_encoding(request)


def check_encoding(request: ProxyRequest) -> None:
    """Raises UnsupportedMedia for a body that is compressed."""
    encoding = request.fields.get("content-encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise UnsupportedMedia("A compressed body is not accepted: send it without content-encoding")


def _check_type(content_type: str) -> None:
    kind, _, parameters = content_type.partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if kind.strip().startswith(_REFUSED_TYPES) or "charset=utf-16" in charset:
        raise UnsupportedMedia("The body must be JSON in UTF-8: send `content-type: application/json`")
