"""The request as this proxy extends it: with its record, and headers that every answer carries."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

from sanic import Request
from sanic.http import Http
from sanic.response import BaseHTTPResponse
from typing_extensions import override

from sanic_proxy.record import RequestRecord

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ProxyRequest(Request[Any, Any]):
    """Sanic's request and the record of what becomes of it."""

    __slots__ = ("answer_headers", "record")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = self.headers.get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.record = RequestRecord(request_id, self.method, self.path)
        self.answer_headers: dict[str, str] = {"x-request-id": request_id}

    def end_connection(self) -> None:
        """Close the connection when the answer that has begun is over."""
        if isinstance(self.stream, Http):
            self.stream.keep_alive = False

    def abort(self) -> None:
        """Break the connection off at once, so that nothing on it looks like an end."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    @override
    async def respond(
        self,
        response: BaseHTTPResponse | None = None,
        *,
        status: int = 200,
        headers: Any = None,
        content_type: str | None = None,
    ) -> Any:
        answer = await super().respond(response, status=status, headers=headers, content_type=content_type)
        if isinstance(answer, BaseHTTPResponse):
            answer.headers.update(self.answer_headers)
            self.record.status = answer.status
            body = getattr(answer, "body", None)
            if body:
                self.record.sent(len(body))
        return answer
