"""Lines of a chat stream, each with the time it was read -> when its tokens came, and whether it is whole.

No I/O and no clock: the caller reads the lines and the clock. Frames end at a blank line, as in the HTML
standard, chapter 9.2. A stream is whole only if the frame `[DONE]` was seen and nothing came after it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# What a delta may carry that a model has made; the role and the finish reason are not among it.
_MADE_BY_MODEL = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls")


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream. `fault` is the reason why it is not whole, or empty."""

    fault: str
    token_times_s: tuple[float, ...]
    size_bytes: int

    @property
    def is_whole(self) -> bool:
        return not self.fault

    @property
    def gaps_s(self) -> list[float]:
        """The seconds between each token and the next."""
        return [after - before for before, after in pairwise(self.token_times_s)]

    @property
    def tokens_per_s(self) -> float | None:
        """The rate after the first token. None below two tokens, or if all came in one read."""
        if len(self.token_times_s) < 2 or self.token_times_s[-1] <= self.token_times_s[0]:
            return None
        return (len(self.token_times_s) - 1) / (self.token_times_s[-1] - self.token_times_s[0])


class StreamMeter:
    """Gets every line of one stream, in order, and then makes one report.

    A token is a frame whose delta carries something of the model's. Providers may put several tokens of their
    own into one frame, and what they count cannot be seen from here.
    """

    __slots__ = ("_data", "_fault", "_has_chunk", "_is_done", "_size_bytes", "_token_times_s")

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._fault = ""
        self._has_chunk = False
        self._is_done = False
        self._size_bytes = 0
        self._token_times_s: list[float] = []

    def feed(self, line: bytes, now_s: float) -> None:
        """Take one line, with or without its line break, read at `now_s` on any steady clock."""
        self._size_bytes += len(line)
        text = line.rstrip(b"\r\n")
        if self._is_done:
            if text:
                self._blame("something came after [DONE]")
        elif text.startswith(b"data:"):
            self._data.append(text[5:].removeprefix(b" "))
        elif not text and self._data:
            self._judge(b"\n".join(self._data), now_s)
            self._data.clear()

    def report(self, broken_by: str = "") -> StreamReport:
        """The stream as it was until its end. `broken_by` names what the transport died of, if it did."""
        if broken_by:
            self._blame(f"connection broke: {broken_by}")
        elif self._data:
            self._blame("ended inside a frame")
        elif not self._is_done:
            self._blame("ended without [DONE]")
        elif not self._has_chunk:
            self._blame("[DONE] without a chunk before it")
        return StreamReport(self._fault, tuple(self._token_times_s), self._size_bytes)

    def _blame(self, fault: str) -> None:
        """Keep the first fault: the later ones follow from it."""
        self._fault = self._fault or fault

    def _judge(self, payload: bytes, now_s: float) -> None:
        if payload == b"[DONE]":
            self._is_done = True
            return
        try:
            chunk = json.loads(payload)
        except ValueError:
            self._blame("a frame is not JSON")
            return
        if not isinstance(chunk, dict):
            self._blame("a frame is not an object")
        elif error := chunk.get("error"):
            self._blame(f"error frame: {_name_of(error)}")
        else:
            self._has_chunk = True
            if _carries_token(chunk):
                self._token_times_s.append(now_s)


def _name_of(error: object) -> str:
    """Its code or type. Never the message: it may differ each time, and failures are counted by name."""
    fields = error if isinstance(error, dict) else {}
    return str(fields.get("code") or fields.get("type") or "unnamed")


def _carries_token(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    deltas = [choice.get("delta") for choice in choices if isinstance(choice, dict)]
    return any(isinstance(delta, dict) and any(delta.get(key) for key in _MADE_BY_MODEL) for delta in deltas)
