"""A request on its way to a provider that speaks Gemini's API itself. Pure.

It passes as it is, but for signatures that the proxy made of another provider's reasoning (`thoughts`): the
provider would refuse them.
"""

from __future__ import annotations

from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.translation.gemini.thoughts import SKIPPED_SIGNATURE, is_marked
from sanic_proxy.translation.signatures import without_foreign


def with_own_signatures(fields: JsonMapping) -> JsonMapping:
    """`fields` without signatures of ours; `fields` itself where there are none.

    A call keeps the mark of one that is another model's, and a text without characters, which was there for
    its signature, is removed. Values that are not of the types of the API are left for the provider to judge.
    """
    contents = fields.get("contents")
    if not isinstance(contents, list):
        return fields
    own = without_foreign(contents, _cleaned)
    return fields if own is contents else {**fields, "contents": own}


def _cleaned(content: Any) -> Any:
    """The content, itself where nothing has to change; None for one that has lost all of its parts."""
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return content
    kept = without_foreign(parts, _part)
    if kept is parts:
        return content
    return {**content, "parts": kept} if kept else None


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    names = [name for name in ("thoughtSignature", "thought_signature") if is_marked(part.get(name))]
    if not names:
        return part
    rest = {name: value for name, value in part.items() if name not in names}
    if "functionCall" in rest or "function_call" in rest:
        return {**rest, "thoughtSignature": SKIPPED_SIGNATURE}
    return None if rest == {"text": ""} else rest
