"""Forms with files, on their way through: never in memory as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from sanic_proxy.errors import BodyTooLarge, ModelNotFound
from sanic_proxy.http1.multipart import FieldFinder, Value
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.server.selection import unnamed
from sanic_proxy.server.spool import Spool
from sanic_proxy.upstream.request import Upload


async def pieces_of(request: ProxyRequest, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body of an upload as it comes. Raises BodyTooLarge past `limit_bytes`."""
    while piece := await request.read_piece():
        if request.size_bytes > limit_bytes:
            raise too_large()
        yield piece


def too_large() -> BodyTooLarge:
    return BodyTooLarge("The upload is larger than the proxy accepts (SANIC_PROXY_MAX_UPLOAD_BYTES)")


class UnsortedForm:
    """A form whose field `model` names the provider, at any position: the parts before it are buffered."""

    def __init__(self, pieces: AsyncIterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._finder = FieldFinder(boundary, "model")
        self._before = Spool()
        self._behind: list[bytes | Value] = []
        self._old = b""

    async def model(self) -> str:
        """The value of `model`. Raises InvalidRequest where there is none, ModelNotFound for no text."""
        async for piece in self._pieces:
            parts = self._finder.feed(piece)
            for part in parts:
                if isinstance(part, Value):
                    self._old = part.raw
                    self._behind = list(parts)
                    return self._text()
                await self._before.write(part)
        self._finder.end()
        raise unnamed()

    def _text(self) -> str:
        try:
            return self._old.decode()
        except UnicodeDecodeError:
            raise ModelNotFound("The model name is not UTF-8", param="model") from None

    def upload(self, model: str, size_bytes: int | None) -> Upload:
        """The form with another model in it; `size_bytes` is what it had before."""
        new = model.encode()
        size = None if size_bytes is None else size_bytes + len(new) - len(self._old)
        return Upload(self._with(new), size)

    async def _with(self, new: bytes) -> AsyncGenerator[bytes, None]:
        async for piece in self._before.read():
            yield piece
        yield new
        for part in self._behind:
            yield _raw(part)
        self._behind.clear()
        async for piece in self._pieces:
            for part in self._finder.feed(piece):
                yield _raw(part)
        self._finder.end()

    def close(self) -> None:
        """Let go of what waited."""
        self._before.close()


def _raw(part: bytes | Value) -> bytes:
    return part.raw if isinstance(part, Value) else part
