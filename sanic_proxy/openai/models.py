"""Lists of models: read in the shapes that providers send, written as OpenAI's model objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sanic_proxy.config.prices import Prices
from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.json_types import Json, JsonMapping

# Where a list is found in an object: OpenAI's key, Ollama's `/api/tags`, Together's and others'.
_LISTS = ("data", "models", "result", "items")
# Where an entry has its id, by preference: in some lists `name` is a title for people.
_IDS = ("id", "model", "name")


def model_entries(parsed: Any) -> list[Json]:
    """The models in a provider's list, each with a text as its `id`, and each id once.

    A list may be bare or under one of several keys, of objects or of plain names. An empty list or null is a
    list; entries without a name are left out. Raises UpstreamBadResponse where there is no list.
    """
    entries: dict[str, Json] = {}
    for entry in _listed(parsed):
        name = _name_of(entry)
        if name is not None:
            entries.setdefault(name, {**entry, "id": name} if isinstance(entry, dict) else {"id": name})
    return list(entries.values())


def _listed(parsed: Any) -> Iterable[Any]:
    if isinstance(parsed, list):
        return parsed
    found = [parsed[key] for key in _LISTS if key in parsed] if isinstance(parsed, dict) else []
    lists = [value for value in found if isinstance(value, list) or value is None]
    if not lists:
        raise UpstreamBadResponse("The provider returned no model list")
    return next((value for value in lists if value), [])


def _name_of(entry: Any) -> str | None:
    names = [entry] if isinstance(entry, str) else []
    if isinstance(entry, dict):
        names = [entry[key] for key in _IDS if isinstance(entry.get(key), str)]
    return next((name for name in names if name.strip()), None)


def model_object(entry: JsonMapping, *, id: str, owner: str) -> Json:
    """OpenAI's model object, with the provider's further fields kept."""
    created, owned_by = entry.get("created"), entry.get("owned_by")
    is_number = isinstance(created, int | float) and not isinstance(created, bool)
    return {
        **entry,
        "id": id,
        "object": "model",
        "created": int(created) if is_number and created is not None else 0,
        "owned_by": owned_by if isinstance(owned_by, str) else owner,
    }


def description(context_window: int | None, prices: Prices | None) -> Json:
    """The fields of a model object for what is known of a model.

    OpenAI's object has none for it. Clients read `context_length` and `pricing`, in US dollars per token as
    text, as OpenRouter's list has them (openrouter.ai/docs/api-reference/list-available-models).
    """
    described: Json = {}
    if context_window is not None:
        described |= {"context_window": context_window, "context_length": context_window}
    if prices is not None:
        named = {
            "prompt": prices.input,
            "completion": prices.output,
            "input_cache_read": prices.cached_input,
        }
        described["pricing"] = {name: _per_token(price) for name, price in named.items() if price is not None}
    return described


def _per_token(per_million: float) -> str:
    return f"{per_million / 1e6:.12f}".rstrip("0").rstrip(".")
