"""The markup in which model families write tool calls, as regular expressions.

    family          markup of a call
    (most)          <tool_calls>[{"name": N, "arguments": {...}}, ...]</tool_calls>
    Qwen            <tool_call>{"name": N, "arguments": {...}}</tool_call>
    Qwen Coder      <function=N><parameter=K>V</parameter></function>
    GLM             <tool_call>N<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>
    Kimi            <|tool_call_begin|>functions.N:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
    DeepSeek        <｜tool▁call▁begin｜>function<｜tool▁sep｜>N, fenced JSON, <｜tool▁call▁end｜>
    Mistral         [TOOL_CALLS][{"name": N, "arguments": {...}}] or [TOOL_CALLS]N[ARGS]{...}
    Llama           <|python_tag|>{"name": N, "parameters": {...}}
    Claude, MiniMax <invoke name="N"><parameter name="K">V</parameter></invoke>

Every repetition is bounded, possessive, or cannot match what follows it, so that no pattern backtracks: the
cost is linear in the length of the text.
"""

from __future__ import annotations

import re

LEADING_THINKING = re.compile(r"\s*+<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)", re.DOTALL)
THINKING_END = re.compile(r"</think(?:ing)?>")
WHITESPACE = re.compile(r"\s*+")
FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n?")
EMPTY_FENCE = re.compile(r"```[A-Za-z0-9_+-]*\s*+```")
CALL_FENCES = frozenset({"json", "xml", "tool_call", "tool_calls", "tool_code"})
FENCE_LINE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*$", re.MULTILINE)
BRACKETS = re.compile(r"[\s}\]]*")
# The beginning of a call, valid or not: JSON, or a name with its first pair.
ATTEMPT = re.compile(r"[\s`\\]*+(?:(?:json)?\s*+[\[{]|[^\s<>{}`\"']{1,200}\s*+<arg_key>)")

MARKER = re.compile(
    r"(?P<fence>`{3,}|^[ \t]*~{3,})"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<thinking><think(?:ing)?>)"
    r"|(?P<stray_end></think(?:ing)?>(?=[ \t]*+(?:\n|\Z)|\s*+<|[^\s.,;:!?)\]}'\"`])|^[ \t]*</think(?:ing)?>)"
    r"|(?P<wrapper><tool_calls>|<(?:antml:)?function_calls>|<minimax:tool_call>"
    r"|<\|tool_calls_section_begin\|>|<｜tool▁calls▁begin｜>)"
    r"|(?P<block><tool_call(?:\s[^<>]{0,200})?>)"
    r"|(?P<function><function=)"
    r"|(?P<invoke><(?:antml:)?invoke\s++name=)"
    r"|(?P<kimi><\|tool_call_begin\|>)"
    r"|(?P<deepseek><｜tool▁call▁begin｜>)"
    r"|(?P<mistral>\[TOOL_CALLS\])"
    r"|(?P<llama><\|python_tag\|>)",
    re.MULTILINE,
)
CLOSERS = re.compile(
    r"(?:</tool_calls>|</(?:antml:)?function_calls>|</minimax:tool_call>|<\|tool_calls_section_end\|>"
    r"|<｜tool▁calls▁end｜>)"
)
CALL_KINDS = frozenset({"wrapper", "block", "function", "invoke", "kimi", "deepseek", "mistral", "llama"})
SURROUNDING_NEWLINES = re.compile(r"\A\n|\n\Z")
PREFIXED_END = "</antml:parameter>"
END_OF_KIND = {
    "block": "</tool_call>",
    "function": "</function>",
    "kimi": "<|tool_call_end|>",
    "deepseek": "<｜tool▁call▁end｜>",
    "mistral": "[/TOOL_CALLS]",
    "llama": "<|eom_id|>",
}
# The array of calls inside an object.
ARRAY_MEMBER = re.compile(r"\{\s*+\"tool_calls\"\s*+:\s*+(?=\[)")
# Another call that was cut, behind a complete one.
CUT_VALUE = re.compile(r"\s*+(?:[,;]\s*+)?(?:\{|\Z)")
# A call that was cut in its name.
CUT_NAME = re.compile(r"[\s`]*+[^\s<>{}`\"']{0,200}+\s*+")
# Tags that the token limit may cut. A prefix of one of these at the end of a truncated text is not prose.
OPENING_TAGS = (
    "<tool_call>",
    "<tool_calls>",
    "<function=",
    "<function_calls>",
    "<" + "antml:function_calls>",
    "<" + "antml:invoke name=",
    "<invoke name=",
    "<minimax:tool_call>",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
)
CLOSING_TAGS = (
    *END_OF_KIND.values(),
    "</tool_calls>",
    "</function_calls>",
    "</invoke>",
    "</" + "antml:function_calls>",
    "</" + "antml:invoke>",
    "</minimax:tool_call>",
    "<|tool_calls_section_end|>",
    "<｜tool▁calls▁end｜>",
)
GLM_NAME = re.compile(r"[^\s<>{}`\"']{1,200}")
GLM_KEY = re.compile(r"\s*+<arg_key>((?:[^<]|<(?!/?arg_)){0,500}+)</arg_key>\s*+<arg_value>")
QWEN_NAME = re.compile(r"([^<>\n]{1,200})>\s*+")
QWEN_KEY = re.compile(r"\s*+<parameter=([^<>\n]{1,200})>")
CLAUDE_NAME = re.compile(r"[\"']([^\"'<>\n]{1,200})[\"']\s*+>\s*+")
CLAUDE_KEY = re.compile(r"\s*+<(?:antml:)?parameter\s++name=[\"']([^\"'<>\n]{1,200})[\"'][^<>\n]{0,200}>")
KIMI_NAME = re.compile(r"\s*+([^<|\s]{1,200})\s*+<\|tool_call_argument_begin\|>")
DEEPSEEK_NAME = re.compile(r"\s*+(?:function<｜tool▁sep｜>)?([^<{\s]{1,200})[ \t]*+(?:<｜tool▁sep｜>|\n)")
MISTRAL_NAME = re.compile(r"([\w.:-]{1,200})(?:\[CALL_ID\][\w-]{0,100})?(?:\[ARGS\])?\s*+(?=\{)")
MARKER_OR_CLOSER = re.compile(rf"\s*+(?:{MARKER.pattern}|{CLOSERS.pattern}|</tool_call>|</)")


def closing_tag_of(opening: str) -> str:
    pairs = {
        "<|tool_calls_section_begin|>": "<|tool_calls_section_end|>",
        "<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>",
        "<" + "antml:invoke>": "</" + "antml:invoke>",
    }
    return pairs.get(opening, "</" + opening[1:])


def strip_newlines(text: str) -> str:
    """A value without the newlines of its markup: one at each end, removed only if there are both."""
    return text[1:-1] if len(text) > 1 and text[0] == "\n" and text[-1] == "\n" else text
