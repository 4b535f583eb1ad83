"""A form whose provider is found while it streams: every byte is forwarded, whatever precedes the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sanic_proxy.errors import InvalidRequest, ModelNotFound
from sanic_proxy.server.forms import UnsortedForm
from sanic_proxy.server.spool import MAX_MEMORY_BYTES

FILE = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
MODEL = b'\r\n--X\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
END = b"\r\n--X--\r\n"


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def passed(data: bytes, size: int, new: str = "m") -> tuple[str, bytes, int | None]:
    form = UnsortedForm(in_pieces(data, size), b"X")
    try:
        model = await form.model()
        upload = form.upload(new, len(data))
        return model, b"".join([piece async for piece in upload.pieces]), upload.size_bytes
    finally:
        form.close()


@pytest.mark.parametrize("size", [1, 10, 100, 10_000])
@pytest.mark.parametrize("content", [b"", b"abc\r\n--Y", b"x" * 300])
def test_only_the_model_changes(content: bytes, size: int) -> None:
    data = FILE + content + MODEL + b"groq/w" + END
    model, body, size_bytes = asyncio.run(passed(data, size))
    assert model == "groq/w"
    assert body == FILE + content + MODEL + b"m" + END
    assert size_bytes == len(body)


def test_more_than_memory_may_hold_waits_in_a_file() -> None:
    content = bytes(range(256)) * (MAX_MEMORY_BYTES // 64)
    data = FILE + content + MODEL + b"groq/w" + END
    assert asyncio.run(passed(data, 70_000))[1] == FILE + content + MODEL + b"m" + END


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (FILE + b"x" + END, InvalidRequest),
        (FILE + b"x", InvalidRequest),
        (FILE + b"x" + MODEL + b"\xff" + END, ModelNotFound),
    ],
)
def test_a_form_without_a_readable_model_is_refused(data: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asyncio.run(passed(data, 5))


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("tail", [b"", MODEL + b"other" + END])
def test_what_is_wrong_behind_the_model_fails_the_upload(tail: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest):
        asyncio.run(passed(FILE + b"x" + MODEL + b"groq/w" + tail, size))
