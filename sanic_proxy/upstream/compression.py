"""Decoding of compressed response bodies: gzip, zlib and raw deflate, also stacked.

Every request asks for `identity`, but some providers and proxies compress regardless. The rules are those
of browsers and curl, where these agree:

- gzip (RFC 1952) is a sequence of members. All of them are decoded. Zero bytes between and behind members
  are padding; any other byte behind a complete member is ignored with everything that follows it. Two bytes
  `1f 8b` begin a further member, which then must be complete.
- `deflate` means zlib (RFC 1950), but servers send raw deflate (RFC 1951), too. The first two bytes tell: a
  zlib header read as raw deflate would be a stored block with non-zero padding bits, which no encoder writes.
- `Content-Encoding: a, b` was encoded with a first, so b is decoded first.

A body of a few kilobytes can inflate by a factor of 1,000, and a stack of two by its square. Therefore a
`Decoder` works in steps of bounded size (`STEP_BYTES` in, `PIECE_BYTES` out), between which its caller can
return to the event loop, and what one `feed` brings is limited on every layer, by size and by the number of
members: an empty member has 20 bytes and no content. The input of a step is short because zlib copies all
the input behind a member: with many tiny members in one large piece of input that would be quadratic.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

from sanic_proxy import errors

MAX_INFLATED_BYTES = 16 * 1024 * 1024
MAX_MEMBERS = 32 * 1024
STEP_BYTES = 4 * 1024
PIECE_BYTES = 256 * 1024
MAX_LAYERS = 5  # as curl

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # zlib detects which of the two
_RAW_DEFLATE = -zlib.MAX_WBITS
_NOT_A_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")


class Decoder:
    """Decodes one body. Call `feed`, then `step` until it returns None; after the last byte call `end`."""

    __slots__ = ("_layers", "_steps")

    def __init__(self, layers: Iterable[_Layer]) -> None:
        self._layers = tuple(layers)
        self._steps: Iterator[bytes] = iter(())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body. All steps of the previous ones must have been made."""
        self._steps = iter((data,))
        for layer in self._layers:
            self._steps = layer.decode(self._steps)

    def step(self) -> bytes | None:
        """Some content, b"" after a step that yielded none, or None when more data is needed.

        Raises UpstreamBadResponse for data that is not validly compressed or that inflates beyond the limit.
        """
        try:
            return next(self._steps, None)
        except zlib.error as exc:
            raise errors.UpstreamBadResponse(
                "The provider's compressed answer is corrupt and cannot be decoded"
            ) from exc

    def end(self) -> None:
        """Raises UpstreamDisconnected if the content is incomplete. A body of no bytes is empty content."""
        if not all(layer.is_complete for layer in self._layers):
            raise errors.UpstreamDisconnected("The provider's compressed answer ends before it is complete")


class _Layer:
    """One content coding: between streams (no `_decoder`), inside one, or past the last (`_is_over`)."""

    __slots__ = ("_decoder", "_held", "_is_deflate", "_is_first", "_is_gzip", "_is_over", "_members")

    def __init__(self, *, is_deflate: bool) -> None:
        self._is_deflate = is_deflate
        self._decoder: zlib._Decompress | None = None
        self._is_first = True
        self._is_gzip = False
        self._is_over = False
        self._members = 0  # of one feed
        self._held = b""  # a first byte that cannot be judged without the second

    @property
    def is_complete(self) -> bool:
        return self._decoder is None and not self._held

    def decode(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yields at least once for every step, so that no step of the layers below goes unnoticed."""
        inflated = self._members = 0
        for piece in pieces:
            yield b""
            for start in range(0, len(piece), STEP_BYTES):
                for content in self._inflate(piece[start : start + STEP_BYTES]):
                    inflated += len(content)
                    if inflated > MAX_INFLATED_BYTES or self._members > MAX_MEMBERS:
                        raise errors.UpstreamBadResponse(
                            "The provider's compressed answer is larger than the proxy accepts: one read "
                            f"inflates to more than {MAX_INFLATED_BYTES} bytes or {MAX_MEMBERS} members"
                        )
                    yield content

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data and not self._is_over:
            decoder = self._decoder
            if decoder is None:
                decoder, data = self._begin(data)
                if decoder is None:
                    break
            content = decoder.decompress(data, PIECE_BYTES)
            while len(content) == PIECE_BYTES and not decoder.eof:
                # zlib may hold back output even when it has consumed all of its input.
                yield content
                content = decoder.decompress(decoder.unconsumed_tail, PIECE_BYTES)
            if decoder.eof:
                self._decoder = None
                self._is_over = not self._is_gzip
            yield content
            data = decoder.unused_data

    def _begin(self, data: bytes) -> tuple[zlib._Decompress | None, bytes]:
        """The decoder for the stream that `data` begins, if it begins one, and the bytes to give it."""
        data, self._held = self._held + data, b""
        if not self._is_first:
            data = data.lstrip(b"\0")
        if len(data) < len(_GZIP_MAGIC):
            if self._is_first or _GZIP_MAGIC.startswith(data):
                self._held = data
            else:
                self._is_over = True
            return None, b""
        self._is_gzip = data.startswith(_GZIP_MAGIC)
        if not self._is_first and not self._is_gzip:
            self._is_over = True
            return None, b""
        self._is_first = False
        self._members += 1
        is_raw = self._is_deflate and not self._is_gzip and not _is_zlib_header(data)
        self._decoder = zlib.decompressobj(_RAW_DEFLATE if is_raw else _GZIP_OR_ZLIB)
        return self._decoder, data


def _is_zlib_header(data: bytes) -> bool:
    """RFC 1950, 2.2: method 8 (deflate), a window of at most 32 KiB, and the check bits."""
    return data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (data[0] << 8 | data[1]) % 31 == 0


def decoder_for(content_encoding: str) -> Decoder | None:
    """A decoder for the header's value; None where nothing needs decoding.

    Raises UpstreamBadResponse for an encoding that is not supported (`br`, `zstd`).
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    codings = [name for name in names if name not in {"", "identity"}]
    for name in codings:
        if name not in {"gzip", "x-gzip", "deflate"}:
            raise errors.UpstreamBadResponse(
                f"The provider's answer has the content encoding `{_NOT_A_TOKEN.sub('?', name)[:40]}`, which "
                "is not supported. The proxy requests `identity` and also decodes `gzip` and `deflate`"
            )
    if len(codings) > MAX_LAYERS:
        raise errors.UpstreamBadResponse(
            f"The provider's answer is compressed {len(codings)} times; at most {MAX_LAYERS} are supported"
        )
    return Decoder(_Layer(is_deflate=name == "deflate") for name in reversed(codings)) if codings else None
