"""OpenAI's model objects -> those of Gemini's list of models. Pure.

https://ai.google.dev/api/models
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sanic_proxy.json_types import Json, JsonMapping

DEFAULT_SIZE, MAX_SIZE = 50, 1000
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")
_LIMITS = {"inputTokenLimit": "max_input_tokens", "outputTokenLimit": "max_tokens"}


def model_info(entry: JsonMapping) -> Json:
    """Gemini's object for one model. Limits are there where the provider states them."""
    name = entry.get("display_name") or entry.get("name")
    limits = {
        ours: limit
        for ours, theirs in _LIMITS.items()
        if isinstance(limit := entry.get(theirs), int) and not isinstance(limit, bool)
    }
    return {
        "name": f"models/{entry['id']}",
        "version": "",
        "displayName": name if isinstance(name, str) else entry["id"],
        **limits,
        "supportedGenerationMethods": list(_METHODS),
    }


def page_of(entries: Sequence[JsonMapping], query: Mapping[str, Sequence[str]]) -> Json:
    """One page of the list, by the query's `pageSize` and `pageToken`. Odd values are ignored."""
    first = _number(query, "pageToken", 0)
    last = first + min(max(_number(query, "pageSize", DEFAULT_SIZE), 1), MAX_SIZE)
    page: Json = {"models": [model_info(entry) for entry in entries[first:last]]}
    if last < len(entries):
        page["nextPageToken"] = str(last)
    return page


def _number(query: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    values = query.get(name) or ("",)
    text = values if isinstance(values, str) else values[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else default
