"""The turns of a conversation as the messages of a chat. Pure.

Chats demand more order than other APIs do. One assistant message holds all calls that the model made at once,
and directly behind it follows one message of the role `tool` for each of them, before anything else. So
neighbouring assistant turns are merged, results move up to their calls, a call without a result gets an empty
one, and a result without its call (its part of the history was cut off) becomes a message of the user.

Results of tools are text there. Their images and documents follow in a message of the user behind all results
of the turn, and a result that is an error begins with `Error: `.

Templates of open models accept a system message in the first place only, so `hoists_system` joins all of them
there. All are written with the role `system`, as other servers than OpenAI's do not know `developer`; OpenAI
treats both alike.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.translation.chat import reasoning
from sanic_proxy.translation.chat.paragraphs import Paragraphs, joined
from sanic_proxy.translation.chat.tools import call_id, written_call
from sanic_proxy.translation.conversation import (
    Audio,
    Document,
    Image,
    Other,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.format import TargetTraits

# Parts that may have a cache mark. A union in a call of isinstance would be made anew for each part.
_MARKED = (Text, Image, Document, ToolCall, ToolResult)
_DETAILS = frozenset({"auto", "low", "high"})
_ERROR_PREFIX = "Error: "
_ONLY_MEDIA = "The content of this result is in the next message of the user."


def messages(turns: Sequence[Turn], target: TargetTraits, dropped: set[str]) -> list[Json]:
    """The messages. The names of what they cannot express are added to `dropped`. Raises InvalidRequest."""
    writer = _HistoryWriter(turns, target, dropped)
    written = writer.written()
    if not written:
        raise InvalidRequest("The conversation has no messages that this model can be sent", param="messages")
    return written


class _HistoryWriter:
    def __init__(self, turns: Sequence[Turn], target: TargetTraits, dropped: set[str]) -> None:
        self._turns = turns
        self._target = target
        self._drop = dropped.add
        self._messages: list[Json] = []
        self._system: list[str] = []
        self._assistant: list[Turn] = []  # neighbouring turns, not written yet
        self._results: defaultdict[str, deque[ToolResult]] = defaultdict(deque)
        self._written: set[int] = set()  # the results, by their id()

    def written(self) -> list[Json]:
        for part in (part for turn in self._turns for part in turn.parts):
            self._note_marks(part)
            if isinstance(part, ToolResult):
                self._results[part.call_id].append(part)
                for inner in part.content:
                    self._note_marks(inner)
        for turn in self._turns:
            self._write(turn)
        self._end_assistant()
        self._complete_reasoning()
        if self._system:
            self._messages.insert(0, {"role": "system", "content": joined(self._system)})
        return self._messages

    def _complete_reasoning(self) -> None:
        """Where one message returns its reasoning, every message with calls must have that field.

        DeepSeek refuses the request otherwise, even where the model did not think.
        """
        names = {name for name in reasoning.TEXT_FIELDS for message in self._messages if name in message}
        for message in self._messages:
            if "tool_calls" in message:
                for name in names:
                    message.setdefault(name, "")

    def _write(self, turn: Turn) -> None:
        if turn.phase is not None:
            self._drop("messages.phase")
        match turn.role:
            case "system" | "developer":
                self._write_system(turn)
            case "assistant":
                self._assistant.append(turn)
            case "tool":
                self._end_assistant()
                self._write_orphans(turn)
            case _:
                self._end_assistant()
                self._messages.append(self._message(turn, self._user_content(turn.parts)))

    def _message(self, turn: Turn, content: object) -> Json:
        name = {} if turn.name is None else {"name": turn.name}
        return {"role": turn.role, **name, "content": content}

    def _write_system(self, turn: Turn) -> None:
        text = joined(self._texts(turn.parts))
        if not self._target.hoists_system:
            self._end_assistant()
            self._messages.append({**self._message(turn, text), "role": "system"})
            return
        if self._messages or self._assistant:
            self._drop("messages.system.position")
        if text:
            self._system.append(text)

    def _texts(self, parts: Sequence[Part]) -> Iterator[str]:
        for part in parts:
            if isinstance(part, Text):
                yield part.text
            else:
                self._drop_part(part)

    # The user.

    def _user_content(self, parts: Sequence[Part]) -> str | list[Json]:
        """A string where there is nothing but text, as some servers know no lists."""
        content = [written for part in parts for written in self._user_part(part)]
        if all(part["type"] == "text" for part in content):
            return joined(part["text"] for part in content)
        return content

    def _user_part(self, part: Part) -> Iterator[Json]:
        match part:
            case Text(text) | Refusal(text):
                if text:
                    yield _text(text)
            case Image() if part.url:
                yield self._image(part)
            case Document():
                yield self._document(part)
            case Audio(data, format_):
                yield {"type": "input_audio", "input_audio": {"data": data, "format": format_}}
            case _:
                self._drop_part(part)

    def _image(self, image: Image) -> Json:
        written: Json = {"url": image.url}
        if image.detail in _DETAILS:
            written["detail"] = image.detail
        elif image.detail is not None:
            self._drop("messages.image.detail")
        return {"type": "image_url", "image_url": written}

    def _document(self, document: Document) -> Json:
        if document.citations is not None:
            self._drop("messages.citations")
        heading = [line for line in (document.name, document.context) if line]
        if document.text:
            return _text(joined([*heading, document.text]))
        if document.context:
            self._drop("messages.document.context")
        name = {"filename": document.name} if document.name else {}
        if document.file_id:
            return {"type": "file", "file": {"file_id": document.file_id, **name}}
        if document.url.startswith("data:"):
            return {
                "type": "file",
                "file": {"file_data": document.url, "filename": document.name or "document"},
            }
        # Chats take no URLs of documents: at least the model gets to know where it is.
        self._drop("messages.document.url")
        return _text(joined([*heading, document.url]))

    # The model.

    def _end_assistant(self) -> None:
        """Write the assistant turns that have been collected, and the results of their calls."""
        turns, self._assistant = self._assistant, []
        if not turns:
            return
        content = Paragraphs()
        calls: list[ToolCall] = []
        thoughts: list[Reasoning] = []
        for turn in turns:
            content.end()
            for part in turn.parts:
                match part:
                    case Text(text):
                        content.add(text)
                    case Refusal(text):
                        self._drop("messages.refusal")
                        content.add(text)
                    case ToolCall():
                        calls.append(part)
                        content.end()
                    case Reasoning() if part.origin == self._target.provider:
                        thoughts.append(part)
                        content.end()
                    case _:
                        self._drop_part(part)
        if not content.text and not calls:
            return
        name = next((turn.name for turn in turns if turn.name is not None), None)
        message = self._message(Turn("assistant", [], name), content.text or None)
        message.update(reasoning.returned(thoughts))
        if calls:
            message["tool_calls"] = [written_call(call) for call in calls]
        self._messages.append(message)
        self._write_results(calls)

    def _write_results(self, calls: Sequence[ToolCall]) -> None:
        results = [(call, self._result_of(call)) for call in calls]
        media: list[Json] = []
        for call, result in results:
            text, others = self._result_content(result)
            self._messages.append({"role": "tool", "tool_call_id": call_id(call.id), "content": text})
            if others:
                media += [_text(f"Content of the result of the tool call `{call_id(call.id)}`:"), *others]
        if media:
            self._messages.append({"role": "user", "content": media})

    def _result_of(self, call: ToolCall) -> ToolResult | None:
        """The next result of the call. Some servers give the same id to calls of different turns."""
        results = self._results[call.id]
        while results:
            result = results.popleft()
            if id(result) not in self._written:
                self._written.add(id(result))
                return result
        return None

    def _result_content(self, result: ToolResult | None) -> tuple[str, list[Json]]:
        """The text of a result, and its images and documents."""
        if result is None:
            return "", []
        written = [made for part in result.content for made in self._user_part(part)]
        texts = [made["text"] for made in written if made["type"] == "text"]
        others = [made for made in written if made["type"] != "text"]
        text = joined(texts) if texts or not others else _ONLY_MEDIA
        return _ERROR_PREFIX + text if result.is_error else text, others

    def _write_orphans(self, turn: Turn) -> None:
        """Write the results in `turn` that belong to no call before it."""
        for part in turn.parts:
            if not isinstance(part, ToolResult):
                self._drop_part(part)
            elif id(part) not in self._written:
                self._written.add(id(part))
                self._drop("messages.tool_result.call_id")
                text, others = self._result_content(part)
                heading = f"Result of the tool call `{part.call_id}`:"
                self._messages.append(
                    {"role": "user", "content": [_text(f"{heading}\n{text}"), *others]}
                    if others
                    else {"role": "user", "content": f"{heading}\n{text}"}
                )

    # Dropped parts.

    def _drop_part(self, part: Part) -> None:
        match part:
            case Other(kind):
                self._drop(f"messages.{kind}")
            case Image():
                self._drop("messages.image.file_id" if part.file_id else "messages.image")
            case _:
                self._drop(f"messages.{_PART_NAMES[type(part)]}")

    def _note_marks(self, part: Part) -> None:
        if isinstance(part, _MARKED) and part.cache_control is not None:
            self._drop("messages.cache_control")
        if isinstance(part, Text):
            if part.citations:
                self._drop("messages.citations")
            if part.annotations:
                self._drop("messages.annotations")


_PART_NAMES: dict[type[Part], str] = {
    Text: "text",
    Refusal: "refusal",
    Image: "image",
    Document: "document",
    Audio: "audio",
    Reasoning: "reasoning",
    ToolCall: "tool_call",
    ToolResult: "tool_result",
    Other: "other",
}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}
