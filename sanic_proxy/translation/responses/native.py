"""A Responses request on its way to a provider that speaks Responses itself. Pure.

Such a request passes as it is, but for items that the proxy made from answers of other providers and that
the provider would refuse: reasoning with a signature of ours, and compactions.
"""

from __future__ import annotations

from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.translation.responses.compaction import summary_of
from sanic_proxy.translation.signatures import PREFIX, unwrapped, without_foreign


def with_own_items(fields: JsonMapping, provider: str) -> JsonMapping:
    """`fields` as `provider` takes them; `fields` itself where nothing has to change.

    Reasoning of the provider loses our mark, that of others is removed. A compaction of ours becomes a
    message with its summary. Values that are not of the types of the API are left for the provider to judge.
    """
    items = fields.get("input")
    if not isinstance(items, list):
        return fields
    own = without_foreign(items, lambda item: _own(item, provider))
    return fields if own is items else {**fields, "input": own}


def may_need_change(body: bytes) -> bool:
    """Whether the body of a request can hold such an item: a search that spares most requests the rest."""
    return PREFIX.encode() in body


def _own(item: Any, provider: str) -> Any:
    """The item, itself where nothing has to change; None for one that the provider must not get."""
    encrypted = item.get("encrypted_content") if isinstance(item, dict) else None
    if not isinstance(encrypted, str) or (marked := unwrapped(encrypted)) is None:
        return item
    if item.get("type") == "compaction":
        summary = summary_of(encrypted)
        return item if summary is None else {"type": "message", "role": "user", "content": summary}
    origin, value = marked
    return {**item, "encrypted_content": value} if origin == provider and value else None
