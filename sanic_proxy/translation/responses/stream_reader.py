"""The frames of a provider's Responses stream -> events.

Servers leave out different events: some send an item's deltas, some only its `done` events, some only
`response.completed`. So it is noted which parts have been read, and a part that has not is read from a later
event that has it. Unknown events are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    PartEnd,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    UsageReport,
)
from sanic_proxy.translation.format import StreamReader
from sanic_proxy.translation.responses.answer_reader import (
    call_of,
    created_of,
    finish_of,
    raise_if_failed,
    text_of,
    usage_of,
)
from sanic_proxy.translation.responses.items import reasoning_end
from sanic_proxy.upstream import error_parser

# The item's index, its list of parts, and the part's index in that.
_PartKey = tuple[int, str, int]

_TEXT_DELTA = "response.output_text.delta"
# Events with a piece of a part, and those with the whole part: the list it is in, the name of its index and
# that of its text.
_DELTAS: Mapping[str, tuple[str, str]] = {
    _TEXT_DELTA: ("content", "content_index"),
    "response.refusal.delta": ("content", "content_index"),
    "response.reasoning_text.delta": ("content", "content_index"),
    "response.reasoning.delta": ("content", "content_index"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index"),
}
_WHOLE_PARTS: Mapping[str, tuple[str, str, str]] = {
    "response.output_text.done": ("content", "content_index", "text"),
    "response.refusal.done": ("content", "content_index", "refusal"),
    "response.reasoning_text.done": ("content", "content_index", "text"),
    "response.reasoning.done": ("content", "content_index", "text"),
    "response.reasoning_summary_text.done": ("summary", "summary_index", "text"),
}
_ARGUMENT_DELTAS = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_WHOLE_ARGUMENTS: Mapping[str, str] = {
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}


class ResponsesStreamReader(StreamReader):
    """See the module. `provider` is the one whose stream it is: its reasoning can be returned to it only."""

    __slots__ = (
        "_begun_calls",
        "_done_items",
        "_has_begun",
        "_has_ended_thought",
        "_is_over",
        "_provider",
        "_read",
        "_with_arguments",
    )

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._has_begun = False
        self._is_over = False
        # A part of reasoning has ended: `PartEnd` follows if there is another one, else `ReasoningEnd`.
        self._has_ended_thought = False
        self._read: dict[_PartKey, bool] = {}  # whether the part has ended
        self._begun_calls: set[int] = set()
        self._with_arguments: set[int] = set()
        self._done_items: set[int] = set()

    @override
    def read(self, frame: sse.Frame) -> Iterable[Event]:
        event = codec.loads_tolerant(frame.payload)
        if not isinstance(event, dict) or self._is_over:
            return ()
        if event.get("type") == _TEXT_DELTA and self._is_open_text(event):
            return (TextDelta(event["delta"]),)
        return self._read_event(frame, event)

    def _is_open_text(self, event: Json) -> bool:
        """Whether a piece of text continues one that has begun, as nearly all do."""
        key = _index(event, "output_index"), "content", _index(event, "content_index")
        return self._read.get(key) is False and not self._has_ended_thought and _is_text(event.get("delta"))

    def _read_event(self, frame: sse.Frame, event: Json) -> Iterator[Event]:
        kind = event.get("type") or frame.event.decode("utf-8", "replace")
        if kind == "error" or (not event.get("type") and error_parser.is_error(event)):
            raise error_parser.error_in_band(event if event.get("error") else {"error": event})
        response = event.get("response")
        if isinstance(response, dict):
            yield from self._read_response(str(kind), response)
        elif isinstance(kind, str) and kind.startswith("response."):
            yield from self._begin({})
            yield from self._read_piece(kind, event)

    def _read_response(self, kind: str, response: Json) -> Iterator[Event]:
        if kind in {"response.failed", "response.cancelled"}:
            raise_if_failed({**response, "status": "failed"})
        yield from self._begin(response)
        if kind not in {"response.completed", "response.incomplete"}:
            return
        self._is_over = True
        output = response.get("output")
        for index, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict):
                yield from self._read_item(index, item)
        if (usage := usage_of(response)) is not None:
            yield UsageReport(usage)
        status = {"status": kind.removeprefix("response."), **response}
        yield Finish(finish_of(status, has_calls=bool(self._begun_calls)))

    def _begin(self, response: Json) -> Iterator[Event]:
        if not self._has_begun:
            self._has_begun = True
            yield Begin(text_of(response, "id"), text_of(response, "model"), created_of(response))

    def _read_piece(self, kind: str, event: Json) -> Iterator[Event]:
        index = _index(event, "output_index")
        if kind in _DELTAS:
            where, name = _DELTAS[kind]
            yield from self._read_text(kind, (index, where, _index(event, name)), text_of(event, "delta"))
        elif kind in _WHOLE_PARTS:
            where, name, field = _WHOLE_PARTS[kind]
            key = index, where, _index(event, name)
            yield from self._read_whole(kind, key, text_of(event, field))
        elif kind in _ARGUMENT_DELTAS:
            yield from self._read_arguments(index, text_of(event, "delta"))
        elif kind in _WHOLE_ARGUMENTS and index in self._begun_calls:
            yield from self._read_whole_arguments(index, text_of(event, _WHOLE_ARGUMENTS[kind]))
        elif isinstance(item := event.get("item"), dict):
            if kind == "response.output_item.added":
                yield from self._begin_call(index, item)
            elif kind == "response.output_item.done":
                yield from self._read_item(index, item)

    def _read_text(self, kind: str, key: _PartKey, text: str) -> Iterator[Event]:
        if text and not self._read.get(key):
            if self._has_ended_thought:
                self._has_ended_thought = False
                yield PartEnd()
            self._read[key] = False
            yield _delta(kind, text)

    def _read_whole(self, kind: str, key: _PartKey, text: str) -> Iterator[Event]:
        """The end of a part; its text as well, if nothing of it has been read."""
        if key not in self._read:
            yield from self._read_text(kind, key, text)
        if not self._read.get(key, True):
            self._read[key] = True
            if kind.startswith("response.reasoning"):
                self._has_ended_thought = True
            else:
                yield PartEnd()

    def _read_arguments(self, index: int, arguments: str) -> Iterator[Event]:
        if arguments and index in self._begun_calls and index not in self._done_items:
            self._with_arguments.add(index)
            yield CallDelta(index, arguments)

    def _read_whole_arguments(self, index: int, arguments: str) -> Iterator[Event]:
        if index not in self._with_arguments:
            yield from self._read_arguments(index, arguments)

    def _begin_call(self, index: int, item: Json) -> Iterator[Event]:
        call = call_of(item)
        if call is not None and index not in self._begun_calls and call.name:
            self._begun_calls.add(index)
            yield CallBegin(index, call.id, call.name, call.kind, call.namespace)

    def _read_item(self, index: int, item: Json) -> Iterator[Event]:
        """A whole item: whatever of it has not been read, and its end."""
        if index in self._done_items:
            return
        if (call := call_of(item)) is not None:
            yield from self._begin_call(index, item)
            yield from self._read_whole_arguments(index, call.arguments)
            yield PartEnd(index)
        else:
            yield from self._read_parts(index, item)
        self._done_items.add(index)

    def _read_parts(self, index: int, item: Json) -> Iterator[Event]:
        is_reasoning = item.get("type") == "reasoning"
        for where in ("summary", "content") if is_reasoning else ("content",):
            parts = item.get(where)
            for at, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, dict):
                    kind, field = _kind_of(part, where, is_reasoning=is_reasoning)
                    yield from self._read_whole(kind, (index, where, at), text_of(part, field))
        if is_reasoning and item.get("status") != "incomplete":
            self._has_ended_thought = False
            yield reasoning_end(item, self._provider)


def _kind_of(part: Json, where: str, *, is_reasoning: bool) -> tuple[str, str]:
    """The event that a part of an item would have come with, and the name of its text."""
    if is_reasoning:
        return f"response.reasoning_{'summary_' if where == 'summary' else ''}text.delta", "text"
    is_refusal = part.get("type") == "refusal"
    return ("response.refusal.delta", "refusal") if is_refusal else ("response.output_text.delta", "text")


def _delta(kind: str, text: str) -> Event:
    if kind.startswith("response.refusal"):
        return RefusalDelta(text)
    if kind.startswith("response.reasoning"):
        return ReasoningDelta(text, kind.startswith("response.reasoning_summary"))
    return TextDelta(text)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _index(event: Json, name: str) -> int:
    index = event.get(name)
    return index if isinstance(index, int) else 0
