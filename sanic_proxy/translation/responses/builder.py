"""The events of an answer -> the events and the response object of Responses. Pure.

Items of a Responses stream do not interleave: each is added, written and done before the next one is added.
Chats may interleave pieces of several calls, and do not say when one is complete. So items wait in a queue.
Only the first is written; the events of the others are held until it is done. A message or reasoning ends
when anything else begins. A call ends with its `PartEnd`; without one it is open to the end of the answer, as
a further piece may still come.

The last item is done at the end of the answer only, when it is known whether it was cut: an item that is not
finished has to be the last, and makes the response incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sanic_proxy.json_types import Json
from sanic_proxy.openai.responses import response_object, write_usage
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    FinishReason,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.responses.items import flat_annotations, item_id, response_id
from sanic_proxy.translation.responses.output_items import (
    CALL_PREFIXES,
    CALLS,
    CallItem,
    MessageItem,
    OutputItem,
    ReasoningItem,
)

ItemT = TypeVar("ItemT", bound=OutputItem)

# Reasons for which an answer is incomplete. Responses has no name for a pause, nor for a full context window.
_INCOMPLETE: Mapping[FinishReason, str] = {
    "length": "max_output_tokens",
    "context_window": "max_output_tokens",
    "pause": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


class ResponseBuilder:
    """The response to one request while it is made. `sequence` is the number of the next event.

    `response` is None until the answer has begun.
    """

    __slots__ = (
        "_asked",
        "_calls",
        "_count",
        "_finish",
        "_has_refusal",
        "_now",
        "_queue",
        "response",
        "sequence",
    )

    def __init__(self, asked: Conversation, now: Callable[[], int]) -> None:
        self._asked = asked
        self._now = now
        self._queue: list[OutputItem] = []
        self._calls: dict[int, CallItem] = {}
        self._count = 0
        self._finish: FinishReason = "stop"
        self._has_refusal = False
        self.response: Json | None = None
        self.sequence = 0

    def apply(self, event: Event) -> list[Json]:
        """The events of Responses that can be sent now."""
        events = [] if self.response is not None else self._begin(event)
        match event:
            case TextDelta(text) if text:
                self._message().add("output_text", text)
            case RefusalDelta(text) if text:
                self._has_refusal = True
                self._message().add("refusal", text)
            case ReasoningDelta(text, is_summary) if text:
                self._reasoning().add(text, is_summary=is_summary)
            case ReasoningEnd():
                self._reasoning().sign(event)
            case CallBegin():
                self._begin_call(event)
            case CallDelta(key, arguments) if arguments and (call := self._calls.get(key)) is not None:
                call.add(arguments)
            case PartEnd(key):
                self._end_part(key)
            case Finish(reason):
                self._finish = reason
            case UsageReport(usage):
                self._note_usage(usage)
        return [*events, *self._drained()]

    @property
    def open_message(self) -> MessageItem | None:
        """The message that is written, if it ends in a text and nothing waits behind it."""
        item = self._queue[0] if len(self._queue) == 1 else None
        return item if isinstance(item, MessageItem) and item.has_open_text else None

    def annotate(self, annotations: list[Any]) -> None:
        """Add annotations to the text that was the last delta."""
        self._message().annotate(flat_annotations(annotations))

    def finish(self) -> list[Json]:
        """The rest of the events, of which the last has the whole response."""
        events = [] if self.response is not None else self._begin(None)
        reason = _INCOMPLETE.get(self._finish)
        if self._finish == "refusal" and self._has_refusal:
            reason = None  # the model's own words are a complete answer
        while self._queue:
            item = self._queue.pop(0)
            is_cut = reason is not None and not self._queue and item.may_be_cut
            events += self._done(item, "incomplete" if is_cut else "completed")
        response = self._current()
        if reason is None:
            response |= {"status": "completed", "completed_at": self._now()}
        else:
            response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return [*events, self._event({"type": f"response.{response['status']}", "response": response})]

    def interrupted(self) -> Json:
        """The response as far as it is known, in progress, with the items that are done."""
        if self.response is None:
            return response_object(response_id(""), self._asked.model, self._now(), self._asked.repeated)
        return self._current()

    def _current(self) -> Json:
        response = self.response or {}
        return {**response, "output": list(response["output"])}

    def _begin(self, event: Event | None) -> list[Json]:
        begin = event if isinstance(event, Begin) else Begin("", "", 0)
        self.response = response_object(
            response_id(begin.id),
            begin.model or self._asked.model,
            begin.created or self._now(),
            self._asked.repeated,
        )
        self.response["output"] = []
        events = [
            self._event({"type": f"response.{name}", "response": self._current()})
            for name in ("created", "in_progress")
        ]
        if begin.usage is not None:
            self._note_usage(begin.usage)
        return events

    def _note_usage(self, usage: Usage) -> None:
        if self.response is not None:
            self.response["usage"] = write_usage(usage)

    def _event(self, event: Json) -> Json:
        event["sequence_number"] = self.sequence
        self.sequence += 1
        return event

    def _message(self) -> MessageItem:
        last = self._queue[-1] if self._queue else None
        return last if isinstance(last, MessageItem) else self._added(MessageItem, "msg")

    def _reasoning(self) -> ReasoningItem:
        last = self._queue[-1] if self._queue else None
        is_open = isinstance(last, ReasoningItem) and not last.is_ended
        return last if is_open and isinstance(last, ReasoningItem) else self._added(ReasoningItem, "rs")

    def _begin_call(self, event: CallBegin) -> None:
        known = self._calls.get(event.key)
        if known is not None and not known.is_ended:
            return
        call = self._added(CALLS[event.kind], CALL_PREFIXES[event.kind])
        call.begin(event)
        self._calls[event.key] = call

    def _added(self, kind: type[ItemT], prefix: str) -> ItemT:
        if self._queue and not isinstance(self._queue[-1], CallItem):
            self._queue[-1].is_ended = True
        response = self.response or {}
        item = kind(item_id(prefix, response["id"], self._count), self._count)
        self._count += 1
        self._queue.append(item)
        return item

    def _end_part(self, key: int | None) -> None:
        if key is not None:
            if (call := self._calls.get(key)) is not None:
                call.is_ended = True
        elif self._queue:
            self._queue[-1].end_part()

    def _drained(self) -> list[Json]:
        """The events of the items that are not the last, as far as they have ended, and of the next one."""
        events: list[Json] = []
        while len(self._queue) > 1 and self._queue[0].is_ended:
            events += self._done(self._queue.pop(0), "completed")
        if self._queue:
            events += map(self._event, self._queue[0].taken())
        return events

    def _done(self, item: OutputItem, status: str) -> list[Json]:
        whole = item.finish(status)
        if self.response is not None:
            self.response["output"].append(whole)
        return [self._event(event) for event in item.taken()]
