"""The seam between two attempts whose chat streams make up one answer. Pure.

`SentText` keeps what the client has of the answer, and knows whether another attempt could bring the rest at
all: not inside a tool call, nor behind signed reasoning, logprobs or a second choice.

`Seam` is a filter behind the guard of a later attempt. It removes from its frames what the client already
has, and gives them the head of the client's stream. It has content only once it has something new. So
`Stream.begin` reads up to there, and a later attempt that fails or differs earlier is one like all others.

`SentText` costs a healthy stream one append for each read: its frames are kept as bytes, and parsed only when
FOLD_BYTES of them have come, or the stream breaks off.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import choices as choice_rules
from sanic_proxy.openai import codec
from sanic_proxy.openai.usage import added
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter, has_chat_progress

# A longer text is not kept, and its stream not saved.
MAX_TEXT_CHARS = 1024 * 1024
FOLD_BYTES = 64 * 1024
# A continuation that repeats so much of the answer's beginning is the answer from its beginning.
MIN_REPEATED_CHARS = 24

_HEAD_FIELDS = ("id", "created", "model")
_REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_text"})
_PLAIN = frozenset({"role", "content", *_REASONING})


class SentText:
    """What a client has of one chat stream. `note` takes its frames; the properties are those of all of them.

    `usage` is that of the attempts which have failed: what they reported; for one that reported nothing, as
    is usual, its frames of text as completion tokens, each of which holds one at least. `reported` is what
    the last of them has reported; None: nothing.
    """

    __slots__ = (
        "_can_go_on",
        "_chars",
        "_frames",
        "_frames_before",
        "_head",
        "_pieces",
        "_raw",
        "_raw_bytes",
        "reported",
        "usage",
    )

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._head: Json = {}
        self._pieces: list[str] = []
        self._chars = 0
        self._frames = 0  # with text; and how many of them by the attempts that have failed
        self._frames_before = 0
        self._can_go_on = True
        self.reported: JsonMapping | None = None
        self.usage: Json = {}

    def note(self, frames: bytes) -> None:
        """Add whole frames that are sent to the client."""
        self._raw.append(frames)
        self._raw_bytes += len(frames)
        if self._raw_bytes > FOLD_BYTES:
            self._fold()

    @property
    def can_go_on(self) -> bool:
        """Whether another attempt could bring the rest of the answer."""
        self._fold()
        return self._can_go_on

    @property
    def text(self) -> str:
        """The content that has been sent."""
        self._fold()
        return "".join(self._pieces)

    @property
    def frames(self) -> int:
        """How many frames had text."""
        self._fold()
        return self._frames

    @property
    def head(self) -> JsonMapping:
        """The fields that all chunks of the stream share."""
        self._fold()
        return self._head

    def end_attempt(self, reported: JsonMapping | None) -> None:
        """The current attempt has failed; `reported` is its usage, if it has said."""
        self.reported = reported
        frames = self.frames - self._frames_before
        self._frames_before = self._frames
        estimate = {"completion_tokens": frames, "total_tokens": frames}
        self.usage = added(self.usage, reported or estimate)

    def _fold(self) -> None:
        if not self._raw:
            return
        frames = b"".join(self._raw)
        self._raw.clear()
        self._raw_bytes = 0
        if self._can_go_on:
            self._can_go_on = all(self._takes(frame.payload) for frame in sse.FrameSplitter().feed(frames))
            if not self._can_go_on:
                self._pieces.clear()

    def _takes(self, payload: bytes) -> bool:
        """Add the text of a frame; False for one behind which no other attempt could go on."""
        if payload == sse.DONE_PAYLOAD:
            return False
        chunk = codec.loads_exact(payload)
        if not self._head:
            self._head = {name: chunk[name] for name in _HEAD_FIELDS if name in chunk}
        for choice in chunk.get("choices") or ():
            if not _is_plain(choice):
                return False
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                self._pieces.append(text)
                self._chars += len(text)
            self._frames += choice_rules.has_content(choice)
        return self._chars <= MAX_TEXT_CHARS


def _is_plain(choice: Any) -> bool:
    """Whether a chunk's choice is the first one, and has nothing but text and reasoning without signature."""
    if not isinstance(choice, dict) or choice.get("index") or choice.get("logprobs") or choice.get("text"):
        return False
    delta = choice.get("delta") or {}
    return (
        isinstance(delta, dict)
        and choice_rules.finish_reason_of(choice.get("finish_reason")) is None
        and all(not value or (name in _PLAIN and isinstance(value, str)) for name, value in delta.items())
    )


class Seam(StreamFilter):
    """Chat frames of a later attempt -> those that go on behind what the client has.

    With `continues` the attempt has been asked to continue the text; else it has been sent the request anew,
    its text must begin with all that was sent, and a difference is a failure. A continuation may repeat the
    white space at the end of the text; and one that turns out to begin the answer anew is treated as such.
    Reasoning is dropped, as the client has that of the first attempt.
    """

    __slots__ = (
        "_expected",
        "_has_content",
        "_held",
        "_is_undecided",
        "_sent",
        "_splitter",
        "_text",
        "failure",
    )

    def __init__(self, sent: SentText, *, continues: bool) -> None:
        self._sent = sent
        self._text = sent.text
        # What must still come before anything new does.
        self._expected = self._text
        # Whether it may as well be a continuation; its text so far is then held.
        self._is_undecided = continues
        self._held = ""
        self._splitter = sse.FrameSplitter()
        self._has_content = False
        self.failure: errors.ProxyError | None = None

    @property
    @override
    def has_content(self) -> bool:
        return self._has_content

    @override
    def has_progress(self, frames: bytes) -> bool:
        return has_chat_progress(frames)

    @override
    def feed(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        for frame in self._splitter.feed(data):
            is_done = frame.payload == sse.DONE_PAYLOAD
            passed.append(self._continued(self._last_chunk() if is_done else json.loads(frame.payload)))
            if is_done:
                passed.append(frame.raw)
        return b"".join(passed) if self.failure is None else b""

    def _continued(self, chunk: Json) -> bytes:
        """The frame of a chunk as the client gets it; b"" if it has nothing new."""
        if self.failure is not None:
            return b""
        found = chunk.get("choices") or ()
        choices = [choice for choice in found if self._brings(choice)]
        usage = chunk.get("usage")
        if self.failure is not None or not (choices or (usage and not found)):
            return b""
        self._has_content = self._has_content or bool(choices)
        if isinstance(usage, dict):
            chunk["usage"] = added(self._sent.usage, usage)
        return sse.encode(codec.dumps({**chunk, "choices": choices, **self._sent.head}))

    def _last_chunk(self) -> Json:
        """A chunk with the text that has been held, at the end of a stream without finish reason."""
        text = self._new("", is_last=True)
        return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}

    def _brings(self, choice: Json) -> bool:
        """Remove from a choice what the client has; whether anything is left."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            choice["delta"] = delta = {}
        for name in ("role", *_REASONING):
            delta.pop(name, None)
        text = delta.pop("content", None)
        is_last = (
            any(delta.values()) or choice_rules.finish_reason_of(choice.get("finish_reason")) is not None
        )
        if new := self._new(text if isinstance(text, str) else "", is_last=is_last):
            choice["delta"] = {"content": new, **delta}
        return choice_rules.has_content(choice)

    def _new(self, text: str, *, is_last: bool) -> str:
        """What of `text` the client does not have. With `is_last` no more text comes."""
        if self._is_undecided:
            self._held += text
            if self._text.startswith(self._held) and len(self._held) < MIN_REPEATED_CHARS and not is_last:
                return ""
            text, self._held = self._held, ""
            self._is_undecided = False
            if not _is_repeat(text, self._text):
                self._expected = ""
                return text[_overlap(self._text, text) :]
        size = min(len(text), len(self._expected))
        is_same = text[:size] == self._expected[:size]
        self._expected = self._expected[size:]
        if not is_same or (is_last and self._expected):
            self.failure = errors.UpstreamDiverged(
                "The repeated request was answered with another text than the one that had been sent"
            )
        return text[size:]


def _is_repeat(text: str, sent: str) -> bool:
    """Whether `text`, the beginning of a continuation, is that of the whole answer."""
    size = min(len(text), len(sent))
    return size >= MIN_REPEATED_CHARS and text[:size] == sent[:size]


def _overlap(sent: str, text: str) -> int:
    """How many characters of white space, which `sent` ends with, `text` begins with once more."""
    blanks = sent[len(sent.rstrip()) :]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(blanks, text, strict=False))
    return sum(1 for _ in same)
