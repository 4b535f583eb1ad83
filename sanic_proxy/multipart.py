"""A form with files, on its way through: finds the value of one field, and changes no other byte. Pure.

Strategy: a form is not taken apart and put together again. Its bytes come in pieces and go out as they
came; between them stands the value that was looked for, so that whoever sends them on can send another
one. What two readers could understand differently is refused (RFC 7578, RFC 2046 5.1.1).
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
    """The value of the field that was looked for; `raw` are its bytes in the form."""

    raw: bytes


def boundary_of(content_type: str) -> bytes:
    """What separates the parts. Raises InvalidRequest where the type names nothing of use."""
    match = _BOUNDARY.match(content_type) if len(content_type) <= 1024 else None
    boundary = (match[1] or match[2]) if match is not None else ""
    if not boundary or len(boundary) > MAX_BOUNDARY_CHARS or not _BOUNDARY_TEXT.fullmatch(boundary):
        raise InvalidRequest("A form needs `content-type: multipart/form-data` with its boundary")
    return boundary.encode()


class FieldFinder:
    """The bytes of a form as they come -> the same bytes, with the value of one field set apart.

    What `feed` and `end` return, joined, is what was fed. A field that stands there twice, whose name
    can be read in two ways, or that is longer than 4 KiB raises InvalidRequest; so does a form that
    is none.
    """

    __slots__ = ("_delimiter", "_name", "_pending", "_read", "is_found")

    def __init__(self, boundary: bytes, name: str) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._name = name.encode()
        self._pending = b""
        self._read: _Step = self._preamble
        self.is_found = False

    def feed(self, data: bytes) -> Iterator[bytes | Value]:
        """The bytes that can be told by now, in their order."""
        self._pending += data
        while (told := self._read()) is not None:
            if told:
                yield told

    def end(self) -> None:
        """The form is over. Raises InvalidRequest where it broke off."""
        if self._read != self._epilogue:
            raise InvalidRequest("The form breaks off before its end")

    # Each returns what it can tell, b"" where it only went on, None where it needs more.

    def _preamble(self) -> bytes | Value | None:
        """The first delimiter lacks its line end, if nothing stands before it."""
        opening = self._delimiter[2:]
        if len(self._pending) < len(opening):
            if not opening.startswith(self._pending):
                raise InvalidRequest("The form does not begin with its boundary")
            return None
        if not self._pending.startswith(opening):
            raise InvalidRequest("The form does not begin with its boundary")
        return self._step(len(opening), self._after_delimiter)

    def _after_delimiter(self) -> bytes | Value | None:
        if len(self._pending) < 2:
            return None
        if self._pending.startswith(b"--"):
            return self._step(2, self._epilogue)
        if not self._pending.startswith(b"\r\n"):
            raise InvalidRequest("A boundary of the form is not followed by a line end")
        # The line end also begins the blank line of a part without headers.
        self._read = self._head
        return b""

    def _head(self) -> bytes | Value | None:
        end = self._pending.find(b"\r\n\r\n")
        if (len(self._pending) if end < 0 else end) > MAX_PART_HEAD_BYTES:
            raise InvalidRequest("The headers of a part of the form are too long")
        if end < 0:
            return None
        is_wanted = _name_of(self._pending[2:end]) == self._name
        if is_wanted and self.is_found:
            raise InvalidRequest(
                f"The form has the field `{self._name.decode()}` twice", param=self._name.decode()
            )
        return self._step(end + 4, self._value if is_wanted else self._content)

    def _value(self) -> bytes | Value | None:
        end = self._next_delimiter()
        if end > MAX_VALUE_BYTES or (end < 0 and len(self._pending) > MAX_VALUE_BYTES + len(self._delimiter)):
            name = self._name.decode()
            raise InvalidRequest(f"The field `{name}` of the form is too long", param=name)
        if end < 0:
            return None
        value = Value(self._pending[:end])
        self._pending = self._pending[end:]
        self.is_found = True
        self._read = self._content
        return value

    def _content(self) -> bytes | Value | None:
        at = self._next_delimiter()
        if at >= 0:
            return self._step(at + len(self._delimiter), self._after_delimiter)
        # The end may be the beginning of a delimiter.
        pending = self._pending
        since = len(pending) - len(self._delimiter) + 1
        tail = max(pending.rfind(b"\r", max(0, since)), pending.rfind(b"\n", max(0, since + 1)))
        if tail > 0 and pending[tail - 1 : tail + 1] == b"\r\n":
            tail -= 1
        known = len(pending) if tail < 0 else tail
        return self._step(known, self._content) if known else None

    def _next_delimiter(self) -> int:
        """Where the next delimiter begins; -1 if it is not here. A bare line feed before it is refused."""
        at = self._pending.find(self._delimiter[1:])
        if at >= 0 and not self._pending.startswith(b"\r", at - 1 if at else 1 << 30):
            raise InvalidRequest("A boundary of the form stands behind a bare line feed")
        return at - 1 if at >= 0 else -1

    def _epilogue(self) -> bytes | Value | None:
        return self._step(len(self._pending), self._epilogue) if self._pending else None

    def _step(self, size: int, then: _Step) -> bytes:
        told, self._pending = self._pending[:size], self._pending[size:]
        self._read = then
        return told


def _name_of(head: bytes) -> bytes | None:
    """The field's name in a part's headers; None for a part without one."""
    lines = head.split(b"\r\n")
    if any(line[:1] in _BLANKS or b"\r" in line or b"\n" in line or b"\0" in line for line in lines if line):
        raise InvalidRequest("The headers of a part of the form cannot be read")
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
        raise InvalidRequest("The Content-Disposition of a part of the form cannot be read")
