"""The events of a stream -> the whole answer that they amount to. Pure."""

from __future__ import annotations

from sanic_proxy.translation.conversation import (
    Answer,
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    FinishReason,
    Part,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    Usage,
    UsageReport,
)


class AnswerCollector:
    """Collects events. Texts are joined when they are complete, so the time is linear in their length."""

    __slots__ = ("_arguments", "_begin", "_calls", "_finish", "_is_open", "_parts", "_pieces", "_usage")

    def __init__(self) -> None:
        self._begin = Begin("", "", 0)
        self._parts: list[Part] = []
        self._pieces: list[str] = []  # of the last part, while it is open
        self._is_open = False
        self._calls: dict[int, ToolCall] = {}
        self._arguments: dict[int, list[str]] = {}
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def add(self, event: Event) -> None:
        """Add the next event."""
        match event:
            case TextDelta(text):
                self._extend(Text, text)
            case RefusalDelta(text):
                self._extend(Refusal, text)
            case CallBegin() | CallDelta():
                self._add_call(event)
            case ReasoningDelta() | ReasoningEnd():
                self._add_reasoning(event)
            case PartEnd(None):
                self._close()
            case Finish():
                self._finish = event
            case UsageReport(usage):
                self._usage = usage
            case Begin():
                self._begin = event
                self._usage = self._usage or event.usage
            case _:
                pass

    def _add_call(self, event: CallBegin | CallDelta) -> None:
        if isinstance(event, CallDelta):
            if event.key in self._arguments:
                self._arguments[event.key].append(event.arguments)
            return
        self._close()
        call = ToolCall(event.id, event.name, "", event.kind, event.namespace)
        self._parts.append(call)
        self._calls[event.key], self._arguments[event.key] = call, []

    def _add_reasoning(self, event: ReasoningDelta | ReasoningEnd) -> None:
        if isinstance(event, ReasoningEnd):
            self._end_reasoning(event)
            return
        part = self._extend(Reasoning, event.text)
        if isinstance(part, Reasoning):
            part.is_summary = event.is_summary

    def answer(self) -> Answer:
        """The answer, once the stream is complete."""
        self._close()
        for key, call in self._calls.items():
            call.arguments = "".join(self._arguments[key])
        begin, reason = self._begin, self._finish.reason
        finish: FinishReason = "tool_calls" if self._calls and reason == "stop" else reason
        return Answer(
            begin.id, begin.model, begin.created, self._parts, finish, self._finish.stop_sequence, self._usage
        )

    def _extend(self, kind: type[Text | Refusal | Reasoning], text: str) -> Part:
        if not (self._is_open and isinstance(self._parts[-1], kind)):
            self._close()
            self._parts.append(kind(""))
            self._is_open = True
        self._pieces.append(text)
        return self._parts[-1]

    def _end_reasoning(self, end: ReasoningEnd) -> None:
        part = self._parts[-1] if self._is_open else None
        self._close()
        if isinstance(part, Reasoning) and not end.is_redacted:
            part.signature, part.origin = end.signature, end.origin
        else:
            self._parts.append(Reasoning("", end.signature, end.origin, end.is_redacted))

    def _close(self) -> None:
        if self._is_open:
            part = self._parts[-1]
            if isinstance(part, Text | Refusal | Reasoning):
                part.text = "".join(self._pieces)
            self._pieces.clear()
            self._is_open = False
