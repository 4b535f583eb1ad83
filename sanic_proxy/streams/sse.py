"""Server-sent event frames, as bytes: encode, and split as they arrive. No I/O, no meaning.

The format is the HTML standard's, chapter 9.2. A frame made of one `data:` line ending in LF keeps
its bytes; everything else the format allows (BOM, CRLF, comments, `id:`, `retry:`, several `data:`
lines) becomes `data: <payload>` and a blank line. So does JSON that stands there without `data:`, which the
format would ignore: it is how some servers report an error in the middle of a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sanic_proxy.errors import FrameTooLarge

DONE_PAYLOAD = b"[DONE]"
DONE = b"data: [DONE]\n\n"
# One newline: a blank line after a comment makes old openai-python dispatch an empty event.
PING = b": ping\n"
MAX_FRAME_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
# An integer is found in bytes at a tenth of the cost of bytes of length one.
_CR, _LF = ord("\r"), ord("\n")
_JSON_BEGINS = frozenset({b"{", b"["})


def encode(payload: bytes) -> bytes:
    """One frame around a payload without line breaks."""
    return b"data: " + payload + b"\n\n"


class Frame(NamedTuple):
    """One event: the bytes to send, its `data`, and its `event` name, mostly empty."""

    raw: bytes
    payload: bytes
    event: bytes = b""


class FrameSplitter:
    """Bytes as the network cuts them -> whole frames. The unfinished tail waits inside."""

    __slots__ = ("_at_start", "_holds_cr", "_searched", "_tail")

    def __init__(self) -> None:
        self._tail = bytearray()
        self._searched = 0
        self._at_start = True
        self._holds_cr = False

    def plain_payloads(self, data: bytes) -> list[bytes] | None:
        """The payloads of `data` if it is made of whole frames of one `data: ` line each, else None.

        This is what nearly every read brings: such bytes can be passed on as they are, uncopied.
        None leaves the splitter as it was: give the same bytes to `feed`.
        """
        if self._tail or self._holds_cr or data[-2:] != b"\n\n" or _CR in data:
            return None
        blocks = data[:-2]
        if _LF not in blocks:
            payloads = [blocks[6:]]
            if blocks[:6] != b"data: " or not payloads[0]:
                return None
        else:
            payloads = []
            for block in blocks.split(b"\n\n"):
                if _LF in block or block[:6] != b"data: " or len(block) == 6:
                    return None
                payloads.append(block[6:])
        self._at_start = False
        return payloads

    def event_payloads(self, data: bytes) -> list[tuple[bytes, bytes]] | None:
        """The event names and payloads of `data` if it is made of whole frames of two lines each, else None.

        Those lines are `event: NAME` and `data: PAYLOAD`, as the APIs with named events write them. The rest
        is as with `plain_payloads`.
        """
        if self._tail or self._holds_cr or not data.endswith(b"\n\n") or b"\r" in data:
            return None
        end = data.find(b"\n")
        if data.find(b"\n", end + 1) == len(data) - 2 and data.startswith(b"event: "):
            if data.find(b"data: ", end, end + 7) < 0:
                return None
            self._at_start = False
            return [(data[7:end], data[end + 7 : -2])]
        lines = data.split(b"\n")
        names, payloads = lines[:-1:3], lines[1::3]
        if len(lines) % 3 != 1 or any(lines[2::3]):
            return None
        frames = [
            (name[7:], payload[6:])
            for name, payload in zip(names, payloads, strict=True)
            if name.startswith(b"event: ") and payload.startswith(b"data: ")
        ]
        if len(frames) != len(names):
            return None
        self._at_start = False
        return frames

    def whole_frames(self, data: bytes) -> list[Frame] | None:
        """The frames of `data` as `feed` returns them, if `data` is nothing but whole ones, else None."""
        if (payloads := self.plain_payloads(data)) is not None:
            return [Frame(encode(payload), payload) for payload in payloads]
        if (events := self.event_payloads(data)) is not None:
            return [Frame(encode(payload), payload, name) for name, payload in events if payload]
        return None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises FrameTooLarge."""
        tail = self._tail
        tail += self._folded(data) if self._holds_cr or _CR in data else data
        if self._at_start and not self._skip_bom():
            return []
        end = tail.rfind(b"\n\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(tail)
            if len(tail) > MAX_FRAME_BYTES:
                raise frame_too_large()
            return []
        # Of three line ends the first two are the frame's, wherever the network cuts.
        blocks = bytes(tail[:end]).rstrip(b"\n")
        del tail[: end + 2]
        self._searched = 0
        return [frame for block in blocks.split(b"\n\n") for frame in _frames(block)]

    @property
    def pending(self) -> bytes:
        """The unfinished tail: at the end of a stream, a frame that was cut."""
        return bytes(self._tail).strip()

    def _skip_bom(self) -> bool:
        tail = self._tail
        if len(tail) < 3 and _BOM.startswith(tail):
            return False
        self._at_start = False
        if tail.startswith(_BOM):
            del tail[:3]
        return True

    def _folded(self, data: bytes) -> bytes:
        """CRLF and CR to LF; a CR at the very end waits, as it may be half of a CRLF."""
        if self._holds_cr:
            data = b"\r" + data
        self._holds_cr = data.endswith(b"\r")
        if self._holds_cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def frame_too_large() -> FrameTooLarge:
    limit_mib = MAX_FRAME_BYTES // 2**20
    return FrameTooLarge(f"A frame of the provider's stream is larger than the limit of {limit_mib} MiB")


def _frames(block: bytes) -> list[Frame]:
    block = block.lstrip(b"\n")
    if block.startswith(b"data:") and b"\n" not in block:
        payload = block[6:] if block[5:6] == b" " else block[5:]
        return [Frame(block + b"\n\n", payload)] if payload else []
    return list(_normalised(block))


def _normalised(block: bytes) -> Iterator[Frame]:
    """The frame of a block of lines; before it, what stands there without being an event of the format.

    Servers that fail in the middle of a stream write their error as bare JSON, or as `error: {...}`.
    """
    data: list[bytes] = []
    bare: list[bytes] = []
    event = b""
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
        elif name == b"error":
            yield Frame(encode(value), value, b"error")
        elif bare or line.lstrip()[:1] in _JSON_BEGINS:
            bare.append(line)
    # A JSON text holds line breaks only between its tokens, where a space does as well.
    if payload := b" ".join(bare):
        yield Frame(encode(payload), payload)
    if payload := b" ".join(data):
        yield Frame(encode(payload), payload, event)
