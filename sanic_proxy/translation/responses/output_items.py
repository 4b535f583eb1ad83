"""The items of a response while they are written: each collects the events that write it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import CallBegin, CallKind, ReasoningEnd
from sanic_proxy.translation.responses.items import encrypted_content


class OutputItem:
    """One item while it is written. `is_ended`: nothing more can be added to it."""

    __slots__ = ("_events", "id", "index", "is_ended")

    def __init__(self, id_: str, index: int) -> None:
        self.id = id_
        self.index = index
        self.is_ended = False
        self._events: list[Json] = []

    @property
    def may_be_cut(self) -> bool:
        """Whether the end of the answer can have cut the item."""
        return True

    def taken(self) -> list[Json]:
        """The events that have not been sent."""
        events, self._events = self._events, []
        return events

    def end_part(self) -> None:
        """The part that is being written is complete."""

    def finish(self, status: str) -> Json:
        """The whole item, after the events that end it have been added."""
        self.end_part()
        item = self._item(status)
        self._emit_item("done", item)
        return item

    def _item(self, status: str) -> Json:
        """The item as it stands."""
        raise NotImplementedError

    def _emit(self, type_: str, **fields: Any) -> None:
        self._events.append({"type": type_, "item_id": self.id, "output_index": self.index, **fields})

    def _emit_item(self, name: str, item: Json) -> None:
        self._events.append(
            {"type": f"response.output_item.{name}", "output_index": self.index, "item": item}
        )


class MessageItem(OutputItem):
    """A message: texts and refusals."""

    __slots__ = ("_parts", "_pieces")

    def __init__(self, id_: str, index: int) -> None:
        super().__init__(id_, index)
        self._parts: list[Json] = []
        self._pieces: list[str] = []  # of the last part, while it is written
        self._emit_item("added", self._item("in_progress"))

    def add(self, kind: str, text: str) -> None:
        if not self._pieces or self._parts[-1]["type"] != kind:
            self.end_part()
            self._parts.append(_part(kind, ""))
            self._emit_part("response.content_part.added", part=_part(kind, ""))
        self._pieces.append(text)
        if kind == "refusal":
            self._emit_part("response.refusal.delta", delta=text)
        else:
            self._events.append(self.text_event(text))

    def text_event(self, text: str) -> Json:
        """The event of a piece of text."""
        return {
            "type": "response.output_text.delta",
            "item_id": self.id,
            "output_index": self.index,
            "content_index": len(self._parts) - 1,
            "logprobs": [],
            "delta": text,
        }

    @property
    def has_open_text(self) -> bool:
        """Whether the events of a text have been taken, and more of it can follow."""
        return bool(self._pieces) and not self._events and self._parts[-1]["type"] == "output_text"

    def continue_text(self, text: str) -> None:
        """Add to an open text, without an event for it."""
        self._pieces.append(text)

    def annotate(self, annotations: list[Any]) -> None:
        if self._pieces and self._parts[-1]["type"] == "output_text":
            self._parts[-1]["annotations"] += annotations

    @override
    def end_part(self) -> None:
        if not self._pieces:
            return
        part, text = self._parts[-1], "".join(self._pieces)
        self._pieces.clear()
        if part["type"] == "refusal":
            part["refusal"] = text
            self._emit_part("response.refusal.done", refusal=text)
        else:
            part["text"] = text
            self._emit_part("response.output_text.done", text=text, logprobs=[])
        self._emit_part("response.content_part.done", part=part)

    @override
    def _item(self, status: str) -> Json:
        content = list(self._parts)
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _emit_part(self, type_: str, **fields: Any) -> None:
        self._emit(type_, content_index=len(self._parts) - 1, **fields)


def _part(kind: str, text: str) -> Json:
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ReasoningItem(OutputItem):
    """Reasoning: summaries, and texts of the reasoning itself."""

    __slots__ = ("_encrypted", "_is_summary", "_pieces", "_summaries", "_texts")

    def __init__(self, id_: str, index: int) -> None:
        super().__init__(id_, index)
        self._summaries: list[str] = []
        self._texts: list[str] = []
        self._pieces: list[str] = []
        self._is_summary = False
        self._encrypted: str | None = None
        self._emit_item("added", self._item("in_progress"))

    @property
    @override
    def may_be_cut(self) -> bool:
        return not self.is_ended

    def add(self, text: str, *, is_summary: bool) -> None:
        if not self._pieces or self._is_summary != is_summary:
            self.end_part()
            self._is_summary = is_summary
            if is_summary:
                self._emit_part("response.reasoning_summary_part.added", part=_summary(""))
            else:
                self._emit_part("response.content_part.added", part=_thought(""))
        self._pieces.append(text)
        name = "reasoning_summary_text" if is_summary else "reasoning_text"
        self._emit_part(f"response.{name}.delta", delta=text)

    def sign(self, end: ReasoningEnd) -> None:
        """The reasoning is complete."""
        self._encrypted = encrypted_content(end)
        self.is_ended = True

    @override
    def end_part(self) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        self._pieces.clear()
        if self._is_summary:
            self._emit_part("response.reasoning_summary_text.done", text=text)
            self._emit_part("response.reasoning_summary_part.done", part=_summary(text))
            self._summaries.append(text)
        else:
            self._emit_part("response.reasoning_text.done", text=text)
            self._emit_part("response.content_part.done", part=_thought(text))
            self._texts.append(text)

    @override
    def _item(self, status: str) -> Json:
        item: Json = {"id": self.id, "type": "reasoning", "summary": list(map(_summary, self._summaries))}
        if self._texts:
            item["content"] = list(map(_thought, self._texts))
        return {**item, "encrypted_content": self._encrypted, "status": status}

    def _emit_part(self, type_: str, **fields: Any) -> None:
        if self._is_summary:
            self._emit(type_, summary_index=len(self._summaries), **fields)
        else:
            self._emit(type_, content_index=len(self._texts), **fields)


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}


def _thought(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}


class CallItem(OutputItem):
    """A call. Calls of other tools than functions have classes of their own."""

    __slots__ = ("_call_id", "_name", "_namespace", "_pieces")

    def __init__(self, id_: str, index: int) -> None:
        super().__init__(id_, index)
        self._call_id = self._name = ""
        self._namespace: str | None = None
        self._pieces: list[str] = []

    def begin(self, event: CallBegin) -> None:
        # An answer needs an id, and some chats have none.
        self._call_id = event.id or f"call_{self.id}"
        self._name = event.name
        self._namespace = event.namespace
        self._emit_item("added", self._item("in_progress"))

    def add(self, arguments: str) -> None:
        if self.is_ended:
            return
        self._pieces.append(arguments)
        self._emit("response.function_call_arguments.delta", delta=arguments)

    @override
    def finish(self, status: str) -> Json:
        self._emit_done(self._arguments)
        return super().finish(status)

    @property
    def _arguments(self) -> str:
        return "".join(self._pieces)

    def _emit_done(self, arguments: str) -> None:
        self._emit("response.function_call_arguments.done", arguments=arguments, name=self._name)

    @override
    def _item(self, status: str) -> Json:
        return self._named({"type": "function_call", "arguments": self._arguments}, status)

    def _named(self, fields: Json, status: str) -> Json:
        item = {"id": self.id, "call_id": self._call_id, "name": self._name, **fields, "status": status}
        return item if self._namespace is None else {**item, "namespace": self._namespace}


class CustomCallItem(CallItem):
    """A call of a custom tool: its input is a text."""

    __slots__ = ()

    @override
    def add(self, arguments: str) -> None:
        if self.is_ended:
            return
        self._pieces.append(arguments)
        self._emit("response.custom_tool_call_input.delta", delta=arguments)

    @override
    def _emit_done(self, arguments: str) -> None:
        self._emit("response.custom_tool_call_input.done", input=arguments)

    @override
    def _item(self, status: str) -> Json:
        return self._named({"type": "custom_tool_call", "input": self._arguments}, status)


class ToolSearchItem(CallItem):
    """A search for tools, which the client executes. Its arguments are JSON, and come whole."""

    __slots__ = ()

    @override
    def add(self, arguments: str) -> None:
        if not self.is_ended:
            self._pieces.append(arguments)

    @override
    def _emit_done(self, arguments: str) -> None:
        pass

    @override
    def _item(self, status: str) -> Json:
        arguments, value = self._arguments, {}
        if arguments:
            value = codec.loads_tolerant(arguments.encode("utf-8", "surrogatepass"))
        return {
            "id": self.id,
            "type": "tool_search_call",
            "call_id": self._call_id,
            "execution": "client",
            "arguments": arguments if value is None else value,
            "status": status,
        }


CALLS: Mapping[CallKind, type[CallItem]] = {
    "function": CallItem,
    "custom": CustomCallItem,
    "tool_search": ToolSearchItem,
}
CALL_PREFIXES: Mapping[CallKind, str] = {"function": "fc", "custom": "ctc", "tool_search": "tsc"}
