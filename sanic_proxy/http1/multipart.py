"""Finds the value of one field in a streamed multipart form, and changes no other byte. Pure.

Strategy: the form is not parsed and written again. Its bytes arrive in pieces and are returned unchanged,
except that the value of the wanted field is returned apart, so that the sender can replace it. Forms
that two parsers could read differently are refused (RFC 7578, RFC 2046 5.1.1).

Theory: the finder is a state machine whose state is the method that reads next:

    preamble -> after_delimiter -> head -> begun_value   -> value -> content -> after_delimiter
                after_delimiter -> epilogue
                                   head -> begun_content          -> content -> after_delimiter

Each step returns the bytes it is sure of, b"" if it only changed the state, or None if it needs more input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sanic_proxy.errors import InvalidRequest

MAX_BOUNDARY_CHARS = 200  # RFC 2046 allows 70; some clients write more
MAX_PART_HEAD_BYTES = 16 * 1024
MAX_VALUE_BYTES = 4 * 1024

_BOUNDARY = re.compile(
    r"""(?i)multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\\]+)"|([^\s";,]+))\s*(?:;|\Z)"""
)
_BOUNDARY_TEXT = re.compile(r"[!-~ ]*[!-~]")
_DISPOSITION = re.compile(rb"(?i)content-disposition[ \t]*:")
_FORM_DATA = re.compile(rb"(?i)[ \t]*form-data(?=[ \t;]|\Z)")
# One parameter; a quoted value may hold anything, escaped quotes and semicolons included.
_PARAMETER = re.compile(
    rb"""[ \t]*;[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s";]*))[ \t]*"""
)


_Step = Callable[[], "bytes | Value | None"]


@dataclass(frozen=True, slots=True)
class Value:
    """The value of the wanted field; `raw` are its bytes in the form."""

    raw: bytes


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises InvalidRequest if it names none, or more than one."""
    match = _BOUNDARY.match(content_type) if len(content_type) <= 1024 else None
    boundary = (match[1] or match[2]) if match is not None else ""
    if content_type.lower().count("boundary=") != 1:
        boundary = ""  # of two, the provider might use the other one
    if not boundary or len(boundary) > MAX_BOUNDARY_CHARS or not _BOUNDARY_TEXT.fullmatch(boundary):
        raise InvalidRequest("A form needs `content-type: multipart/form-data; boundary=...`")
    return boundary.encode()


class FieldFinder:
    """The bytes of a form as they arrive -> the same bytes, with the value of one field apart.

    All that `feed` returns, joined, is what was fed. Raises InvalidRequest for a field that occurs twice,
    whose name is ambiguous, or whose value is longer than 4 KiB, and for a malformed form.
    """

    __slots__ = ("_at", "_delimiter", "_name", "_pending", "_read", "is_found")

    def __init__(self, boundary: bytes, name: str) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._name = name.encode()
        self._pending = b""
        self._at = 0  # how much of `_pending` has been returned
        self._read: _Step = self._preamble
        self.is_found = False

    def feed(self, data: bytes) -> Iterator[bytes | Value]:
        """The bytes that are certain by now, in order."""
        self._pending = self._pending[self._at :] + data
        self._at = 0
        while (part := self._read()) is not None:
            if part:
                yield part

    def end(self) -> None:
        """The input is over. Raises InvalidRequest if the form is not."""
        if self._read != self._epilogue:
            raise InvalidRequest("The form ends before its last boundary")

    # The states

    def _preamble(self) -> bytes | Value | None:
        """The first delimiter has no line end before it."""
        if (is_here := self._has_opening()) is None:
            return None
        if not is_here:
            raise InvalidRequest("The form does not begin with the boundary that its Content-Type names")
        return self._step(self._at + len(self._delimiter) - 2, self._after_delimiter)

    def _has_opening(self) -> bool | None:
        """Whether a boundary without a line end before it begins here; None: not known yet."""
        opening = self._delimiter[2:]
        here = self._pending[self._at : self._at + len(opening)]
        return here == opening if len(here) == len(opening) or not opening.startswith(here) else None

    def _after_delimiter(self) -> bytes | Value | None:
        mark = self._pending[self._at : self._at + 2]
        if len(mark) < 2:
            return None
        if mark == b"--":
            return self._step(self._at + 2, self._epilogue)
        if mark != b"\r\n":
            raise InvalidRequest("A boundary in the form is not followed by CRLF")
        # The line end also begins the blank line of a part without headers.
        self._read = self._head
        return b""

    def _head(self) -> bytes | Value | None:
        end = self._pending.find(b"\r\n\r\n", self._at)
        if (len(self._pending) if end < 0 else end) - self._at > MAX_PART_HEAD_BYTES:
            raise InvalidRequest(
                f"The headers of a part of the form are longer than {MAX_PART_HEAD_BYTES} bytes"
            )
        if end < 0:
            return None
        is_wanted = _name_of(self._pending[self._at + 2 : end]) == self._name
        if is_wanted and self.is_found:
            name = self._name.decode()
            raise InvalidRequest(f"The form has the field `{name}` twice", param=name)
        return self._step(end + 4, self._begun_value if is_wanted else self._begun_content)

    # A boundary right after the blank line is content to some parsers, and ends the part for others.

    def _begun_value(self) -> bytes | Value | None:
        return self._begun(self._value)

    def _begun_content(self) -> bytes | Value | None:
        return self._begun(self._content)

    def _begun(self, then: _Step) -> bytes | None:
        if (is_here := self._has_opening()) is None:
            return None
        if is_here:
            raise InvalidRequest("A part of the form has no CRLF between its headers and the boundary")
        self._read = then
        return b""

    def _value(self) -> bytes | Value | None:
        end = self._next_delimiter()
        size = (len(self._pending) - len(self._delimiter) if end < 0 else end) - self._at
        if size > MAX_VALUE_BYTES:
            name = self._name.decode()
            raise InvalidRequest(
                f"The field `{name}` of the form is longer than {MAX_VALUE_BYTES} bytes", param=name
            )
        if end < 0:
            return None
        self.is_found = True
        return Value(self._step(end, self._content))

    def _content(self) -> bytes | Value | None:
        at = self._next_delimiter()
        if at >= 0:
            return self._step(at + len(self._delimiter), self._after_delimiter)
        # The end may be the beginning of a delimiter.
        pending = self._pending
        since = len(pending) - len(self._delimiter) + 1
        tail = max(pending.rfind(b"\r", max(self._at, since)), pending.rfind(b"\n", max(self._at, since + 1)))
        if tail > self._at and pending[tail - 1 : tail + 1] == b"\r\n":
            tail -= 1
        known = len(pending) if tail < 0 else tail
        return self._step(known, self._content) if known > self._at else None

    def _next_delimiter(self) -> int:
        """Where the next delimiter begins; -1 if it has not arrived. A bare LF before it is refused."""
        at = self._pending.find(self._delimiter[1:], self._at)
        if at >= 0 and (at == self._at or self._pending[at - 1 : at] != b"\r"):
            raise InvalidRequest("A boundary in the form follows a bare LF instead of CRLF")
        return at - 1 if at >= 0 else -1

    def _epilogue(self) -> bytes | Value | None:
        return self._step(len(self._pending), self._epilogue) if len(self._pending) > self._at else None

    def _step(self, end: int, then: _Step) -> bytes:
        """Return the pending bytes up to `end`, and continue in the state `then`."""
        part = self._pending[self._at : end]
        self._at = end
        self._read = then
        return part


def _name_of(head: bytes) -> bytes | None:
    """The field's name in a part's headers; None for a part without one."""
    lines = head.split(b"\r\n")
    if any(line[:1] in _BLANKS or b"\r" in line or b"\n" in line or b"\0" in line for line in lines if line):
        raise InvalidRequest("The headers of a part of the form are malformed")
    names = [name for line in lines for name in _names_in(line)]
    if len(names) > 1:
        raise InvalidRequest("A part of the form has two names")
    return names[0] if names else None


_BLANKS = (b" ", b"\t")


def _names_in(line: bytes) -> Iterator[bytes]:
    opening = _DISPOSITION.match(line)
    if opening is None:
        return
    kind = _FORM_DATA.match(line, opening.end())
    position = len(line) + 1 if kind is None else kind.end()
    while position < len(line) and line[position:].strip():
        parameter = _PARAMETER.match(line, position)
        if parameter is None:
            break
        position = parameter.end()
        key, name = parameter[1].lower(), parameter[3] if parameter[2] is None else parameter[2]
        if key == b"name*" or (key == b"name" and b"\\" in name):
            raise InvalidRequest("The name of a part of the form must be plain (RFC 7578, 4.2)")
        if key == b"name":
            yield name
    if line[position:].strip() or kind is None:
        raise InvalidRequest("The Content-Disposition of a part of the form is malformed")
