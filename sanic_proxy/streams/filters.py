"""Filters between an upstream's stream and the client: which bytes may pass, and whether it is complete.

`ChatStreamFilter` judges each frame of a chat stream by these rules, in this order:

1. *Done marker*: `[DONE]`, whatever blanks or quotes surround it. Before any content it ends an empty answer,
   which is a failure; what follows it is dropped.
2. *Keep-alive*: a comment or a word such as `ping` or `null` in a data line, or `event: ping`. Dropped.
3. *Error*: an object that reports one, or `event: error`. It ends the stream with the provider's words.
4. *Chunk*: an object with choices. It passes byte for byte, except that fields which its tool calls lack are
   added, and that reasoning is renamed where the provider is configured so.
5. *Usage* without choices passes with `choices: []`, where the client asked for it.
6. *Foreign object*: any other value. It holds no part of the answer: dropped and counted in `dropped_frames`.
7. *Malformed frame*: not JSON, though it begins like it. Part of the answer may be lost, so it is a failure,
   unless all choices have finished: then it is dropped and counted. After `skip_malformed` it always is, but
   for streams with tool calls, whose arguments would be damaged.

A choice has begun with its first chunk and is finished with a finish reason. The stream is complete after
`[DONE]`, or when every choice that has begun is finished; a connection that merely ends is a cut.

Nearly every read consists of whole, plain chunks. Such bytes are returned as they came, uncopied, after one
parse of each frame: `_pass_unchanged`. Whatever it cannot pass is judged again frame by frame, so it must not
note anything that would come out differently the second time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import choices as choice_rules
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.usage import recorded_chat, recorded_passthrough
from sanic_proxy.streams import sse
from sanic_proxy.streams.reasoning import ReasoningRenamer
from sanic_proxy.streams.tool_deltas import ToolDeltas
from sanic_proxy.upstream import answers, error_parser

MAX_CHOICES = 1024

_DONE_PADDING = b" \t\"'"
_KEEP_ALIVES = frozenset({b"ping", b"pong", b"keepalive", b"keep-alive", b"heartbeat", b"null"})
_HEAD_FIELDS = ("id", "object", "created", "model")
_CALLS = re.compile(rb'"(?:tool_calls|function_call)"')


class StreamFilter:
    """Decides which bytes of an upstream's stream reach the client, and in which form.

    The defaults are those of a filter that passes any bytes as they are (a file, or frames of our own).
    `failure` is set when nothing more can be passed on, `is_done` when the stream is complete before its
    connection ends, `has_content` once the client has seen something of an answer. `reported` is the failure
    that the stream's own last frames, which have passed, report to the client: it counts like any other, but
    the client needs no further frame. `usage` and `dropped_frames` are what it counted.
    """

    __slots__ = ()

    failure: errors.ProxyError | None = None
    reported: errors.ProxyError | None = None
    is_done: bool = False
    dropped_frames: int = 0

    @property
    def has_content(self) -> bool:
        return True

    @property
    def usage(self) -> Json | None:
        return None

    def feed(self, data: bytes) -> bytes:
        """The bytes that may be sent now."""
        return data

    def end(self) -> bytes:
        """The bytes that are still to be sent when the connection has ended. Raises ProxyError for a cut."""
        return b""

    def hide_usage(self) -> None:
        """Keep usage from the client where nothing is beside it: the proxy has requested it for itself."""

    def skip_malformed(self) -> None:
        """Drop malformed frames and count them, where this filter knows them; it fails otherwise."""

    def has_progress(self, frames: bytes) -> bool:
        """Whether `frames`, which have passed, hold a part of the answer."""
        return bool(frames)

    def failed(self, error: errors.ProxyError) -> bytes:
        """The frames that end a stream which failed after it began; b"" where its dialect has one for all."""
        return b""


def last_frame(stream_filter: StreamFilter, splitter: sse.FrameSplitter) -> bytes:
    """What passes of a frame whose blank line is missing, at the end of a connection.

    Raises the failure of the filter; half a frame is a cut.
    """
    if not splitter.pending:
        return b""
    last = stream_filter.feed(b"\n\n")
    if isinstance(stream_filter.failure, errors.UpstreamBadFrame):
        raise errors.UpstreamDisconnected("The provider's stream broke off inside a frame")
    if stream_filter.failure is not None:
        raise stream_filter.failure
    return last


def cut(*, has_begun: bool) -> errors.ProxyError:
    """The error for a connection that ended before its stream was complete, or without a stream."""
    if not has_begun:
        return errors.UpstreamBadResponse("The provider answered a streaming request with no event stream")
    return errors.UpstreamDisconnected("The provider's stream ended before the answer was complete")


class FilterChain(StreamFilter):
    """`first`, which knows when the stream is complete, and `then`, which translates what passes it.

    `end` of `then` is called once, behind a complete stream only.
    """

    __slots__ = (
        "_first",
        "_is_ended",
        "_then",
        "dropped_frames",
        "failure",
        "is_done",
        "reported",
    )

    def __init__(self, first: StreamFilter, then: StreamFilter) -> None:
        self._first = first
        self._then = then
        self._is_ended = False
        self._note()

    @property
    @override
    def has_content(self) -> bool:
        return self._first.has_content and self._then.has_content

    @property
    @override
    def usage(self) -> Json | None:
        return self._first.usage or self._then.usage

    @override
    def feed(self, data: bytes) -> bytes:
        first, then = self._first, self._then
        passed = first.feed(data)
        if first.is_done:
            frames = self._translated(passed, is_last=True)
        else:
            frames = then.feed(passed) if passed else b""
        if first.is_done or then.is_done or first.failure is not None or then.failure is not None:
            self._note()
        else:
            self.dropped_frames = first.dropped_frames + then.dropped_frames
        return frames

    @override
    def end(self) -> bytes:
        frames = self._translated(self._first.end(), is_last=True)
        self._note()
        if self.failure is not None:
            raise self.failure
        return frames

    @override
    def has_progress(self, frames: bytes) -> bool:
        return self._then.has_progress(frames)

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        return self._then.failed(error)

    def _translated(self, passed: bytes, *, is_last: bool) -> bytes:
        frames = self._then.feed(passed) if passed else b""
        if is_last and not self._is_ended and self._then.failure is None:
            self._is_ended = True
            frames += self._then.end()
        return frames

    def _note(self) -> None:
        first, then = self._first, self._then
        self.failure = first.failure or then.failure
        # A failure that `then` finds in the last frames of a stream prevails: the answer is not complete.
        self.is_done = self.failure is None and (first.is_done or then.is_done)
        self.reported = None if self.failure is not None else first.reported or then.reported
        self.dropped_frames = first.dropped_frames + then.dropped_frames


class ChatStreamFilter(StreamFilter):
    """Bytes of an upstream's chat stream -> the frames that may reach the client.

    `failure` is set when a frame cannot be passed on: what `feed` returned before it still may be. After
    `is_done` or a failure, whatever else comes is dropped. With `include_usage` usage passes even where it
    has no choices beside it; `reasoning` renames the model's reasoning, which takes a copy of each frame.
    """

    __slots__ = (
        "_answered",
        "_begun",
        "_finished",
        "_has_frames",
        "_head",
        "_include_usage",
        "_reasoning",
        "_skips_malformed",
        "_splitter",
        "_tools",
        "dropped_frames",
        "failure",
        "is_done",
        "usage",
    )

    def __init__(self, *, include_usage: bool = True, reasoning: ReasoningRenamer | None = None) -> None:
        self._splitter = sse.FrameSplitter()
        self._include_usage: bool | None = include_usage  # None: no chunk with usage alone passes
        self._reasoning = reasoning
        self._tools = ToolDeltas()
        # Choices by index: with a chunk, with content, with a finish reason.
        self._begun: set[int] = set()
        self._answered: set[int] = set()
        self._finished: set[int] = set()
        self._head: Json = {}
        self._has_frames = False
        self._skips_malformed = False
        self.is_done = False
        self.failure: errors.ProxyError | None = None
        self.usage: Json | None = None
        self.dropped_frames = 0

    @property
    @override
    def has_content(self) -> bool:
        """Whether content, reasoning, a call, a refusal, audio or a finish reason has passed."""
        return bool(self._answered)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole, even if the stream should break now."""
        return self.is_done or (bool(self._finished) and self._finished >= self._begun)

    @override
    def feed(self, data: bytes) -> bytes:
        """The good frames that `data` completes, joined; `data` itself where it is nothing but those."""
        if self.is_done or self.failure is not None:
            return b""
        payloads = self._splitter.plain_payloads(data)
        if payloads is not None and self._pass_unchanged(payloads):
            return data
        return self._feed_one_by_one(data)

    @override
    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        last = last_frame(self, self._splitter)
        if self.is_complete:
            return last if self.is_done else last + self._done_frame(sse.DONE)
        raise cut(has_begun=self._has_frames or bool(self._begun))

    @override
    def has_progress(self, frames: bytes) -> bool:
        """Whether any of `frames`, which have passed, brings something that a reader has waited for."""
        return has_chat_progress(frames)

    @override
    def skip_malformed(self) -> None:
        self._skips_malformed = True

    @override
    def hide_usage(self) -> None:
        self._include_usage = None

    def _pass_unchanged(self, payloads: list[bytes]) -> bool:
        """Whether `payloads` are chunks that all pass as they are, and possibly `[DONE]` behind them.

        This is what each frame of a healthy stream costs. It checks no types: a value that is not what a
        chunk has there raises, and the frames are judged one by one.
        """
        if self._reasoning is not None:
            return False
        is_last = payloads[-1] == sse.DONE_PAYLOAD
        if is_last:
            payloads.pop()
        try:
            for payload in payloads:
                if not self._passes(orjson.loads(payload)):
                    return False
        except (ValueError, TypeError, AttributeError, LookupError, errors.ProxyError):
            return False
        if is_last:
            self.is_done = self.has_content
            return self.is_done
        return True

    def _passes(self, chunk: Any) -> bool:
        choices = chunk["choices"]
        if not choices or "error" in chunk:
            return False
        for choice in choices:
            index = choice.get("index") or 0
            if index not in self._answered:
                self._begin(index, choice, chunk)
            if choice.get("finish_reason"):
                self._finish(index, choice)
            delta = choice.get("delta")
            if delta and "tool_calls" in delta:
                calls = delta["tool_calls"]
                if calls and not self._tools.are_complete(index, calls):
                    return False
        if chunk.get("usage"):
            self._count(chunk)
        return True

    def _feed_one_by_one(self, data: bytes) -> bytes:
        good: list[bytes] = []
        try:
            for frame in self._splitter.feed(data):
                self._has_frames = True
                good.append(self._judged(frame))
                if self.is_done:
                    break
        except errors.FrameTooLarge as exc:
            if self.is_complete:
                self.dropped_frames += 1
                good.append(self._done_frame(sse.DONE))
            else:
                self.failure = exc
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(good)

    def _note(self, choices: list[Any], chunk: Json) -> None:
        """Remember which choices have begun, have content and are finished. Raises if one has failed."""
        for choice in choices:
            if isinstance(choice, dict):
                index = _index_of(choice)
                if index not in self._answered:
                    self._begin(index, choice, chunk)
                self._finish(index, choice)
        self._count(chunk)

    def _count(self, chunk: JsonMapping) -> None:
        self.usage = recorded_chat(chunk) or self.usage

    def _finish(self, index: int, choice: Json) -> None:
        reason = choice_rules.finish_reason_of(choice.get("finish_reason"))
        if reason == choice_rules.FAILED:
            raise answers.failed_choice(choice)
        if reason is not None:
            self._finished.add(index)

    def _begin(self, index: int, choice: Json, chunk: Json) -> None:
        if not isinstance(index, int):
            raise TypeError
        if not self._head:
            self._head = {name: chunk[name] for name in _HEAD_FIELDS if name in chunk}
        self._begun.add(index)
        if len(self._begun) > MAX_CHOICES:
            raise errors.UpstreamBadFrame(f"The provider's stream has more than {MAX_CHOICES} choices")
        if choice_rules.has_content(choice):
            self._answered.add(index)

    def _judged(self, frame: sse.Frame) -> bytes:
        """What of one frame reaches the client: see the rules in the module's docstring."""
        payload, event = frame.payload, frame.event
        if payload.strip(_DONE_PADDING) == sse.DONE_PAYLOAD:
            return self._done_frame(frame.raw if payload == sse.DONE_PAYLOAD else sse.DONE)
        if _is_keep_alive(payload, event):
            return b""
        try:
            parsed = codec.loads_exact(payload)
        except ValueError:
            if event == b"error":
                raise error_parser.error_in_band({"error": payload.decode("utf-8", "replace")}) from None
            return self._dropped(payload, may_be_answer=payload.lstrip()[:1] in {b"{", b"["})
        choices = parsed.get("choices") if isinstance(parsed, dict) else None
        if event == b"error" or _is_error(parsed, choices):
            raise error_parser.error_in_band(parsed)
        if isinstance(choices, list):
            self._note(choices, parsed)
            if not choices and self._include_usage is None and isinstance(parsed.get("usage"), dict):
                return b""
            return self._changed(frame, parsed)
        if isinstance(parsed, dict) and isinstance(parsed.get("usage"), dict):
            self._count(parsed)
            return self._usage_chunk(parsed) if self._include_usage else b""
        return self._dropped(payload, may_be_answer=isinstance(parsed, list) and b'"choices"' in payload)

    def _dropped(self, payload: bytes, *, may_be_answer: bool) -> bytes:
        if may_be_answer and not (self.is_complete or self._may_skip(payload)):
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not a JSON object")
        self.dropped_frames += 1
        return b""

    def _may_skip(self, payload: bytes) -> bool:
        """Whether a malformed frame may be skipped: not where arguments of a call would be damaged."""
        return self._skips_malformed and not (self._tools.has_calls or _CALLS.search(payload))

    def _done_frame(self, frame: bytes) -> bytes:
        if not self._answered:
            raise answers.empty_answer()
        self.is_done = True
        rest = self._reasoning.rest() if self._reasoning is not None else ()
        return b"".join(self._delta_frame(*held) for held in rest) + frame

    def _delta_frame(self, index: int, delta: Json) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return sse.encode(codec.dumps({**self._head, "choices": [choice]}))

    def _usage_chunk(self, parsed: Json) -> bytes:
        defaults = {"id": "", "object": "chat.completion.chunk", "created": chunks.now(), "model": ""}
        return sse.encode(codec.dumps({**defaults, **self._head, **parsed, "choices": []}))

    def _changed(self, frame: sse.Frame, chunk: Json) -> bytes:
        """The frame of a chunk with its tool calls completed and its reasoning renamed."""
        if self._reasoning is None and b'"tool_calls"' not in frame.payload:
            return frame.raw
        # Python's own parser keeps integers of any size.
        chunk = json.loads(frame.payload)
        is_changed = False
        for index, choice, delta in _deltas(chunk["choices"]):
            is_changed |= self._tools.complete(index, delta.get("tool_calls"))
            if self._reasoning is not None:
                is_last = choice_rules.finish_reason_of(choice.get("finish_reason")) is not None
                is_changed |= self._reasoning.rename(index, delta, is_last=is_last)
        return sse.encode(codec.dumps(chunk)) if is_changed else frame.raw


def _is_keep_alive(payload: bytes, event: bytes) -> bool:
    if event.lower() in _KEEP_ALIVES:
        return b'"choices"' not in payload
    return payload.startswith(b":") or payload.strip(_DONE_PADDING).lower() in _KEEP_ALIVES


def _is_error(parsed: Any, choices: object) -> bool:
    """A chunk with choices may have fields such as `code` or `detail`: only `error` counts there."""
    has_choices = isinstance(choices, list) and bool(choices)
    return bool(parsed.get("error")) if has_choices else error_parser.is_error(parsed)


def _deltas(choices: list[Any]) -> Iterator[tuple[int, Json, Json]]:
    """Each choice with a delta: its index, itself, the delta."""
    for choice in choices:
        if isinstance(choice, dict) and isinstance(delta := choice.get("delta"), dict):
            yield _index_of(choice), choice, delta


def _index_of(choice: Json) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def has_chat_progress(frames: bytes) -> bool:
    """Whether any of the whole frames of a chat stream brings something that a reader has waited for."""
    return any(_has_progress(frame.payload) for frame in sse.FrameSplitter().feed(frames))


def _has_progress(payload: bytes) -> bool:
    if payload == sse.DONE_PAYLOAD:
        return True
    choices = codec.loads_exact(payload).get("choices") or ()
    return any(isinstance(choice, dict) and choice_rules.has_content(choice) for choice in choices)


class SSEFilter(StreamFilter):
    """Bytes of an event stream of any dialect -> its whole frames, byte for byte.

    Half a frame waits, so that an error frame can follow what has been sent. The stream is complete
    with its body, where that has a length or comes in chunks; else with an event that says so
    (`[DONE]`, a type ending in `.completed` or `.done`). An event that reports an error ends it: the
    first event is parsed to see whether it does, and of the others those that hold the word. So are those
    with usage, which streams of images and transcriptions report in their last event.
    """

    __slots__ = ("_counted", "_has_events", "_has_length", "_last", "_tail", "failure")

    def __init__(self, *, has_length: bool) -> None:
        self._has_length = has_length
        self._has_events = False
        self._tail = bytearray()
        self._last = b""
        self._counted: Json | None = None
        self.failure: errors.ProxyError | None = None

    @property
    @override
    def has_content(self) -> bool:
        return self._has_events  # any event counts

    @property
    @override
    def usage(self) -> Json | None:
        return self._counted

    @override
    def feed(self, data: bytes) -> bytes:
        """The frames that `data` completes."""
        if self.failure is not None:
            return b""
        if not self._tail and _end_of_frames(data, 0) == len(data):
            return self._checked(data)
        tail = self._tail
        searched = max(0, len(tail) - 3)
        tail += data
        end = _end_of_frames(tail, searched)
        frames = bytes(tail[:end])
        del tail[:end]
        if len(tail) > sse.MAX_FRAME_BYTES:
            self.failure = sse.frame_too_large()
        return self._checked(frames) if frames else b""

    @override
    def has_progress(self, frames: bytes) -> bool:
        return b"data:" in frames

    @override
    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        last = bytes(self._tail)
        self._tail.clear()
        if last.strip():
            last = self._checked(last + b"\n\n")
        if self.failure is not None:
            raise self.failure
        if not self._has_length and not _FINAL_EVENT.search(self._last):
            raise cut(has_begun=True)
        return last if last.strip() else b""

    def _checked(self, frames: bytes) -> bytes:
        """`frames`, or those before the first that reports an error."""
        if not self._has_events or b'"error"' in frames:
            good: list[bytes] = []
            for frame in sse.FrameSplitter().feed(frames):
                self._has_events = True
                parsed = codec.loads_tolerant(frame.payload)
                if frame.event == b"error" or error_parser.is_error(parsed):
                    text = frame.payload.decode("utf-8", "replace")
                    self.failure = error_parser.error_in_band({"error": text} if parsed is None else parsed)
                    return b"".join(good)
                good.append(frame.raw)
        if b'"usage"' in frames:
            for frame in sse.FrameSplitter().feed(frames):
                parsed = codec.loads_tolerant(frame.payload)
                if isinstance(parsed, dict):
                    self._counted = recorded_passthrough(parsed) or self._counted
        if not self._has_length and b"data:" in frames:
            self._last = frames
        return frames


_FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_FINAL_EVENT = re.compile(rb'(?m)^data: ?\[DONE\]\r?$|"type"\s*:\s*"[\w.]+\.(?:completed|done)"')


def _end_of_frames(data: bytes | bytearray, start: int) -> int:
    """Where the last whole frame of `data` ends, looked for from `start` on; 0 if there is none."""
    ends = (at + len(mark) for mark in _FRAME_ENDS if (at := data.rfind(mark, start)) >= 0)
    return max(ends, default=0)
