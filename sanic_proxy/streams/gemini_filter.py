"""A filter for the stream of a provider that speaks Gemini's API: which frames may pass.

It judges each frame by these rules, in this order:

1. *Padding*: a payload that does not begin like JSON (`[DONE]`, `ping`). Dropped.
2. *Error*: `event: error`, or an object that reports one. It ends the stream with the provider's words.
3. *Response*: an object with candidates, feedback on the prompt or usage. Its payload passes byte for byte;
   line ends become LF, whatever the provider's are (Google sends CRLF).
4. *Foreign object*: any other value. Dropped and counted in `dropped_frames`.
5. *Malformed frame*: not JSON, though it begins like it. A failure, unless the answer is complete: then it is
   dropped and counted.

Nothing in the API marks the last frame, so the end of the connection ends the stream. It is complete if by
then every candidate that has begun has a finish reason, or the prompt has been refused; any other end is a
cut. Some models state a finish reason in each frame, so the first one is not the end.
"""

from __future__ import annotations

import orjson
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter, cut, last_frame
from sanic_proxy.streams.gemini_usage import recorded_usage
from sanic_proxy.upstream import answers, error_parser

# A blank line: Google's SDKs for Python and JavaScript fail at any other line that is not `data:`.
PING = b"\n"
_RESPONSE_FIELDS = frozenset({"candidates", "promptFeedback", "usageMetadata"})


class GeminiStreamFilter(StreamFilter):
    """Bytes of an upstream's Gemini stream -> the frames that may reach the client; see the module.

    `usage` has the form of a chat's.
    """

    __slots__ = (
        "_begun",
        "_counted",
        "_finished",
        "_has_content",
        "_has_frames",
        "_is_blocked",
        "_is_ended",
        "_splitter",
        "dropped_frames",
        "failure",
        "is_done",
    )

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._begun: set[int] = set()  # candidates by index
        self._finished: set[int] = set()
        self._has_content = False
        self._has_frames = False
        self._is_blocked = False
        self._is_ended = False  # the connection
        self.is_done = False
        self.failure: errors.ProxyError | None = None
        self._counted: Json | None = None  # the last response that has usage
        self.dropped_frames = 0

    @property
    @override
    def has_content(self) -> bool:
        """Whether a part of an answer, a finish reason or a refusal of the prompt has passed."""
        return self._has_content or bool(self._finished) or self._is_blocked

    @property
    @override
    def usage(self) -> Json | None:
        """Computed when it is read: nearly every frame reports it anew."""
        return None if self._counted is None else recorded_usage(self._counted)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole if the connection ends now."""
        return self._is_blocked or (bool(self._finished) and self._finished >= self._begun)

    @override
    def feed(self, data: bytes) -> bytes:
        """The good frames that `data` completes, joined; `data` with LF where it is nothing but those."""
        if self.is_done or self.failure is not None:
            return b""
        # No line break can be part of a payload: JSON escapes them.
        plain = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        payloads = self._splitter.plain_payloads(plain)
        if payloads is not None and self._pass_unchanged(payloads):
            return plain
        good: list[bytes] = []
        try:
            for frame in self._splitter.feed(data):
                self._has_frames = True
                good.append(self._judged(frame))
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(good)

    @override
    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        self._is_ended = True
        last = last_frame(self, self._splitter)
        if self.is_complete:
            if not self.has_content:
                raise answers.empty_answer()
            self.is_done = True
            return last
        raise cut(has_begun=self._has_frames or bool(self._begun))

    @override
    def has_progress(self, frames: bytes) -> bool:
        return b"data: " in frames

    def _pass_unchanged(self, payloads: list[bytes]) -> bool:
        """Whether `payloads` are responses that all pass as they are. Noting one twice changes nothing."""
        try:
            for payload in payloads:
                response = orjson.loads(payload)
                if "candidates" not in response or "error" in response:
                    return False
                self._note(response)
        except (ValueError, TypeError, AttributeError, LookupError):
            return False
        return True

    def _note(self, response: Json) -> None:
        """Remember what a response says. Raises TypeError or AttributeError for a value of another type."""
        for candidate in response.get("candidates") or ():
            index = candidate.get("index") or 0
            if not isinstance(index, int):
                raise TypeError
            self._begun.add(index)
            if not self._has_content and (content := candidate.get("content")):
                self._has_content = any(map(_has_content, content.get("parts") or ()))
            if candidate.get("finishReason"):
                self._finished.add(index)
        if (feedback := response.get("promptFeedback")) and feedback.get("blockReason"):
            self._is_blocked = True
        if isinstance(response.get("usageMetadata"), dict):
            self._counted = response

    def _judged(self, frame: sse.Frame) -> bytes:
        """What of one frame reaches the client: see the rules in the module's docstring."""
        payload, is_error = frame.payload, frame.event == b"error"
        if payload.lstrip()[:1] not in {b"{", b"["} or payload.strip() == sse.DONE_PAYLOAD:
            if is_error:
                raise error_parser.error_in_band({"error": payload.decode("utf-8", "replace")})
            return b""
        try:
            response = codec.loads_exact(payload)
        except ValueError:
            return self._malformed()
        if is_error or error_parser.is_error(response):
            raise error_parser.error_in_band(response)
        if not isinstance(response, dict) or not _RESPONSE_FIELDS & response.keys():
            self.dropped_frames += 1
            return b""
        try:
            self._note(response)
        except (TypeError, AttributeError):
            return self._malformed()
        return sse.encode(payload)

    def _malformed(self) -> bytes:
        if self._is_ended or not self.is_complete:
            raise errors.UpstreamBadFrame(
                "A frame of the provider's stream is not a response of Gemini's API"
            )
        self.dropped_frames += 1
        return b""


def _has_content(part: Json) -> bool:
    return bool(part.get("text")) or any(name not in {"text", "thought"} for name in part)


class JsonArray(StreamFilter):
    """Frames -> the elements of one JSON array, as Gemini streams to clients that do not ask for events.

    A stream that fails leaves the array open.
    """

    __slots__ = ("_has_begun", "_splitter")

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._has_begun = False

    @override
    def feed(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        for frame in self._splitter.feed(data):
            pieces += (b",\n" if self._has_begun else b"[", frame.payload)
            self._has_begun = True
        return b"".join(pieces)

    @override
    def end(self) -> bytes:
        return b"]" if self._has_begun else b"[]"
