"""Invalid and unusual bodies, made of the names and values of real ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

WORDS = st.sampled_from(
    [
        *("system", "user", "assistant", "tool", "function", "text", "image_url", "json_schema", "ls", ""),
        *("none", "auto", "required", "allowed_tools", "object", "string", "integer", "array", "#", "#/a"),
        *("https://a/b", "data:image/png;base64,YQ==", "json_object", "length", "stop"),
    ]
)
KEYS = st.sampled_from(
    [
        *("messages", "role", "content", "type", "text", "tool_calls", "tool_call_id", "function", "name"),
        *("arguments", "tools", "tool_choice", "functions", "function_call", "parameters", "description"),
        *("parallel_tool_calls", "n", "stop", "temperature", "max_tokens", "response_format", "json_schema"),
        *("schema", "properties", "enum", "anyOf", "$ref", "choices", "message", "finish_reason", "usage"),
        *("prompt_tokens", "data", "completion", "completions", "error", "success", "price", "words"),
        *("overall_words", "reasoning", "delta", "strict", "id", "image_url", "url", "allowed_tools", "mode"),
        *("items", "pattern", "required", "refusal", "modalities"),
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)
TURNS = st.fixed_dictionaries({"role": WORDS | VALUES}, optional={"content": VALUES, "tool_calls": VALUES})
CONVERSATIONS = st.lists(TURNS, max_size=4)
# Any JSON at all, with numbers past 64 bits.
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
