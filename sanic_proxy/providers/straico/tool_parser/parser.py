"""The text of a model -> the tool calls in it, the prose around them, and its reasoning. Pure.

Strategy: walk the text once from marker to marker, those of all families alike, as models lapse
into each other's markup. From an opening marker the JSON is decoded to its own end, so that closing
tags inside strings do no harm, and the closing tag is then optional. What cannot be read as a call
of a tool that was offered stays in the text: nothing is lost, and nothing is invented. Markup that
is quoted in code is no call, unless the fence holds nothing else. Thoughts are taken out on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanic_proxy.providers.straico.tool_parser.calls import Found, OfferedTools, parse_arguments
from sanic_proxy.providers.straico.tool_parser.grammar import (
    ATTEMPT,
    BRACKETS,
    CALL_FENCES,
    CALL_KINDS,
    CLAUDE_KEY,
    CLAUDE_NAME,
    CLOSERS,
    CLOSING_TAGS,
    CUT_NAME,
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

# A model's answer has a few calls; past these bounds a text is not searched any further.
_MAX_FAILURES = 1000
_MAX_CLOSERS = 20_000


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What a model's text comes to. `content` is None where calls are all there is.

    `is_torn`: the limit of tokens cut another call behind `calls`; it is in neither of them.
    """

    content: str | None
    calls: tuple[ToolCall, ...]
    reasoning: str | None
    is_torn: bool = False


def split_thinking(text: str) -> tuple[str, str | None]:
    """The text after a leading `<think>` block, and the block. One that never ends takes it all."""
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
    """Find the calls, and what was thought. With `is_truncated` a call that is cut is not completed.

    A cut call stays in the text if it is the only one, and is dropped behind complete ones. Without tools
    there are no calls, and a text without thoughts is all content. `accepts_unknown`: calls that are marked
    as such count even if no such tool was offered.
    """
    rest, reasoning = split_thinking(text)
    if not tools and "</think" not in rest and "<think" not in rest:
        return ParsedText(rest, (), reasoning)
    offer = OfferedTools(tools, accepts_unknown=accepts_unknown) if tools else None
    reader = _Parser(rest, offer, is_truncated=is_truncated)
    try:
        calls, prose = reader.walk()
    except RecursionError:
        # A value can be just shallow enough to be decoded and too deep to be written again.
        return ParsedText(rest, (), reasoning)
    reasoning = _paragraphs([reasoning or "", *reader.thinking])
    if not calls and not reader.saw_empty_block:
        return ParsedText("".join(prose), (), reasoning)
    content = _joined(prose)
    return ParsedText(content or (None if calls else ""), tuple(calls), reasoning, reader.is_torn)


def _paragraphs(texts: Sequence[str]) -> str | None:
    return "\n\n".join(text for text in texts if text) or None


def _joined(parts: list[str]) -> str:
    texts = [EMPTY_FENCE.sub("", part).strip() for part in parts]
    return EMPTY_FENCE.sub("", "\n\n".join(text for text in texts if text)).strip()


class _Parser(Scanner):
    """One walk over one text."""

    def __init__(self, text: str, offer: OfferedTools | None, *, is_truncated: bool) -> None:
        super().__init__(text)
        self.offer = offer or OfferedTools(())
        self.is_truncated = is_truncated
        self.saw_empty_block = False
        self.is_torn = False
        self._cut_call_at: int | None = None
        self._failures_left = _MAX_FAILURES
        self._closers_left = _MAX_CLOSERS
        readers: dict[str, Callable[[re.Match[str]], Found | None]] = {
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
        self._readers: Mapping[str, Callable[[re.Match[str]], Found | None]] = readers if offer else {}

    def walk(self) -> tuple[list[ToolCall], list[str]]:
        """The calls in order, and the prose between them; prose in one piece where there are none."""
        whole = self._bare_json(0, len(self.text.rstrip())) if self._readers else None
        if whole is not None:
            return whole.calls, [whole.unparsed]
        calls: list[ToolCall] = []
        prose: list[str] = []
        segment: list[str] = []  # prose up to the next call: in pieces where thoughts stood in it
        kept_to = position = 0
        while match := MARKER.search(self.text, position):
            if (thought := self.skip_thinking(match)) is not None:
                if match.lastgroup == "orphan":
                    calls, prose, segment = [], [], []
                elif kept_to < match.start():
                    segment.append(self.text[kept_to : match.start()])
                kept_to = position = self.skip_line_breaks(thought, segment)
                continue
            if (found := self._found(match)) is None:
                position = self._after_unread(match)
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

    def _found(self, match: re.Match[str]) -> Found | None:
        reader = self._readers.get(match.lastgroup or "")
        found = reader(match) if reader else None
        self._failures_left -= found is None and reader is not None
        return found

    def _after_unread(self, match: re.Match[str]) -> int:
        """Where to look on after a marker that is no call: past all that belongs to it.

        What stands inside code, a thought, or a call that cannot be read is never a call itself.
        """
        if match.lastgroup == "fence":
            return self.after_fence(match)
        if match.lastgroup not in CALL_KINDS:
            return match.end()
        if not self._is_attempt(match):
            if CUT_NAME.fullmatch(self.text, match.end()):
                self._cut_call_at = match.start()
            return match.end()
        end = self._after_attempt(match)
        if end == len(self.text) and not self.text.endswith(self._closer_of(match)):
            self._cut_call_at = match.start()
        return end

    def _is_attempt(self, match: re.Match[str]) -> bool:
        if match.lastgroup in {"wrapper", "block", "mistral", "llama"}:
            name = GLM_NAME.match(self.text, self.skip_whitespace(match.end()))
            tool = self.offer.find(name[0]) if match.lastgroup == "block" and name is not None else None
            is_named = tool is not None and self.offer.is_offered(tool.name)
            return is_named or ATTEMPT.match(self.text, match.end()) is not None
        return True

    def _after_attempt(self, match: re.Match[str]) -> int:
        closer = self._closer_of(match)
        close = self.find(closer, match.end())
        end = close + len(closer) if close >= 0 else len(self.text)
        # The closing tag may be missing: another call that starts a line is one of its own.
        again = self.find("\n" + match[0], match.end())
        return min(end, again) if again >= 0 else end

    @staticmethod
    def _closer_of(match: re.Match[str]) -> str:
        return END_OF_KIND.get(match.lastgroup or "") or closing_tag_of(match[0].split()[0].rstrip(">") + ">")

    # Whole blocks

    def _wrapper(self, match: re.Match[str]) -> Found | None:
        """`<tool_calls>` and its like: JSON inside, or single calls of any kind."""
        closer = closing_tag_of(match[0])
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("[", "{", "`", '"', "\\"), start):
            return self._json(start, closer)
        calls: list[ToolCall] = []
        position = start
        while (inner := MARKER.match(self.text, position)) and inner.lastgroup in CALL_KINDS - {"wrapper"}:
            found = self._readers[inner.lastgroup or ""](inner)
            if found is None or found.unparsed:
                break
            calls += found.calls
            position = self.skip_whitespace(found.end)
        closing = CLOSERS.match(self.text, position)
        return Found(calls, closing.end() if closing else position) if calls else None

    def _block(self, match: re.Match[str]) -> Found | None:
        """`<tool_call>`: JSON (Qwen), `<function=` (Qwen Coder), or a name and pairs (GLM)."""
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("{", "[", "`", "\\"), start):
            return self._json(start, "</tool_call>")
        inner = MARKER.match(self.text, start)
        if inner is not None and inner.lastgroup in {"function", "invoke"}:
            found = self._readers[inner.lastgroup](inner)
            return found and Found(found.calls, self.skip("</tool_call>", found.end))
        return self._glm(start)

    def _fence(self, match: re.Match[str]) -> Found | None:
        """A fence that holds a call and nothing else."""
        opening = FENCE.match(self.text, match.start())
        if opening is None or (opening[1] and opening[1].lower() not in CALL_FENCES):
            return None
        calls: list[ToolCall] = []
        position = opening.end()
        while (found := self._fenced(position)) is not None and not found.unparsed:
            calls += found.calls
            position = found.end
        end = self.skip("```", position)
        # Without a language a fence is a quotation, unless it is where the answer ends.
        is_last = self.skip_whitespace(end) == len(self.text)
        if not calls or end == position or not (opening[1] or is_last):
            return None
        if not all(self.offer.is_offered(call.name) for call in calls):
            return None  # more probably an example than a call
        return Found(calls, end)

    def _fenced(self, position: int) -> Found | None:
        start = self.skip_whitespace(position)
        if self.text.startswith(("{", "["), start):
            return self._bare_json(start, None)
        inner = MARKER.match(self.text, start)
        kind = inner.lastgroup if inner else None
        return self._readers[kind](inner) if inner and kind in CALL_KINDS else None

    def _bare_json(self, start: int, must_end: int | None) -> Found | None:
        """JSON without any marker: only if all of it is calls of tools that were offered."""
        begin = self.skip_whitespace(start)
        if not self.text.startswith(("{", "["), begin):
            return None
        decoded = decode_values(self.text, begin, repair=False)
        if decoded is None:
            close = self.find("```", begin) if must_end is None else must_end
            coerce_strings = decode_values(self.text[begin:close], 0, repair=True) if close >= 0 else None
            decoded = coerce_strings and coerce_strings._replace(end=close)
        if decoded is None or (must_end is not None and decoded.end != must_end):
            return None
        if decoded.unparsed and self.is_truncated:
            self.is_torn = True
            decoded = decoded._replace(unparsed="")
        found = self.offer.parse_values(decoded, is_tagged=False)
        return found if found.calls and not found.unparsed else None

    def _json(self, start: int, closer: str) -> Found | None:
        """JSON after a marker, with fence or without, up to an optional closing tag."""
        fence = FENCE.match(self.text, start)
        begin = self.skip_whitespace(fence.end()) if fence else start
        decoded = decode_values(self.text, begin, repair=False)
        if decoded is None:
            decoded = self._mended(begin, closer)
            if decoded is None:
                return None
        end = self.skip("```", decoded.end) if fence else decoded.end
        brackets = BRACKETS.match(self.text, end)
        if brackets and self.text.startswith(closer, brackets.end()):
            end = brackets.end()
        found = self.offer.parse_values(decoded)
        if not found.calls and found.unparsed:
            return None
        self.saw_empty_block = self.saw_empty_block or not found.calls
        return found._replace(end=self.skip(closer, end))

    def _mended(self, begin: int, closer: str) -> Decoded | None:
        """Damaged JSON, up to the closing tag; up to the next one where the first is in a string."""
        close = self.find(closer, begin)
        if close < 0 and self.is_truncated:
            return self._before_the_cut(begin)
        decoded = decode_values(self._until(begin, close), 0, repair=True, is_closed=close >= 0)
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

    def _before_the_cut(self, begin: int) -> Decoded | None:
        """The calls of a truncated array that are complete."""
        elements = complete_elements(self.text, begin)
        if elements is None or not self.offer.parse_values(elements).calls:
            return None
        self.is_torn = True
        return elements._replace(unparsed="")

    def _until(self, begin: int, close: int) -> str:
        """The text to be repaired: up to the closing tag, or to the next marker."""
        if close >= 0:
            return self.text[begin:close]
        following = MARKER.search(self.text, begin)
        return self.text[begin : following.start() if following else None]

    # Single calls

    def _glm(self, start: int) -> Found | None:
        """`NAME`, then `<arg_key>`/`<arg_value>` pairs or one JSON object, each on a line or not."""
        name = GLM_NAME.match(self.text, start)
        tool = self.offer.find(name[0]) if name else None
        if name is None or tool is None:
            return None
        position = self.skip_whitespace(name.end())
        if self.text.startswith("{", position):
            return self._named_json(tool, position, "</tool_call>")
        arguments: dict[str, Any] = {}
        while key := GLM_KEY.match(self.text, position):
            value = self._value(key.end(), "</arg_value>", ("<arg_key>", "</tool_call>"))
            if value is None:
                return None
            arguments[key[1].strip()] = self.offer.coerce_argument(
                tool, key[1].strip(), strip_newlines(value[0])
            )
            position = self.skip_whitespace(value[1])
        if not arguments and not self.offer.is_offered(tool.name):
            return None  # one word between the tags need not be a name
        return self._closed(tool, arguments, position, "</tool_call>")

    def _function(self, match: re.Match[str]) -> Found | None:
        """Qwen Coder: `<function=NAME><parameter=KEY>VALUE</parameter></function>`."""
        return self._elements(match.end(), QWEN_NAME, QWEN_KEY, ("<parameter=", "</function>"))

    def _invoke(self, match: re.Match[str]) -> Found | None:
        """Claude: `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`."""
        prefix = "antml:" if "antml:" in match[0] else ""
        followers = (f"<{prefix}parameter", f"</{prefix}invoke>", "</parameter_list>")
        return self._elements(match.end(), CLAUDE_NAME, CLAUDE_KEY, followers)

    def _elements(
        self, start: int, names: re.Pattern[str], keys: re.Pattern[str], followers: tuple[str, ...]
    ) -> Found | None:
        name = names.match(self.text, start)
        tool = self.offer.find(name[1]) if name else None
        if name is None or tool is None:
            return None
        closer = followers[1]
        value_end = PREFIXED_END if "antml:" in closer else "</parameter>"
        arguments: dict[str, Any] = {}
        position = self._skip_list(name.end())
        while key := keys.match(self.text, position):
            value = self._value(key.end(), value_end, followers)
            if value is None:
                return None
            text = SURROUNDING_NEWLINES.sub("", value[0]) if keys is QWEN_KEY else strip_newlines(value[0])
            arguments[key[1]] = self.offer.coerce_argument(tool, key[1], text)
            position = self._skip_list(value[1])
        return self._closed(tool, arguments, position, closer)

    def _skip_list(self, position: int) -> int:
        """Past the `<parameter_list>` some models put around the parameters."""
        for mark in ("<parameter_list>", "</parameter_list>"):
            position = self.skip(mark, position)
        return self.skip_whitespace(position)

    def _kimi(self, match: re.Match[str]) -> Found | None:
        """`functions.NAME:0`, the argument marker, JSON."""
        name = KIMI_NAME.match(self.text, match.end())
        tool = self.offer.find(name[1]) if name else None
        if name is None or tool is None:
            return None
        return self._named_json(tool, self.skip_whitespace(name.end()), "<|tool_call_end|>")

    def _deepseek(self, match: re.Match[str]) -> Found | None:
        """`function`, separator, NAME, fenced JSON; newer models: NAME, separator, JSON."""
        name = DEEPSEEK_NAME.match(self.text, match.end())
        tool = self.offer.find(name[1]) if name else None
        if name is None or tool is None:
            return None
        fence = FENCE.match(self.text, self.skip_whitespace(name.end()))
        start = self.skip_whitespace(fence.end() if fence else name.end())
        return self._named_json(tool, start, "<｜tool▁call▁end｜>")

    def _mistral(self, match: re.Match[str]) -> Found | None:
        """An array of calls, or `NAME[ARGS]{...}` and `NAME{...}`."""
        start = self.skip_whitespace(match.end())
        if self.text.startswith(("[", "{"), start):
            return self._json(start, "[/TOOL_CALLS]")
        name = MISTRAL_NAME.match(self.text, start)
        tool = self.offer.find(name[1]) if name else None
        if name is None or tool is None:
            return None
        return self._named_json(tool, self.skip_whitespace(name.end()), "[/TOOL_CALLS]")

    def _llama(self, match: re.Match[str]) -> Found | None:
        start = self.skip_whitespace(match.end())
        return self._json(start, "<|eom_id|>") if self.text.startswith(("{", "["), start) else None

    def _named_json(self, tool: Tool, start: int, closer: str) -> Found | None:
        """The arguments of a call whose name is known, as one JSON object."""
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
        return Found([ToolCall(tool.name, compact(arguments))], end)

    def _value(self, start: int, closer: str, followers: tuple[str, ...]) -> tuple[str, int] | None:
        """A bare value and the position after its closing tag.

        Values are not escaped, so the closing tag counts only where the markup goes on behind it.
        """
        first = close = self.find(closer, start)
        while close >= 0 and self._closers_left > 0:
            self._closers_left -= 1
            after = self.skip_whitespace(close + len(closer))
            if after == len(self.text) or self.text.startswith(followers, after):
                return self.text[start:close], close + len(closer)
            close = self.find(closer, close + 1)
        return (self.text[start:first], first + len(closer)) if first >= 0 else None

    def _closed(self, tool: Tool, arguments: dict[str, Any], position: int, closer: str) -> Found | None:
        """The call, if its markup ends properly; its end tag may be missing where nothing was cut."""
        end = self.skip(closer, position)
        is_at_end = self.skip_whitespace(position) == len(self.text)
        if end == position and (
            self.is_truncated or not (is_at_end or MARKER_OR_CLOSER.match(self.text, position))
        ):
            return None
        return Found([ToolCall(tool.name, compact(arguments))], end)
