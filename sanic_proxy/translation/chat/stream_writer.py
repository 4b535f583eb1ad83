"""Events -> the chunks of a chat stream, as OpenAI sends them. Pure.

The role; pieces of content, refusal, reasoning and calls; the finish reason; the usage, in a chunk without
choices, where the client asked for it (`usage` is null in all others then); `[DONE]`. The finish reason waits
for the end, as it depends on whether there are calls.
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks, codec
from sanic_proxy.streams import replay, sse
from sanic_proxy.translation.chat import answers, finish, reasoning
from sanic_proxy.translation.chat.paragraphs import continued
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    CallKind,
    Conversation,
    Event,
    Finish,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import StreamWriter
from sanic_proxy.translation.tool_names import function_name

_EMPTY_CONTENT = b'"content":""'


class _Call:
    __slots__ = ("index", "is_empty", "kind")

    def __init__(self, index: int, kind: CallKind) -> None:
        self.index = index
        self.kind = kind
        self.is_empty = True


class ChatStreamWriter(StreamWriter):
    """See the module."""

    def __init__(self, asked: Conversation) -> None:
        self._asked = asked
        self._head = self._head_of(Begin("", "", 0))
        self._has_begun = False
        self._calls: dict[int, _Call] = {}
        self._finish = Finish("stop")
        self._usage: Usage | None = None
        self._has_refusal = False
        # The reasoning that is open, for its detail, and how many details there are.
        self._thoughts: list[str] = []
        self._is_summary = False
        self._detail_count = 0
        # The text fields that have begun, and the ones among them that another part has interrupted.
        self._begun: set[str] = set()
        self._interrupted: set[str] = set()
        # A chunk before and behind its content, while that is what was written last: nearly all are these.
        self._content_ends: tuple[bytes, bytes] | None = None

    @override
    def write(self, event: Event) -> bytes:
        if self._content_ends is not None and type(event) is TextDelta and event.text:
            head, tail = self._content_ends
            return head + codec.dumps(event.text) + tail
        self._content_ends = None
        if isinstance(event, Begin):
            return self._begin(event)
        frames = self._opening() + self._written(event)
        if type(event) is TextDelta and event.text:
            head, _, tail = self._delta({"content": ""}).partition(_EMPTY_CONTENT)
            self._content_ends = head + _EMPTY_CONTENT[:-2], tail
        return frames

    @override
    def end(self) -> bytes:
        frames = [self._opening()]
        frames += [self._end_call(key) for key in self._calls]
        end = finish.written(self._finish, has_calls=bool(self._calls), has_refusal=self._has_refusal)
        last = chunks.chunk(self._head, {})
        last["choices"][0].update(end)
        frames.append(replay.frame(last))
        if self._head.include_usage and self._usage is not None:
            frames.append(replay.frame(self._head.around([], self._usage.as_chat())))
        return b"".join([*frames, sse.DONE])

    def _written(self, event: Event) -> bytes:
        match event:
            case TextDelta(text):
                return self._text("content", text)
            case RefusalDelta(text):
                self._has_refusal = True
                return self._text("refusal", text)
            case ReasoningDelta(text, is_summary):
                self._thoughts.append(text)
                self._is_summary = is_summary
                return self._text("reasoning_content", text)
            case ReasoningEnd():
                return self._end_reasoning(event)
            case CallBegin():
                return self._begin_call(event)
            case CallDelta(key, arguments):
                return self._call_delta(key, arguments)
            case PartEnd(int() as key):
                return self._end_call(key)
            case _:
                self._note(event)
                return b""

    def _note(self, event: Event) -> None:
        match event:
            case Finish():
                self._finish = event
            case UsageReport(usage):
                self._usage = usage
            case _:
                pass

    def _begin(self, begin: Begin) -> bytes:
        if self._has_begun:
            return b""
        self._usage = begin.usage
        self._head = self._head_of(begin)
        return self._opening()

    def _opening(self) -> bytes:
        """The first chunk, if it has not been written."""
        if self._has_begun:
            return b""
        self._has_begun = True
        return replay.initial_frame(self._head)

    def _head_of(self, begin: Begin) -> chunks.ChunkHead:
        return chunks.ChunkHead(
            id=answers.completion_id(begin.id),
            model=begin.model or self._asked.model,
            created=begin.created or chunks.now(),
            include_usage=self._asked.include_usage,
            # Clients end with `content: null` beside calls then, as whole answers have it.
            initial_content=None if self._asked.tools else "",
        )

    def _delta(self, delta: Json) -> bytes:
        return replay.frame(chunks.chunk(self._head, delta))

    def _text(self, name: str, text: str) -> bytes:
        if not text:
            return b""
        if name in self._interrupted:
            text = continued(text)
        self._interrupted.discard(name)
        self._interrupted |= self._begun - {name}
        self._begun.add(name)
        return self._delta({name: text})

    def _end_reasoning(self, end: ReasoningEnd) -> bytes:
        text = "".join(self._thoughts)
        self._thoughts.clear()
        self._interrupted |= self._begun
        part = Reasoning(text, end.signature, end.origin, end.is_redacted, self._is_summary)
        detail = reasoning.client_detail(part, self._detail_count)
        if detail is None:
            return b""
        self._detail_count += 1
        return self._delta({"reasoning_details": [detail]})

    # Calls.

    def _begin_call(self, begin: CallBegin) -> bytes:
        self._interrupted |= self._begun
        call = self._calls[begin.key] = _Call(len(self._calls), begin.kind)
        name = function_name(begin.name, begin.namespace) if begin.namespace else begin.name
        head = {"index": call.index, "id": begin.id}
        if begin.kind == "custom":
            return self._delta(
                {"tool_calls": [{**head, "type": "custom", "custom": {"name": name, "input": ""}}]}
            )
        return self._delta(
            {"tool_calls": [{**head, "type": "function", "function": {"name": name, "arguments": ""}}]}
        )

    def _call_delta(self, key: int, arguments: str) -> bytes:
        call = self._calls.get(key)
        if call is None or not arguments:
            return b""
        call.is_empty = False
        body = {"custom": {"input": arguments}} if call.kind == "custom" else _function(arguments)
        return self._delta({"tool_calls": [{"index": call.index, **body}]})

    def _end_call(self, key: int) -> bytes:
        """`{}` in place of arguments that are empty: clients parse them."""
        call = self._calls.get(key)
        return (
            b"" if call is None or call.kind == "custom" or not call.is_empty else self._call_delta(key, "{}")
        )


def _function(arguments: str) -> Json:
    return {"function": {"arguments": arguments}}
