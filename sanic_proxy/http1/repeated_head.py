"""Recognises a head that a connection has seen before. Pure.

A client that keeps its connection open sends the same head with each request; only the length of the body
differs. A parser that calls back for each header costs some 40,000 instructions for such a head, and the
comparison of its bytes 4,000. What a parser makes of a head depends on nothing but its bytes, as long as it
begins between two messages; and a length in plain digits, in the place of another one, changes nothing but
the length. So the result for the first head holds for all that differ from it in the digits alone.

Everything else is parsed: heads that the parser has not accepted, heads that mention `content-length` twice
(whatever it is the second time), `transfer-encoding` or `expect`, and reads that do not hold exactly one
request.
"""

from __future__ import annotations

# Longer heads and bodies are parsed: they are rare, and parsing a head is little beside reading a large body.
MAX_HEAD_BYTES = 4096
MAX_BODY_BYTES = 64 * 1024

_LENGTH = b"content-length"
_CODING = b"transfer-encoding"
_EXPECTATION = b"\r\nexpect"


class RepeatedHead:
    """The head of one request, from its first byte to the empty line, in three parts around its length."""

    __slots__ = ("_after", "_before", "_digits", "_size")

    def __init__(self, before: bytes, digits: int, after: bytes) -> None:
        self._before = before
        self._digits = digits
        self._after = after
        self._size = len(before) + digits + len(after)

    @classmethod
    def of(cls, data: bytes, length: str) -> RepeatedHead | None:
        """The head of `data`, one whole request with the content length `length`; None if it is unusual."""
        size = data.find(b"\r\n\r\n") + 4
        digits = length.encode()
        if size > MAX_HEAD_BYTES or not digits.isdigit() or len(data) != size + int(digits):
            return None
        head = data[:size].lower()
        place = head.find(b"\r\n" + _LENGTH)
        if place < 0 or head.count(_LENGTH) != 1 or head.find(_CODING) >= 0 or head.find(_EXPECTATION) >= 0:
            return None
        start = head.find(digits, place)
        if head[place + 2 + len(_LENGTH) : start].strip(b": \t"):
            return None
        return cls(data[:start], len(digits), data[start + len(digits) : size])

    def body_bytes(self, data: bytes) -> int:
        """The length of the body if `data` is this head, with a length of as many digits, and that body.

        Else -1.
        """
        if not data.startswith(self._before):
            return -1
        size = len(data) - self._size
        if not 0 <= size <= MAX_BODY_BYTES:
            return -1
        length = b"%d" % size
        is_same = len(length) == self._digits and data.startswith(length + self._after, len(self._before))
        return size if is_same else -1
