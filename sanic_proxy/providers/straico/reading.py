"""The text of a model -> the tool calls in it, the prose around them, and its reasoning. Pure.

Strategy: walk the text once from marker to marker, those of all families alike, as models lapse
into each other's markup. From an opening marker the JSON is decoded to its own end, so that closing
tags inside strings do no harm, and the closing tag is then optional. What cannot be read as a call
of a tool that was offered stays in the text: nothing is lost, and nothing is invented. Markup that
is quoted in code is no call, unless the fence holds nothing else.

Every search for a closing tag remembers where it found none, so that a text full of openings costs
no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sanic_proxy.providers.straico.coerce import coerce
from sanic_proxy.providers.straico.repair import Decoded, decode_values
from sanic_proxy.providers.straico.tools import Tool, ToolCall, compact

_LEADING_THOUGHT = re.compile(r"\s*<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)", re.DOTALL)
_BLANK = re.compile(r"\s*")
_FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n?")
_EMPTY_FENCE = re.compile(r"```[A-Za-z0-9_+-]*\s*```")
_CALL_FENCES = frozenset({"json", "xml", "tool_call", "tool_calls", "tool_code"})
_FENCE_LINE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*$", re.MULTILINE)
_BRACKETS = re.compile(r"[\s}\]]*")
# A call begins here, readable or not: JSON, or a name with its first pair.
_ATTEMPT = re.compile(r"[\s`\\]*(?:(?:json)?\s*[\[{]|[^\s<>{}`\"']{1,200}\s*<arg_key>)")

_MARKER = re.compile(
    r"(?P<fence>`{3,}|^[ \t]*~{3,})"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<thought><think(?:ing)?>)"
    r"|(?P<orphan></think(?:ing)?>(?=\s*(?:\n|<|\Z)))"
    r"|(?P<wrapper><tool_calls>|<(?:antml:)?function_calls>|<minimax:tool_call>"
    r"|<\|tool_calls_section_begin\|>|<｜tool▁calls▁begin｜>)"
    r"|(?P<block><tool_call(?:\s[^<>]{0,200})?>)"
    r"|(?P<function><function=)"
    r"|(?P<invoke><(?:antml:)?invoke\s+name=)"
    r"|(?P<kimi><\|tool_call_begin\|>)"
    r"|(?P<deepseek><｜tool▁call▁begin｜>)"
    r"|(?P<mistral>\[TOOL_CALLS\])"
    r"|(?P<llama><\|python_tag\|>)",
    re.MULTILINE,
)
_CLOSERS = re.compile(
    r"\s*(?:</tool_calls>|</(?:antml:)?function_calls>|</minimax:tool_call>|<\|tool_calls_section_end\|>"
    r"|<｜tool▁calls▁end｜>)"
)
# A model's answer has a few calls; past these bounds a text is not searched any further.
_MAX_FAILURES = 1000
_MAX_CLOSERS = 20_000
_CALL_KINDS = frozenset({"wrapper", "block", "function", "invoke", "kimi", "deepseek", "mistral", "llama"})


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model's text comes to. `content` is None where calls are all there is."""

    content: str | None
    calls: tuple[ToolCall, ...]
    reasoning: str | None


class _Found(NamedTuple):
    """Calls read, the text position after them, and what of their markup could not be read."""

    calls: list[ToolCall]
    end: int
    unread: str = ""


def without_thought(text: str) -> tuple[str, str | None]:
    """The text after a leading `<think>` block, and the block. One that never ends takes it all."""
    match = _LEADING_THOUGHT.match(text)
    if match is None:
        return text, None
    return text[match.end() :].lstrip("\n"), match[1].strip() or None


def read(text: str, *, tools: Sequence[Tool], is_truncated: bool) -> Reading:
    """Find the calls. With `is_truncated` a call that the text's end cuts is not completed."""
    rest, reasoning = without_thought(text)
    reader = _Reader(rest, {tool.name: tool for tool in tools}, is_truncated=is_truncated)
    try:
        calls, prose = reader.walk()
    except RecursionError:
        # A value can be just shallow enough to be decoded and too deep to be written again.
        return Reading(rest, (), reasoning)
    reasoning = reasoning or reader.thought
    if not calls and not reader.saw_empty:
        return Reading(reader.untouched(), (), reasoning)
    content = _joined(prose)
    return Reading(content or (None if calls else ""), tuple(calls), reasoning)


def _joined(parts: list[str]) -> str:
    texts = [_EMPTY_FENCE.sub("", part).strip() for part in parts]
    return _EMPTY_FENCE.sub("", "\n\n".join(text for text in texts if text)).strip()


class _Reader:
    """One walk over one text."""

    def __init__(self, text: str, tools: Mapping[str, Tool], *, is_truncated: bool) -> None:
        self.text = text
        self.tools = tools
        self.is_truncated = is_truncated
        self.saw_empty = False
        self._next: dict[str, tuple[int, int]] = {}
        self.thought: str | None = None
        self._answer_start = 0
        self._failures_left = _MAX_FAILURES
        self._closers_left = _MAX_CLOSERS
        self._readers: Mapping[str, Callable[[re.Match[str]], _Found | None]] = {
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

    def walk(self) -> tuple[list[ToolCall], list[str]]:
        """The calls in order, and the prose between them."""
        whole = self._bare_json(0, len(self.text.rstrip()))
        if whole is not None:
            return whole.calls, [whole.unread]
        calls: list[ToolCall] = []
        prose: list[str] = []
        kept_to = position = 0
        while match := _MARKER.search(self.text, position):
            if match.lastgroup == "orphan" and self.thought is None:
                # Some models leave out the opening tag: all before the closing one was thought.
                self.thought = self.text[: match.start()].strip() or None
                calls, prose = [], []
                kept_to = position = self._answer_start = self._skip_blank(match.end())
                continue
            reader = self._readers.get(match.lastgroup or "")
            found = reader(match) if reader else None
            if found is None:
                position = self._after_unread(match)
                self._failures_left -= reader is not None
                if self._failures_left < 0:
                    break
                continue
            calls += found.calls
            prose += [self.text[kept_to : match.start()], found.unread]
            kept_to = position = found.end
        return calls, [*prose, self.text[kept_to:]]

    def untouched(self) -> str:
        """The text as it came, less the thought before an orphaned closing tag."""
        return self.text[self._answer_start :]

    def _after_unread(self, match: re.Match[str]) -> int:
        """Where to look on after a marker that is no call: past all that belongs to it.

        What stands inside code, a thought, or a call that cannot be read is never a call itself.
        """
        if match.lastgroup == "fence":
            return self._after_fence(match)
        if match.lastgroup == "thought":
            close = self._find("</think", match.end())
            return self._after_open_thought(match) if close < 0 else close + len("</think")
        if match.lastgroup not in _CALL_KINDS or not self._is_attempt(match):
            return match.end()
        return self._after_attempt(match)

    def _after_open_thought(self, match: re.Match[str]) -> int:
        """A thought that begins a line and never ends holds the rest; in a line it is a mere word."""
        before = self.text[max(0, match.start() - 40) : match.start()].rstrip(" \t")
        return match.end() if before and not before.endswith("\n") else len(self.text)

    def _is_attempt(self, match: re.Match[str]) -> bool:
        if match.lastgroup in {"wrapper", "block", "mistral", "llama"}:
            name = _GLM_NAME.match(self.text, self._skip_blank(match.end()))
            is_named = match.lastgroup == "block" and name is not None and self._tool(name[0]) is not None
            return is_named or _ATTEMPT.match(self.text, match.end()) is not None
        return True

    def _after_attempt(self, match: re.Match[str]) -> int:
        closer = _END_OF_KIND.get(match.lastgroup or "") or _closer_of(match[0].split()[0].rstrip(">") + ">")
        close = self._find(closer, match.end())
        end = close + len(closer) if close >= 0 else len(self.text)
        # The closing tag may be missing: another call that starts a line is one of its own.
        again = self._find("\n" + match[0], match.end())
        return min(end, again) if again >= 0 else end

    def _after_fence(self, match: re.Match[str]) -> int:
        """Past the closing fence. One that never closes holds the rest, unless it is bare: a stray."""
        mark = match[0].strip()
        line = self.text[match.end() : self._line_end(match.end())]
        if mark in line:
            return match.end() + line.index(mark) + len(mark)
        close = self._closing_fence(mark, match.end())
        return close.end() if close else len(self.text) if line.strip() else match.end()

    def _closing_fence(self, mark: str, start: int) -> re.Match[str] | None:
        lines = _FENCE_LINE.finditer(self.text, self._line_end(start))
        return next((line for line in lines if line[1].startswith(mark)), None)

    def _line_end(self, start: int) -> int:
        end = self._find("\n", start)
        return end if end >= 0 else len(self.text)

    def _find(self, mark: str, start: int) -> int:
        """`text.find`, remembering from where the last search ran and where it ended."""
        searched_from, found = self._next.get(mark, (len(self.text), -1))
        if start < searched_from:
            nearer = self.text.find(mark, start, searched_from + len(mark) - 1)
            found = nearer if nearer >= 0 else found
        elif 0 <= found < start:
            found = self.text.find(mark, start)
        self._next[mark] = (start, found)
        return found

    def _skip_blank(self, position: int) -> int:
        match = _BLANK.match(self.text, position)
        return match.end() if match else position

    def _skip(self, mark: str, position: int) -> int:
        """After an optional closing mark and the blanks before it."""
        after = self._skip_blank(position)
        return after + len(mark) if self.text.startswith(mark, after) else position

    # Whole blocks

    def _wrapper(self, match: re.Match[str]) -> _Found | None:
        """`<tool_calls>` and its like: JSON inside, or single calls of any kind."""
        closer = _closer_of(match[0])
        start = self._skip_blank(match.end())
        if self.text.startswith(("[", "{", "`", '"', "\\"), start):
            return self._json(start, closer)
        calls: list[ToolCall] = []
        position = start
        while (inner := _MARKER.match(self.text, position)) and inner.lastgroup in _CALL_KINDS - {"wrapper"}:
            found = self._readers[inner.lastgroup or ""](inner)
            if found is None or found.unread:
                break
            calls += found.calls
            position = self._skip_blank(found.end)
        closing = _CLOSERS.match(self.text, position)
        return _Found(calls, closing.end() if closing else position) if calls else None

    def _block(self, match: re.Match[str]) -> _Found | None:
        """`<tool_call>`: JSON (Qwen), `<function=` (Qwen Coder), or a name and pairs (GLM)."""
        start = self._skip_blank(match.end())
        if self.text.startswith(("{", "[", "`", "\\"), start):
            return self._json(start, "</tool_call>")
        inner = _MARKER.match(self.text, start)
        if inner is not None and inner.lastgroup in {"function", "invoke"}:
            found = self._readers[inner.lastgroup](inner)
            return found and _Found(found.calls, self._skip("</tool_call>", found.end))
        return self._glm(start)

    def _fence(self, match: re.Match[str]) -> _Found | None:
        """A fence that holds a call and nothing else."""
        opening = _FENCE.match(self.text, match.start())
        if opening is None or (opening[1] and opening[1].lower() not in _CALL_FENCES):
            return None
        calls: list[ToolCall] = []
        position = opening.end()
        while (found := self._fenced(position)) is not None and not found.unread:
            calls += found.calls
            position = found.end
        end = self._skip("```", position)
        # Without a language a fence is a quotation, unless it is where the answer ends.
        is_last = self._skip_blank(end) == len(self.text)
        if not calls or end == position or not (opening[1] or is_last):
            return None
        return _Found(calls, end)

    def _fenced(self, position: int) -> _Found | None:
        start = self._skip_blank(position)
        if self.text.startswith(("{", "["), start):
            return self._bare_json(start, None)
        inner = _MARKER.match(self.text, start)
        kind = inner.lastgroup if inner else None
        return self._readers[kind](inner) if inner and kind in _CALL_KINDS else None

    def _bare_json(self, start: int, must_end: int | None) -> _Found | None:
        """JSON without any marker: only if all of it is calls of tools that were offered."""
        begin = self._skip_blank(start)
        if not self.text.startswith(("{", "["), begin):
            return None
        decoded = decode_values(self.text, begin, may_repair=False)
        if decoded is None:
            close = self._find("```", begin) if must_end is None else must_end
            mended = decode_values(self.text[begin:close], 0, may_repair=True) if close >= 0 else None
            decoded = mended and mended._replace(end=close)
        if decoded is None or (must_end is not None and decoded.end != must_end):
            return None
        found = self._calls_in(decoded, is_tagged=False)
        return found if found.calls and not found.unread else None

    def _json(self, start: int, closer: str) -> _Found | None:
        """JSON after a marker, with fence or without, up to an optional closing tag."""
        fence = _FENCE.match(self.text, start)
        begin = self._skip_blank(fence.end()) if fence else start
        decoded = decode_values(self.text, begin, may_repair=False)
        if decoded is None:
            decoded = self._mended(begin, closer)
            if decoded is None:
                return None
        end = self._skip("```", decoded.end) if fence else decoded.end
        brackets = _BRACKETS.match(self.text, end)
        if brackets and self.text.startswith(closer, brackets.end()):
            end = brackets.end()
        found = self._calls_in(decoded)
        if not found.calls and found.unread:
            return None
        self.saw_empty = self.saw_empty or not found.calls
        return found._replace(end=self._skip(closer, end))

    def _mended(self, begin: int, closer: str) -> Decoded | None:
        """Damaged JSON, up to the closing tag; up to the next one where the first is in a string."""
        close = self._find(closer, begin)
        if close < 0 and self.is_truncated:
            return None
        decoded = decode_values(self._until(begin, close), 0, may_repair=True, is_closed=close >= 0)
        if close >= 0 and (decoded is None or decoded.unread):
            later = self._find(closer, close + 1)
            longer = (
                decode_values(self.text[begin:later], 0, may_repair=True, is_closed=True)
                if later >= 0
                else None
            )
            if longer is not None and not longer.unread:
                return longer._replace(end=later)
        if decoded is None:
            return None
        return decoded._replace(end=close if close >= 0 else begin + decoded.end)

    def _until(self, begin: int, close: int) -> str:
        """The text to be repaired: up to the closing tag, or to the next marker."""
        if close >= 0:
            return self.text[begin:close]
        following = _MARKER.search(self.text, begin)
        return self.text[begin : following.start() if following else None]

    # Single calls

    def _glm(self, start: int) -> _Found | None:
        """`NAME`, then `<arg_key>`/`<arg_value>` pairs or one JSON object, each on a line or not."""
        name = _GLM_NAME.match(self.text, start)
        tool = self._tool(name[0]) if name else None
        if name is None or tool is None:
            return None
        position = self._skip_blank(name.end())
        if self.text.startswith("{", position):
            return self._named_json(tool, position, "</tool_call>")
        arguments: dict[str, Any] = {}
        while key := _GLM_KEY.match(self.text, position):
            value = self._value(key.end(), "</arg_value>", ("<arg_key>", "</tool_call>"))
            if value is None:
                return None
            arguments[key[1].strip()] = self._typed(tool, key[1].strip(), _unpadded(value[0]))
            position = self._skip_blank(value[1])
        return self._closed(tool, arguments, position, "</tool_call>")

    def _function(self, match: re.Match[str]) -> _Found | None:
        """Qwen Coder: `<function=NAME><parameter=KEY>VALUE</parameter></function>`."""
        return self._elements(match.end(), _QWEN_NAME, _QWEN_KEY, ("<parameter=", "</function>"))

    def _invoke(self, match: re.Match[str]) -> _Found | None:
        """Claude: `<invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>`."""
        prefix = "antml:" if "antml:" in match[0] else ""
        followers = (f"<{prefix}parameter", f"</{prefix}invoke>", "</parameter_list>")
        return self._elements(match.end(), _CLAUDE_NAME, _CLAUDE_KEY, followers)

    def _elements(
        self, start: int, names: re.Pattern[str], keys: re.Pattern[str], followers: tuple[str, ...]
    ) -> _Found | None:
        name = names.match(self.text, start)
        tool = self._tool(name[1]) if name else None
        if name is None or tool is None:
            return None
        closer = followers[1]
        value_end = _PREFIXED_END if "antml:" in closer else "</parameter>"
        arguments: dict[str, Any] = {}
        position = self._skip_list(name.end())
        while key := keys.match(self.text, position):
            value = self._value(key.end(), value_end, followers)
            if value is None:
                return None
            text = _UNFRAMED.sub("", value[0]) if keys is _QWEN_KEY else _unpadded(value[0])
            arguments[key[1]] = self._typed(tool, key[1], text)
            position = self._skip_list(value[1])
        return self._closed(tool, arguments, position, closer)

    def _skip_list(self, position: int) -> int:
        """Past the `<parameter_list>` some models put around the parameters."""
        for mark in ("<parameter_list>", "</parameter_list>"):
            position = self._skip(mark, position)
        return self._skip_blank(position)

    def _kimi(self, match: re.Match[str]) -> _Found | None:
        """`functions.NAME:0`, the argument marker, JSON."""
        name = _KIMI_NAME.match(self.text, match.end())
        tool = self._tool(name[1]) if name else None
        if name is None or tool is None:
            return None
        return self._named_json(tool, self._skip_blank(name.end()), "<|tool_call_end|>")

    def _deepseek(self, match: re.Match[str]) -> _Found | None:
        """`function`, separator, NAME, fenced JSON; newer models: NAME, separator, JSON."""
        name = _DEEPSEEK_NAME.match(self.text, match.end())
        tool = self._tool(name[1]) if name else None
        if name is None or tool is None:
            return None
        fence = _FENCE.match(self.text, self._skip_blank(name.end()))
        start = self._skip_blank(fence.end() if fence else name.end())
        return self._named_json(tool, start, "<｜tool▁call▁end｜>")

    def _mistral(self, match: re.Match[str]) -> _Found | None:
        """An array of calls, or `NAME[ARGS]{...}` and `NAME{...}`."""
        start = self._skip_blank(match.end())
        if self.text.startswith(("[", "{"), start):
            return self._json(start, "[/TOOL_CALLS]")
        name = _MISTRAL_NAME.match(self.text, start)
        tool = self._tool(name[1]) if name else None
        if name is None or tool is None:
            return None
        return self._named_json(tool, self._skip_blank(name.end()), "[/TOOL_CALLS]")

    def _llama(self, match: re.Match[str]) -> _Found | None:
        start = self._skip_blank(match.end())
        return self._json(start, "<|eom_id|>") if self.text.startswith(("{", "["), start) else None

    def _named_json(self, tool: Tool, start: int, closer: str) -> _Found | None:
        """The arguments of a call whose name is known, as one JSON object."""
        decoded = decode_values(self.text, start, may_repair=False)
        if decoded is None:
            close = self._find(closer, start)
            if close < 0:
                return None
            decoded = decode_values(self.text[start:close], 0, may_repair=True, is_closed=True)
            if decoded is None:
                return None
            decoded = decoded._replace(end=close)
        arguments = _as_arguments(decoded.values[0])
        if arguments is None:
            return None
        end = self._skip(closer, self._skip("```", decoded.end))
        return _Found([ToolCall(tool.name, compact(arguments))], end)

    def _value(self, start: int, closer: str, followers: tuple[str, ...]) -> tuple[str, int] | None:
        """A bare value and the position after its closing tag.

        Values are not escaped, so the closing tag counts only where the markup goes on behind it.
        """
        first = close = self._find(closer, start)
        while close >= 0 and self._closers_left > 0:
            self._closers_left -= 1
            after = self._skip_blank(close + len(closer))
            if after == len(self.text) or self.text.startswith(followers, after):
                return self.text[start:close], close + len(closer)
            close = self._find(closer, close + 1)
        return (self.text[start:first], first + len(closer)) if first >= 0 else None

    def _closed(self, tool: Tool, arguments: dict[str, Any], position: int, closer: str) -> _Found | None:
        """The call, if its markup ends properly; its end tag may be missing where nothing was cut."""
        end = self._skip(closer, position)
        is_at_end = self._skip_blank(position) == len(self.text)
        if end == position and (
            self.is_truncated or not (is_at_end or _MARKER_OR_CLOSER.match(self.text, position))
        ):
            return None
        return _Found([ToolCall(tool.name, compact(arguments))], end)

    # Names and values

    def _tool(self, name: str) -> Tool | None:
        """The offered tool of that name, with or without what models put around names."""
        bare = name.strip().strip("\"'")
        for candidate in (bare, _ORDINAL.sub("", bare)):
            for prefix in ("", "functions.", "default_api.", "tools."):
                if candidate.startswith(prefix) and candidate[len(prefix) :] in self.tools:
                    return self.tools[candidate[len(prefix) :]]
        return None

    @staticmethod
    def _typed(tool: Tool, key: str, text: str) -> Any:
        properties = tool.parameters.get("properties")
        schema = properties.get(key) if isinstance(properties, dict) else None
        return coerce(text, schema, tool.parameters)

    def _calls_in(self, decoded: Decoded, *, is_tagged: bool = True) -> _Found:
        calls: list[ToolCall] = []
        unread: list[str] = [decoded.unread] if decoded.unread else []
        for value in _flat(decoded.values):
            call = self._call_of(value, is_tagged=is_tagged)
            if call is None:
                unread.append(value if isinstance(value, str) else compact(value))
            else:
                calls.append(call)
        return _Found(calls, decoded.end, "\n".join(unread))

    def _call_of(self, value: object, *, is_tagged: bool) -> ToolCall | None:
        """A call from an object in any of the shapes models write."""
        if not isinstance(value, dict):
            return None
        inner = value.get("function")
        if isinstance(inner, dict):
            return self._call_of(inner, is_tagged=is_tagged)
        name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
        tool = self._tool(name) if name is not None else None
        if tool is None:
            return None
        key = next((key for key in _ARGUMENT_KEYS if key in value), None)
        if key is None:
            # Without a key for them the arguments stand beside the name, or there are none.
            beside = {name: value[name] for name in value if name not in _CALL_KEYS}
            known = tool.parameters.get("properties")
            is_known = not beside or (isinstance(known, dict) and beside.keys() <= known.keys())
            given: object = beside if is_tagged and is_known else []
        else:
            given = [] if key == "parameters" and _is_schema(value[key], tool) else value[key]
        arguments = _as_arguments(given)
        return None if arguments is None else ToolCall(tool.name, compact(arguments))


_NAME_KEYS = ("name", "tool_name", "tool", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
_UNFRAMED = re.compile(r"\A\n|\n\Z")
_PREFIXED_END = "</antml:parameter>"
_CALL_KEYS = frozenset({*_NAME_KEYS, "id", "type", "index"})
_END_OF_KIND = {
    "block": "</tool_call>",
    "function": "</function>",
    "kimi": "<|tool_call_end|>",
    "deepseek": "<｜tool▁call▁end｜>",
    "mistral": "[/TOOL_CALLS]",
    "llama": "<|eom_id|>",
}
_ORDINAL = re.compile(r":\d+\Z")
_GLM_NAME = re.compile(r"[^\s<>{}`\"']{1,200}")
_GLM_KEY = re.compile(r"\s*<arg_key>([^<]{0,500})</arg_key>\s*<arg_value>")
_QWEN_NAME = re.compile(r"([^<>\n]{1,200})>\s*")
_QWEN_KEY = re.compile(r"\s*<parameter=([^<>\n]{1,200})>")
_CLAUDE_NAME = re.compile(r"[\"']([^\"'<>\n]{1,200})[\"']\s*>\s*")
_CLAUDE_KEY = re.compile(r"\s*<(?:antml:)?parameter\s+name=[\"']([^\"'<>\n]{1,200})[\"'][^<>\n]{0,200}>")
_KIMI_NAME = re.compile(r"\s*([^<|]{1,200}?)\s*<\|tool_call_argument_begin\|>")
_DEEPSEEK_NAME = re.compile(r"\s*(?:function<｜tool▁sep｜>)?([^<\n{]{1,200}?)\s*(?:<｜tool▁sep｜>|\n)")
_MISTRAL_NAME = re.compile(r"([\w.:-]{1,200})(?:\[CALL_ID\][\w-]{0,100})?(?:\[ARGS\])?\s*(?=\{)")
_MARKER_OR_CLOSER = re.compile(rf"\s*(?:{_MARKER.pattern}|{_CLOSERS.pattern}|</tool_call>|</)")


def _closer_of(opening: str) -> str:
    pairs = {
        "<|tool_calls_section_begin|>": "<|tool_calls_section_end|>",
        "<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>",
        "<" + "antml:invoke>": "</" + "antml:invoke>",
    }
    return pairs.get(opening, "</" + opening[1:])


def _unpadded(text: str) -> str:
    """A value without the one newline at each side that belongs to the markup: both, or none."""
    return text[1:-1] if len(text) > 1 and text[0] == "\n" and text[-1] == "\n" else text


def _is_schema(given: object, tool: Tool) -> bool:
    """Whether a tool's description is repeated, rather than the tool called."""
    return isinstance(given, dict) and given.get("type") == "object" and given == tool.parameters


def _as_arguments(value: object) -> dict[str, Any] | None:
    """Arguments as an object; a string is taken for JSON once more."""
    if isinstance(value, str):
        if not value.strip():
            return {}
        decoded = decode_values(value, 0, may_repair=True)
        value = decoded.values[0] if decoded and not decoded.unread and len(decoded.values) == 1 else None
    return value if isinstance(value, dict) else {} if value is None else None


def _flat(values: Sequence[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
            yield from value["tool_calls"]
        else:
            yield value
