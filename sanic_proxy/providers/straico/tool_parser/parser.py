"""The text of a model -> the tool calls in it, the prose around them, and its reasoning. Pure.

The parser scans the text once, from marker to marker. A marker is an opening tag of any model family's tool
call markup (models lapse into each other's), a code fence, inline code, or a thinking tag:

    call marker     parse the call and remove it from the text. If that fails, everything up to its closing
                    tag stays text, because a tag inside an argument does not begin another call
    thinking tag    its content becomes reasoning, and is not searched for calls
    fence, code     skipped as a quotation, unless a fence contains nothing but calls

Arguments are decoded from their first bracket to the end of the JSON value, instead of being cut at the
closing tag: a closing tag inside a string does no harm, and a missing one is tolerated. Only calls of
offered tools are returned (`accepts_unknown` allows others). Text that is not a valid call stays in the
content, so nothing is lost and nothing is invented.

In a truncated text (`is_truncated`) a call without its end is never completed. If complete calls precede
it, it is dropped; if it is the only one, it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sanic_proxy.providers.straico.tool_parser.calls import OfferedTools, ParsedCalls, parse_arguments
from sanic_proxy.providers.straico.tool_parser.grammar import (
    ARRAY_MEMBER,
    ATTEMPT,
    BRACKETS,
    CALL_FENCES,
    CALL_KINDS,
    CLAUDE_KEY,
    CLAUDE_NAME,
    CLOSERS,
    CLOSING_TAGS,
    CUT_NAME,
    CUT_VALUE,
    DEEPSEEK_NAME,
    EMPTY_FENCE,
    END_OF_KIND,
    FENCE,
    GLM_KEY,
    GLM_NAME,
    KIMI_NAME,
    LEADING_THINKING,
    MARKER,
    MARKER_OR_CLOSER,
    MISTRAL_NAME,
    OPENING_TAGS,
    PREFIXED_END,
    QWEN_KEY,
    QWEN_NAME,
    SURROUNDING_NEWLINES,
    closing_tag_of,
    strip_newlines,
)
from sanic_proxy.providers.straico.tool_parser.json_repair import Decoded, complete_elements, decode_values
from sanic_proxy.providers.straico.tool_parser.scanner import Scanner
from sanic_proxy.providers.straico.tools import Tool, ToolCall, compact

# Limits of the search in texts that are full of markup. A real answer has a few calls.
_MAX_FAILURES = 1000
_MAX_CLOSERS = 20_000


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A model's text. `content` is None if there is nothing but calls.

    `is_torn`: another call was cut by the token limit and dropped.
    """

    content: str | None
    calls: tuple[ToolCall, ...]
    reasoning: str | None
    is_torn: bool = False


def split_thinking(text: str) -> tuple[str, str | None]:
    """The text after its leading `<think>` blocks, and their content. An unclosed block is the whole text."""
    if "<think" not in text:
        return text, None
    thinking: list[str] = []
    position = 0
    while match := LEADING_THINKING.match(text, position):
        thinking.append(match[1].strip())
        position = match.end()
    return text[position:].lstrip("\n") if position else text, _paragraphs(thinking)


def parse(
    text: str, *, tools: Sequence[Tool], is_truncated: bool, accepts_unknown: bool = False
) -> ParsedText:
    """Parse a model's text. Without tools nothing in it is a call.

    `is_truncated`: the token limit cut the text. `accepts_unknown`: also return calls of functions that were
    not offered, if they are inside tags.
    """
    rest, reasoning = split_thinking(text)
    if not tools and "</think" not in rest and "<think" not in rest:
        return ParsedText(rest, (), reasoning)
    offered = OfferedTools(tools, accepts_unknown=accepts_unknown) if tools else None
    parser = _Parser(rest, offered, is_truncated=is_truncated)
    try:
        calls, prose = parser.parse()
    except RecursionError:
        # The nesting of a value can be shallow enough to be decoded and too deep to be encoded.
        return ParsedText(rest, (), reasoning)
    reasoning = _paragraphs([reasoning or "", *parser.thinking])
    if not calls and not parser.saw_empty_block:
        return ParsedText("".join(prose), (), reasoning)
    content = _join_prose(prose)
    return ParsedText(content or (None if calls else ""), tuple(calls), reasoning, parser.is_torn)


def _paragraphs(texts: Sequence[str]) -> str | None:
    return "\n\n".join(text for text in texts if text) or None


def _join_prose(parts: list[str]) -> str:
    texts = [EMPTY_FENCE.sub("", part).strip() for part in parts]
    return EMPTY_FENCE.sub("", "\n\n".join(text for text in texts if text)).strip()


class _Parser(Scanner):
    """One scan of one text."""

    def __init__(self, text: str, offered: OfferedTools | None, *, is_truncated: bool) -> None:
        super().__init__(text)
        self.offered = offered or OfferedTools(())
        self.is_truncated = is_truncated
        self.saw_empty_block = False
        self.is_torn = False
        self._cut_call_at: int | None = None
        self._failures_left = _MAX_FAILURES
        self._closers_left = _MAX_CLOSERS
        parsers: Mapping[str, Callable[[re.Match[str]], ParsedCalls | None]] = {
            "wrapper": self._wrapper,
            "block": self._block,
            "function": self._function,
            "invoke": self._invoke,
            "kimi": self._kimi,
            "deepseek": self._deepseek,
            "mistral": self._mistral,
            "llama": self._llama,
            "fence": self._fence,
        }
        self._parsers: Mapping[str, Callable[[re.Match[str]], ParsedCalls | None]] = (
            parsers if offered else {}
        )

    def parse(self) -> tuple[list[ToolCall], list[str]]:
        """The calls in order, and the pieces of prose around them; one piece if there are no calls."""
        whole = self._bare_json(0, len(self.text.rstrip())) if self._parsers else None
        if whole is not None:
            return whole.calls, [whole.unparsed]
        calls: list[ToolCall] = []
        prose: list[str] = []
        segment: list[str] = []  # pieces of the prose before the next call, split by thinking
        kept_to = position = 0
        while match := MARKER.search(self.text, position):
            if (end := self.skip_thinking(match)) is not None:
                if match.lastgroup == "stray_end":
                    calls, prose, segment = [], [], []
                elif kept_to < match.start():
                    segment.append(self.text[kept_to : match.start()])
                kept_to = position = self.skip_line_breaks(end, segment)
                continue
            if (found := self._parse_call(match)) is None:
                position = self._skip_unparsed(match)
                if self._failures_left < 0:
                    break
                continue
            calls += found.calls
            prose += ["".join([*segment, self.text[kept_to : match.start()]]), found.unparsed]
            segment = []
            kept_to = position = found.end
        end = self._end_of_prose(kept_to) if calls and self.is_truncated else len(self.text)
        return calls, [*prose, "".join([*segment, self.text[kept_to:end]])]

    def _end_of_prose(self, start: int) -> int:
        """The end of the prose behind the last call of a truncated text: where a cut call or tag begins."""
        end = self._cut_call_at
        if end is None or end < start:
            end = self._cut_tag(start)
        else:
            self.is_torn = True
        before = self.text[start:end].rstrip()
        if end < len(self.text) and (tag := next(filter(before.endswith, OPENING_TAGS), None)) is not None:
            return start + len(before) - len(tag)  # the tag around the cut call
        return end

    def _cut_tag(self, start: int) -> int:
        """Where the incomplete tag begins with which the text ends; its end if there is none."""
        begin = max(self.text.rfind("<", start), self.text.rfind("[", start))
        tag = self.text[begin:].rstrip() if begin >= 0 else "\n"
        is_opening = any(opening.startswith(tag) for opening in OPENING_TAGS)
        self.is_torn = self.is_torn or is_opening
        is_tag = is_opening or any(closing.startswith(tag) for closing in CLOSING_TAGS)
        return begin if is_tag else len(self.text)

    def _parse_call(self, match: re.Match[str]) -> ParsedCalls | None:
        parser = self._parsers.get(match.lastgroup or "")
        found = parser(match) if parser else None
        self._failures_left -= found is None and parser is not None
        return found

    def _skip_unparsed(self, match: re.Match[str]) -> int:
        """The position after a marker that is not a call, and after everything that belongs to it.

        Tags inside of code or of a call that cannot be parsed do not begin calls.
        """
        if match.lastgroup == "fence":
            return self.after_fence(match)
        if match.lastgroup not in CALL_KINDS:
            return match.end()
        if not self._is_attempt(match):
            if CUT_NAME.fullmatch(self.text, match.end()):
                self._cut_call_at = match.start()
            return match.end()
        end = self._attempt_end(match)
        if end == len(self.text) and not self.text.endswith(self._closing_tag(match)):
            self._cut_call_at = match.start()
        return end

    def _is_attempt(self, match: re.Match[str]) -> bool:
        """Whether a call was begun behind a marker, as opposed to a tag that prose mentions."""
        if match.lastgroup in {"wrapper", "block", "mistral", "llama"}:
            named = self._named_tool(GLM_NAME, self.skip_whitespace(match.end()))
            is_named = (
                match.lastgroup == "block" and named is not None and self.offered.is_offered(named[0].name)
            )
            if match.lastgroup == "mistral" and self.is_truncated:
                named = self._named_tool(MISTRAL_NAME, self.skip_whitespace(match.end()))
                is_named = named is not None
            return is_named or ATTEMPT.match(self.text, match.end()) is not None
        return True

    def _attempt_end(self, match: re.Match[str]) -> int:
        closer = self._closing_tag(match)
        close = self.find(closer, match.end())
        end = close + len(closer) if close >= 0 else len(self.text)
        # The closing tag may be missing: the same tag at the start of a line begins another call.
        again = self.find("\n" + match[0], match.end())
        return min(end, again) if again >= 0 else end

    @staticmethod
    def _closing_tag(match: re.Match[str]) -> str:
        return END_OF_KIND.get(match.lastgroup or "") or closing_tag_of(match[0].split()[0].rstrip(">") + ">")

    # Blocks of one or more calls

    def _wrapper(self, match: re.Match[str]) -> ParsedCalls | None:
        """`<tool_calls>` and similar tags, with JSON or single calls of any kind inside."""
        closer = closing_tag_of(match[0])
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("[", "{", "`", '"', "\\"), start):
            return self._json(start, closer)
        calls: list[ToolCall] = []
        position = start
        while (inner := MARKER.match(self.text, position)) and inner.lastgroup in CALL_KINDS - {"wrapper"}:
            found = self._parsers[inner.lastgroup or ""](inner)
            if found is None or found.unparsed:
                break
            calls += found.calls
            position = self.skip_whitespace(found.end)
        closing = CLOSERS.match(self.text, position)
        return ParsedCalls(calls, closing.end() if closing else position) if calls else None

    def _block(self, match: re.Match[str]) -> ParsedCalls | None:
        """`<tool_call>`, with JSON (Qwen), `<function=` (Qwen Coder), or a name and pairs (GLM) inside."""
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("{", "[", "`", "\\"), start):
            return self._json(start, "</tool_call>")
        inner = MARKER.match(self.text, start)
        if inner is not None and inner.lastgroup in {"function", "invoke"}:
            found = self._parsers[inner.lastgroup](inner)
            return found and ParsedCalls(found.calls, self.skip("</tool_call>", found.end))
        return self._glm(start)

    def _fence(self, match: re.Match[str]) -> ParsedCalls | None:
        """A code fence that contains calls and nothing else."""
        opening = FENCE.match(self.text, match.start())
        if opening is None or (opening[1] and opening[1].lower() not in CALL_FENCES):
            return None
        calls: list[ToolCall] = []
        position = opening.end()
        while (found := self._fenced(position)) is not None and not found.unparsed:
            calls += found.calls
            position = found.end
        end = self.skip("```", position)
        is_closed = end > position
        if not is_closed and opening[1] and self._ends_in_call(position):
            is_closed, end = True, len(self.text)
        # A fence without a language is a quotation, unless the answer ends with it.
        is_last = self.skip_whitespace(end) == len(self.text)
        if not calls or not is_closed or not (opening[1] or is_last):
            return None
        if not all(self.offered.is_offered(call.name) for call in calls):
            return None  # probably an example
        return ParsedCalls(calls, end)

    def _ends_in_call(self, position: int) -> bool:
        """Whether a truncated text ends at `position`, or with a cut call that begins there."""
        start = self.skip_whitespace(position)
        if not self.is_truncated or start == len(self.text):
            return self.is_truncated
        match = MARKER.match(self.text, start)
        if match is None:
            return self._cut_tag(start) == start
        if match.lastgroup not in CALL_KINDS:
            return False
        is_attempt = self._is_attempt(match) and self._attempt_end(match) == len(self.text)
        is_cut = is_attempt or CUT_NAME.fullmatch(self.text, match.end()) is not None
        self.is_torn = self.is_torn or is_cut
        return is_cut

    def _fenced(self, position: int) -> ParsedCalls | None:
        start = self.skip_whitespace(position)
        if self.text.startswith(("{", "["), start):
            return self._bare_json(start, None)
        inner = MARKER.match(self.text, start)
        kind = inner.lastgroup if inner else None
        return self._parsers[kind](inner) if inner and kind in CALL_KINDS else None

    def _bare_json(self, start: int, must_end: int | None) -> ParsedCalls | None:
        """JSON without tags, which must consist of calls of offered tools."""
        begin = self.skip_whitespace(start)
        if not self.text.startswith(("{", "["), begin):
            return None
        decoded = decode_values(self.text, begin, repair=False)
        if decoded is None:
            close = self.find("```", begin) if must_end is None else must_end
            repaired = decode_values(self.text[begin:close], 0, repair=True) if close >= 0 else None
            decoded = repaired and repaired._replace(end=close)
        if self.is_truncated and (decoded is None or decoded.unparsed):
            decoded = self._complete_calls(begin, is_tagged=False)
            decoded = decoded and decoded._replace(end=must_end or len(self.text))
        if decoded is None or (must_end is not None and decoded.end != must_end):
            return None
        found = self.offered.parse_values(decoded, is_tagged=False)
        return found if found.calls and not found.unparsed else None

    def _json(self, start: int, closer: str) -> ParsedCalls | None:
        """JSON after a marker, in a code fence or not, up to an optional closing tag."""
        fence = FENCE.match(self.text, start)
        begin = self.skip_whitespace(fence.end()) if fence else start
        decoded = decode_values(self.text, begin, repair=False)
        if decoded is None:
            decoded = self._repaired(begin, closer)
            if decoded is None:
                return None
        end = self.skip("```", decoded.end) if fence else decoded.end
        brackets = BRACKETS.match(self.text, end)
        if brackets and self.text.startswith(closer, brackets.end()):
            end = brackets.end()
        found = self.offered.parse_values(decoded)
        if not found.calls and found.unparsed:
            return None
        self.saw_empty_block = self.saw_empty_block or not found.calls
        cut_value = CUT_VALUE.match(self.text, end) if self.is_truncated else None
        if found.calls and cut_value is not None and self.find(closer, end) < 0:
            self.is_torn = self.is_torn or cut_value[0].strip() != ""
            return found._replace(end=len(self.text))
        return found._replace(end=self.skip(closer, end))

    def _repaired(self, begin: int, closer: str) -> Decoded | None:
        """Damaged JSON up to the closing tag, or the following one if the first is inside a string."""
        close = self.find(closer, begin)
        if close < 0 and self.is_truncated:
            return self._complete_calls(begin, is_tagged=True)
        decoded = decode_values(self._repair_region(begin, close), 0, repair=True, is_closed=close >= 0)
        if close >= 0 and (decoded is None or decoded.unparsed):
            later = self.find(closer, close + 1)
            longer = (
                decode_values(self.text[begin:later], 0, repair=True, is_closed=True) if later >= 0 else None
            )
            if longer is not None and not longer.unparsed:
                return longer._replace(end=later)
        if decoded is None:
            return None
        return decoded._replace(end=close if close >= 0 else begin + decoded.end)

    def _complete_calls(self, begin: int, *, is_tagged: bool) -> Decoded | None:
        """The calls of a truncated array that are complete."""
        opening = ARRAY_MEMBER.match(self.text, begin)
        elements = complete_elements(self.text, opening.end() if opening else begin)
        if elements is None or not self.offered.parse_values(elements, is_tagged=is_tagged).calls:
            return None
        self.is_torn = True
        return elements._replace(unparsed="")

    def _repair_region(self, begin: int, close: int) -> str:
        """The text to repair: up to the closing tag, or else the next marker."""
        if close >= 0:
            return self.text[begin:close]
        following = MARKER.search(self.text, begin)
        return self.text[begin : following.start() if following else None]

    # Single calls

    def _named_tool(self, pattern: re.Pattern[str], position: int) -> tuple[Tool, int] | None:
        """The tool whose name is at `position`, and the position after the name and its delimiter."""
        name = pattern.match(self.text, position)
        tool = self.offered.find(name[name.lastindex or 0]) if name else None
        return (tool, name.end()) if name is not None and tool is not None else None

    def _glm(self, start: int) -> ParsedCalls | None:
        """GLM: `NAME`, then `<arg_key>`/`<arg_value>` pairs or one JSON object."""
        if (named := self._named_tool(GLM_NAME, start)) is None:
            return None
        tool, end = named
        position = self.skip_whitespace(end)
        if self.text.startswith("{", position):
            return self._named_json(tool, position, "</tool_call>")
        arguments: dict[str, object] = {}
        while key := GLM_KEY.match(self.text, position):
            value = self._value(key.end(), "</arg_value>", ("<arg_key>", "</tool_call>"))
            if value is None:
                return None
            arguments[key[1].strip()] = self.offered.coerce_argument(
                tool, key[1].strip(), strip_newlines(value[0])
            )
            position = self.skip_whitespace(value[1])
        if not arguments and not self.offered.is_offered(tool.name):
            return None  # a single word inside the tags may be anything
        return self._finish_call(tool, arguments, position, "</tool_call>")

    def _function(self, match: re.Match[str]) -> ParsedCalls | None:
        """Qwen Coder: `<function=NAME><parameter=KEY>VALUE</parameter></function>`."""
        return self._elements(match.end(), QWEN_NAME, QWEN_KEY, ("<parameter=", "</function>"))

    def _invoke(self, match: re.Match[str]) -> ParsedCalls | None:
        """Claude: `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`."""
        prefix = "antml:" if "antml:" in match[0] else ""
        followers = (f"<{prefix}parameter", f"</{prefix}invoke>", "</parameter_list>")
        return self._elements(match.end(), CLAUDE_NAME, CLAUDE_KEY, followers)

    def _elements(
        self, start: int, names: re.Pattern[str], keys: re.Pattern[str], followers: tuple[str, ...]
    ) -> ParsedCalls | None:
        if (named := self._named_tool(names, start)) is None:
            return None
        tool, end = named
        closer = followers[1]
        value_end = PREFIXED_END if "antml:" in closer else "</parameter>"
        arguments: dict[str, object] = {}
        position = self._skip_list(end)
        while key := keys.match(self.text, position):
            value = self._value(key.end(), value_end, followers)
            if value is None:
                return None
            text = SURROUNDING_NEWLINES.sub("", value[0]) if keys is QWEN_KEY else strip_newlines(value[0])
            arguments[key[1]] = self.offered.coerce_argument(tool, key[1], text)
            position = self._skip_list(value[1])
        return self._finish_call(tool, arguments, position, closer)

    def _skip_list(self, position: int) -> int:
        """The position after the `<parameter_list>` tags that some models add."""
        for mark in ("<parameter_list>", "</parameter_list>"):
            position = self.skip(mark, position)
        return self.skip_whitespace(position)

    def _kimi(self, match: re.Match[str]) -> ParsedCalls | None:
        """Kimi: `functions.NAME:0`, the argument marker, and JSON."""
        if (named := self._named_tool(KIMI_NAME, match.end())) is None:
            return None
        tool, end = named
        return self._named_json(tool, self.skip_whitespace(end), "<|tool_call_end|>")

    def _deepseek(self, match: re.Match[str]) -> ParsedCalls | None:
        """DeepSeek: `function`, separator, NAME, fenced JSON; newer models: NAME, separator, JSON."""
        if (named := self._named_tool(DEEPSEEK_NAME, match.end())) is None:
            return None
        tool, end = named
        fence = FENCE.match(self.text, self.skip_whitespace(end))
        start = self.skip_whitespace(fence.end() if fence else end)
        return self._named_json(tool, start, "<｜tool▁call▁end｜>")

    def _mistral(self, match: re.Match[str]) -> ParsedCalls | None:
        """Mistral: an array of calls, or `NAME[ARGS]{...}`, or `NAME{...}`."""
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("[", "{"), start):
            return self._json(start, "[/TOOL_CALLS]")
        if (named := self._named_tool(MISTRAL_NAME, start)) is None:
            return None
        tool, end = named
        return self._named_json(tool, self.skip_whitespace(end), "[/TOOL_CALLS]")

    def _llama(self, match: re.Match[str]) -> ParsedCalls | None:
        start = self.skip_whitespace(match.end())
        return self._json(start, "<|eom_id|>") if self.text.startswith(("{", "["), start) else None

    def _named_json(self, tool: Tool, start: int, closer: str) -> ParsedCalls | None:
        """The arguments of a call of `tool`, as one JSON object."""
        decoded = decode_values(self.text, start, repair=False)
        if decoded is None:
            close = self.find(closer, start)
            if close < 0:
                return None
            decoded = decode_values(self.text[start:close], 0, repair=True, is_closed=True)
            if decoded is None:
                return None
            decoded = decoded._replace(end=close)
        arguments = parse_arguments(decoded.values[0])
        if arguments is None:
            return None
        end = self.skip(closer, self.skip("```", decoded.end))
        return ParsedCalls([ToolCall(tool.name, compact(arguments))], end)

    def _value(self, start: int, closer: str, followers: tuple[str, ...]) -> tuple[str, int] | None:
        """An unescaped value, and the position after its closing tag.

        A value may contain the closing tag, so the tag counts only if it is followed by more markup or the
        end.
        """
        first = close = self.find(closer, start)
        while close >= 0 and self._closers_left > 0:
            self._closers_left -= 1
            after = self.skip_whitespace(close + len(closer))
            if after == len(self.text) or self.text.startswith(followers, after):
                return self.text[start:close], close + len(closer)
            close = self.find(closer, close + 1)
        return (self.text[start:first], first + len(closer)) if first >= 0 else None

    def _finish_call(
        self, tool: Tool, arguments: dict[str, object], position: int, closer: str
    ) -> ParsedCalls | None:
        """The call, if its markup is closed. The closing tag may be missing unless the text is truncated."""
        end = self.skip(closer, position)
        is_at_end = self.skip_whitespace(position) == len(self.text)
        if end == position and (
            self.is_truncated or not (is_at_end or MARKER_OR_CLOSER.match(self.text, position))
        ):
            return None
        return ParsedCalls([ToolCall(tool.name, compact(arguments))], end)
