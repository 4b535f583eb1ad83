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
    if content_type.lower().count("boundary=") != 1:
        boundary = ""  # of two, the provider might take the other one
    if not boundary or len(boundary) > MAX_BOUNDARY_CHARS or not _BOUNDARY_TEXT.fullmatch(boundary):
        raise InvalidRequest("A form needs `content-type: multipart/form-data` with its boundary")
    return boundary.encode()


class FieldFinder:
    """The bytes of a form as they come -> the same bytes, with the value of one field set apart.

    What `feed` and `end` return, joined, is what was fed. A field that stands there twice, whose name
    can be read in two ways, or that is longer than 4 KiB raises InvalidRequest; so does a form that
    is none.
    """

    __slots__ = ("_at", "_delimiter", "_name", "_pending", "_read", "is_found")

    def __init__(self, boundary: bytes, name: str) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._name = name.encode()
        self._pending = b""
        self._at = 0  # of what is pending, how much has been told
        self._read: _Step = self._preamble
        self.is_found = False

    def feed(self, data: bytes) -> Iterator[bytes | Value]:
        """The bytes that can be told by now, in their order."""
        self._pending = self._pending[self._at :] + data
        self._at = 0
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
        if (is_here := self._has_opening()) is None:
            return None
        if not is_here:
            raise InvalidRequest("The form does not begin with its boundary")
        return self._step(self._at + len(self._delimiter) - 2, self._after_delimiter)

    def _has_opening(self) -> bool | None:
        """Whether a boundary stands here, without the line end before it; None: that cannot be told yet."""
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
            raise InvalidRequest("A boundary of the form is not followed by a line end")
        # The line end also begins the blank line of a part without headers.
        self._read = self._head
        return b""

    def _head(self) -> bytes | Value | None:
        end = self._pending.find(b"\r\n\r\n", self._at)
        if (len(self._pending) if end < 0 else end) - self._at > MAX_PART_HEAD_BYTES:
            raise InvalidRequest("The headers of a part of the form are too long")
        if end < 0:
            return None
        is_wanted = _name_of(self._pending[self._at + 2 : end]) == self._name
        if is_wanted and self.is_found:
            name = self._name.decode()
            raise InvalidRequest(f"The form has the field `{name}` twice", param=name)
        return self._step(end + 4, self._begun_value if is_wanted else self._begun_content)

    # A boundary right behind the blank line is content to some readers, and ends the part for others.

    def _begun_value(self) -> bytes | Value | None:
        return self._begun(self._value)

    def _begun_content(self) -> bytes | Value | None:
        return self._begun(self._content)

    def _begun(self, then: _Step) -> bytes | None:
        if (is_here := self._has_opening()) is None:
            return None
        if is_here:
            raise InvalidRequest("A part of the form has no line before its boundary")
        self._read = then
        return b""

    def _value(self) -> bytes | Value | None:
        end = self._next_delimiter()
        size = (len(self._pending) - len(self._delimiter) if end < 0 else end) - self._at
        if size > MAX_VALUE_BYTES:
            name = self._name.decode()
            raise InvalidRequest(f"The field `{name}` of the form is too long", param=name)
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
        """Where the next delimiter begins; -1 if it is not here. A bare line feed before it is refused."""
        at = self._pending.find(self._delimiter[1:], self._at)
        if at >= 0 and (at == self._at or self._pending[at - 1 : at] != b"\r"):
            raise InvalidRequest("A boundary of the form stands behind a bare line feed")
        return at - 1 if at >= 0 else -1

    def _epilogue(self) -> bytes | Value | None:
        return self._step(len(self._pending), self._epilogue) if len(self._pending) > self._at else None

    def _step(self, end: int, then: _Step) -> bytes:
        """Tell what is pending up to `end`, and go on with `then`."""
        told = self._pending[self._at : end]
        self._at = end
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
