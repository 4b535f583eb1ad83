"""A text and positions in it: where code fences and thinking end. Pure.

Searches for closing tags are cached per tag, so that a text full of opening tags without closing ones is
still scanned in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sanic_proxy.providers.straico.tool_parser.grammar import FENCE_LINE, THINKING_END, WHITESPACE


class Scanner:
    """A text that is being scanned. `thinking` has the content of the thinking tags found so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.thinking: list[str] = []
        self._next: dict[str, tuple[int, int]] = {}

    def skip_thinking(self, match: re.Match[str]) -> int | None:
        """The position after thinking that begins at `match`, whose content is kept; None if there is none.

        Some models omit the opening tag. Then everything before the first closing tag is thinking.
        """
        if match.lastgroup == "stray_end":
            if self.thinking:
                return None
            self.thinking.append(self.text[: match.start()].strip())
            return match.end()
        if match.lastgroup != "thinking":
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
        """The position after the line breaks behind thinking, unless text precedes it in its line."""
        if before and not before[-1].endswith("\n"):
            return position
        while self.text.startswith("\n", position):
            position += 1
        return position

    def _is_in_a_line(self, match: re.Match[str]) -> bool:
        """Whether text precedes a tag in its line.

        An unclosed tag is prose there, but thinking in a line of its own.
        """
        before = self.text[max(0, match.start() - 40) : match.start()].rstrip(" \t")
        return bool(before) and not before.endswith("\n")

    def after_fence(self, match: re.Match[str]) -> int:
        """The position after the closing fence.

        An unclosed fence with a language lasts to the end of the text.
        """
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
        """`text.find` with a cache: the start and the result of the last search for `mark`."""
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
        """The position after an optional `mark` and the white space before it."""
        after = self.skip_whitespace(position)
        return after + len(mark) if self.text.startswith(mark, after) else position
