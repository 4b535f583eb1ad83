"""A model's reasoning under one name, for providers that are configured so: `reasoning_content`. Pure.

Providers send it as `reasoning_content` (DeepSeek), `reasoning` (OpenRouter, Groq, vLLM), `reasoning_text`,
or at the beginning of the content between `<think>` and `</think>`. A tag may be cut anywhere by the
deltas: text that may be the beginning of one is held back until the next delta tells, or the answer ends.
Only a tag at the very beginning counts, so that an answer which mentions the tag stays as it is.
"""

from __future__ import annotations

from typing import Literal

from sanic_proxy.json_types import Json

_OTHER_NAMES = ("reasoning", "reasoning_text")
_OPEN = "<think>"
_CLOSE = "</think>"


class ReasoningRenamer:
    """The reasoning of one answer, whole or streamed; `part` is a delta or a message."""

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[int, _ThinkSplitter] = {}

    def rename(self, choice: int, part: Json, *, is_last: bool) -> bool:
        """Move the reasoning in `part`; with `is_last` nothing of this choice follows. False: no change."""
        before = dict(part)
        for name in _OTHER_NAMES:
            if isinstance(text := part.get(name), str) and text:
                del part[name]
                part["reasoning_content"] = part.get("reasoning_content") or text
        whole = part.get("content")
        content = whole if isinstance(whole, str) else ""
        splitter = self._choices.setdefault(choice, _ThinkSplitter())
        reasoning, text = splitter.feed(content) if content else ("", "")
        if is_last:
            last_reasoning, last_text = splitter.end()
            reasoning, text = reasoning + last_reasoning, text + last_text
        if reasoning:
            part["reasoning_content"] = (part.get("reasoning_content") or "") + reasoning
        if text or (content and "role" in part):
            part["content"] = text
        elif content:
            del part["content"]
        return part != before

    def rest(self) -> list[tuple[int, Json]]:
        """What is still held back, as a delta per choice, at the end of an answer without finish reason."""
        held = ((choice, *splitter.end()) for choice, splitter in self._choices.items())
        return [
            (choice, {"reasoning_content": reasoning} if reasoning else {"content": content})
            for choice, reasoning, content in held
            if reasoning or content
        ]


class _ThinkSplitter:
    """Text as it comes -> what is reasoning, and what is content."""

    __slots__ = ("_held", "_state", "_strips")

    def __init__(self) -> None:
        self._held = ""
        self._state: Literal["start", "reasoning", "content"] = "start"
        # Line breaks behind a tag belong to it.
        self._strips = False

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the content that are known by now."""
        if self._state == "start":
            text = self._held + text
            begun = text.lstrip()
            if len(begun) < len(_OPEN) and _OPEN.startswith(begun):
                self._held = text
                return "", ""
            self._held = ""
            if not begun.startswith(_OPEN):
                self._state = "content"
                return "", text
            self._state, self._strips = "reasoning", True
            text = begun[len(_OPEN) :]
        if self._state == "reasoning":
            return self._reasoning(text)
        return "", self._stripped(text)

    def end(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "reasoning" else ("", held)

    def _reasoning(self, text: str) -> tuple[str, str]:
        text = self._held + text
        reasoning, tag, content = text.partition(_CLOSE)
        if tag:
            self._held, self._state = "", "content"
            reasoning = self._stripped(reasoning)
            self._strips = True
            return reasoning, self._stripped(content)
        kept = next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)
        self._held = text[len(text) - kept :]
        return self._stripped(text[: len(text) - kept]), ""

    def _stripped(self, text: str) -> str:
        if self._strips and text:
            text = text.lstrip("\r\n")
            self._strips = not text
        return text
