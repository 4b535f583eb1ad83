"""OpenAI's model objects -> those of Anthropic's list of models. Pure.

https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sanic_proxy.json_types import Json, JsonMapping

DEFAULT_LIMIT, MAX_LIMIT = 20, 1000
_LAST_S = 253402300799  # the end of the year 9999


# What only some providers say of a model, and what is said where they do not.
_DEFAULTS: JsonMapping = {
    "capabilities": None,
    "deprecated_at": None,
    "lifecycle": "active",
    "line": None,
    "max_input_tokens": None,
    "max_tokens": None,
    "retires_at": None,
}


def model_info(entry: JsonMapping) -> Json:
    """Anthropic's object for one model. An unknown time of its release is the epoch, as Anthropic has it."""
    name = entry.get("display_name") or entry.get("name")
    released = entry.get("created_at")
    if not isinstance(released, str):
        seconds = min(max(entry["created"], 0), _LAST_S)
        released = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": entry["id"],
        "display_name": name if isinstance(name, str) else entry["id"],
        "created_at": released,
        **{field: entry.get(field, default) for field, default in _DEFAULTS.items()},
    }


def page_of(entries: Sequence[JsonMapping], query: Mapping[str, Sequence[str]]) -> Json:
    """One page of the list, by the query's `limit`, `after_id` and `before_id`. Odd values are ignored."""
    ids = [entry["id"] for entry in entries]
    first, last = 0, len(ids)
    if (after := _one(query, "after_id")) in ids:
        first = ids.index(after) + 1
    if (before := _one(query, "before_id")) in ids:
        last = ids.index(before)
    limit = _limit(_one(query, "limit"))
    rest = entries[first:last]
    is_backwards = before in ids and after not in ids
    page = rest[-limit:] if is_backwards else rest[:limit]
    return {
        "data": [model_info(entry) for entry in page],
        "has_more": len(page) < len(rest),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _one(query: Mapping[str, Sequence[str]], name: str) -> str:
    values = query.get(name) or ("",)
    return values[0] if not isinstance(values, str) else values


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else DEFAULT_LIMIT
    return min(max(limit, 1), MAX_LIMIT)
