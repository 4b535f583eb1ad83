"""A Messages request on its way to a provider that speaks Messages itself. Pure.

Such a request passes as it is, but for reasoning in its history that the provider would refuse: a block with
a signature of another provider's, or without any, as answers of other APIs have it.
"""

from __future__ import annotations

from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.translation import signatures

_SIGNATURES = {"thinking": "signature", "redacted_thinking": "data"}


def with_own_reasoning(fields: JsonMapping, provider: str) -> JsonMapping:
    """`fields` with no reasoning that `provider` has not made; `fields` itself where nothing has to change.

    Signatures of the provider lose our mark. A message that held nothing else is removed. Values that are not
    of the types of the API are left for the provider to judge.
    """
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return fields
    own = signatures.without_foreign(messages, lambda message: _cleaned(message, provider))
    return fields if own is messages else {**fields, "messages": own}


def _cleaned(message: Any, provider: str) -> Any:
    """The message, itself where nothing has to change; None for one that has lost all of its blocks."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    kept = signatures.without_foreign(content, lambda block: _block(block, provider))
    if kept is content:
        return message
    return {**message, "content": kept} if kept else None


def _block(block: Any, provider: str) -> Any:
    kind = block.get("type") if isinstance(block, dict) else None
    name = _SIGNATURES.get(kind) if isinstance(kind, str) else None
    if name is None:
        return block
    signature = block.get(name)
    if signature is None or signature == "":
        return None
    marked = signatures.unwrapped(signature) if isinstance(signature, str) else None
    if marked is None:
        return block
    origin, value = marked
    return {**block, name: value} if origin == provider and value else None
