"""One text, walked from mark to mark: where code ends, and what was thought. Pure.

Every search for a closing tag remembers where it found none, so that a text full of openings costs no
more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sanic_proxy.providers.straico.tool_parser.grammar import FENCE_LINE, THINKING_END, WHITESPACE


class Scanner:
    """A text and what is known of it so far. `thoughts` are those that were met, in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.thinking: list[str] = []
        self._next: dict[str, tuple[int, int]] = {}

    def skip_thinking(self, match: re.Match[str]) -> int | None:
        """The position after a thought, which is noted; None if there is none at `match`.

        Some models leave out the opening tag: all before the first closing one was thought.
        """
        if match.lastgroup == "orphan":
            if self.thinking:
                return None
            self.thinking.append(self.text[: match.start()].strip())
            return match.end()
        if match.lastgroup != "thought":
            return None
        close = self.find("</think", match.end())
        end = THINKING_END.match(self.text, close) if close >= 0 else None
        if end is not None:
            self.thinking.append(self.text[match.end() : close].strip())
            return end.end()
        if close >= 0 or self._is_in_a_line(match):
            return None
        self.thinking.append(self.text[match.end() :].strip())
        return len(self.text)

    def skip_line_breaks(self, position: int, before: Sequence[str]) -> int:
        """Without the line breaks that stood around the thought, but for those before it."""
        if before and not before[-1].endswith("\n"):
            return position
        while self.text.startswith("\n", position):
            position += 1
        return position

    def _is_in_a_line(self, match: re.Match[str]) -> bool:
        """A thought that begins a line and never ends holds the rest; in a line it is a mere word."""
        before = self.text[max(0, match.start() - 40) : match.start()].rstrip(" \t")
        return bool(before) and not before.endswith("\n")

    def after_fence(self, match: re.Match[str]) -> int:
        """Past the closing fence. One that never closes holds the rest, unless it is bare: a stray."""
        mark = match[0].strip()
        line = self.text[match.end() : self.line_end(match.end())]
        if mark in line:
            return match.end() + line.index(mark) + len(mark)
        close = self._closing_fence(mark, match.end())
        return close.end() if close else len(self.text) if line.strip() else match.end()

    def _closing_fence(self, mark: str, start: int) -> re.Match[str] | None:
        lines = FENCE_LINE.finditer(self.text, self.line_end(start))
        return next((line for line in lines if line[1].startswith(mark)), None)

    def line_end(self, start: int) -> int:
        end = self.find("\n", start)
        return end if end >= 0 else len(self.text)

    def find(self, mark: str, start: int) -> int:
        """`text.find`, remembering from where the last search ran and where it ended."""
        searched_from, found = self._next.get(mark, (len(self.text), -1))
        if start < searched_from:
            nearer = self.text.find(mark, start, searched_from + len(mark) - 1)
            found = nearer if nearer >= 0 else found
        elif 0 <= found < start:
            found = self.text.find(mark, start)
        self._next[mark] = (start, found)
        return found

    def skip_whitespace(self, position: int) -> int:
        match = WHITESPACE.match(self.text, position)
        return match.end() if match else position

    def skip(self, mark: str, position: int) -> int:
        """After an optional closing mark and the blanks before it."""
        after = self.skip_whitespace(position)
        return after + len(mark) if self.text.startswith(mark, after) else position
