"""The frames of a Gemini stream -> events. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.gemini_usage import usage_of
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    UsageReport,
)
from sanic_proxy.translation.format import StreamReader
from sanic_proxy.translation.gemini import answers, values
from sanic_proxy.translation.gemini.values import text_of


class GeminiReader(StreamReader):
    """See the module.

    Calls come whole, one part each. A thought ends at the part with its signature, or where anything else
    begins. The finish reason and the usage are reported at the end, as several frames may state them.
    """

    __slots__ = ("_calls", "_has_content", "_is_begun", "_is_thinking", "_provider", "_reason", "_usage")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls = 0
        self._has_content = False
        self._is_begun = False
        self._is_thinking = False
        self._reason = ""
        self._usage: Json = {}

    @override
    def read(self, frame: sse.Frame) -> Iterator[Event]:
        event = codec.loads_tolerant(frame.payload)
        if not isinstance(event, dict):
            return
        if isinstance(usage := event.get("usageMetadata"), dict):
            self._usage |= usage
        if not self._is_begun:
            self._is_begun = True
            yield Begin(text_of(event, "responseId"), text_of(event, "modelVersion"), chunks.now())
        if answers.is_blocked(event):
            self._reason = "SAFETY"
        candidates = event.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict) and not candidate.get("index"):
                yield from self._candidate(candidate)

    @override
    def end(self) -> Iterator[Event]:
        if not self._has_content and self._reason in values.FAILED_CALLS:
            raise values.failed_call(self._reason)
        yield from self._end_thought("")
        yield Finish(values.finish_of(self._reason, has_calls=self._calls > 0))
        if self._usage:
            yield UsageReport(usage_of(self._usage))

    def _candidate(self, candidate: JsonMapping) -> Iterator[Event]:
        self._reason = text_of(candidate, "finishReason") or self._reason
        for part in answers.parts_of(candidate):
            yield from self._part(part, text_of(part, "thoughtSignature"))

    def _part(self, part: Json, signature: str) -> Iterator[Event]:
        text = text_of(part, "text")
        if part.get("thought") is True:
            if text:
                self._is_thinking = self._has_content = True
                yield ReasoningDelta(text, is_summary=True)
            if signature:
                yield from self._end_thought(signature)
            return
        if signature or text or "functionCall" in part:
            yield from self._end_thought(signature)
        if text:
            self._has_content = True
            yield TextDelta(text)
        if isinstance(call := part.get("functionCall"), dict):
            self._has_content = True
            key = self._calls
            self._calls += 1
            yield CallBegin(key, answers.call_id(call), text_of(call, "name"))
            yield CallDelta(key, answers.call_arguments(call))
            yield PartEnd(key)

    def _end_thought(self, signature: str) -> Iterator[Event]:
        if self._is_thinking or signature:
            self._is_thinking = False
            yield ReasoningEnd(signature, self._provider)
