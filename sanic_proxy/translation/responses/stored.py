"""Stored responses as their API shows them: the items of an input, pages of them, queued ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.responses import response_object
from sanic_proxy.state_store.responses import ItemPage, PageOptions, StoredItem, item_id

MAX_PAGE = 100
_DEFAULT_PAGE = 20
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}
# A pair of surrogates, a lone one (group 1), or any other escape.
_ESCAPE = re.compile(rb"\\ud[89ab]..\\ud[c-f]..|(\\ud[89a-f]..)|\\.")
_ROLES = frozenset({"user", "system", "developer"})


def as_items(value: object) -> list[Any]:
    """The `input` of a request as a list of items."""
    if isinstance(value, list):
        return value
    return [{"type": "message", "role": "user", "content": value}] if isinstance(value, str) else []


def continued(fields: JsonMapping, before: Sequence[bytes]) -> bytes:
    """The body of a request whose input is preceded by the items `before`, which are pieces of JSON.

    Nothing else of a previous response is carried over: not its instructions, nor its tools.
    """
    rest = {name: value for name, value in fields.items() if name not in {"input", "previous_response_id"}}
    own = codec.dumps(as_items(fields.get("input")))[1:-1]
    return codec.dumps(rest)[:-1] + b',"input":[' + b",".join([*before, own] if own else before) + b"]}"


def reference_ids(items: object) -> list[str]:
    """The ids of the stored items that an input refers to."""
    if not isinstance(items, list):
        return []
    return [item["id"] for item in items if _is_reference(item)]


def _is_reference(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "role" not in item)


def with_items(fields: JsonMapping, items: Mapping[str, bytes]) -> bytes:
    """The body of a request with the items of those ids, as JSON, in place of references to them."""
    rest = {name: value for name, value in fields.items() if name != "input"}
    pieces = [
        items[item["id"]] if _is_reference(item) and items.get(item["id"]) else codec.dumps(item)
        for item in fields["input"]
    ]
    return codec.dumps(rest)[:-1] + b',"input":[' + b",".join(pieces) + b"]}"


def without_lone_surrogates(body: bytes) -> bytes:
    """JSON of `codec.dumps` with U+FFFD for each lone surrogate, of a text that was cut within an emoji.

    A stored answer becomes part of a request, and requests are parsed strictly.
    """
    if b"\\ud" not in body:
        return body
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], body)


def portable(output: Sequence[Any]) -> list[Any]:
    """The items of an output that can be sent to any provider: a reference to what one stores cannot."""
    return [
        item
        for item in output
        if not (
            isinstance(item, dict) and item.get("type") == "reasoning" and not item.get("encrypted_content")
        )
    ]


def whole_item(stored: StoredItem) -> Json:
    """An item with all keys that a listed one has: requests may leave most of them out."""
    item = codec.loads_tolerant(stored.body)
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    id_ = item.get("id") or item_id(_PREFIXES.get(kind, "item"), stored.response_id, stored.number)
    whole: Json = {**item, "id": id_, "type": kind}
    if kind != "message":
        return whole
    content = item.get("content")
    is_input = item.get("role") in _ROLES
    if isinstance(content, str):
        text: Json = {"type": "input_text" if is_input else "output_text", "text": content}
        content = [text if is_input else {**text, "annotations": [], "logprobs": []}]
    return {**whole, "content": content or [], "status": item.get("status") or "completed"}


def page_options(query: Mapping[str, str]) -> PageOptions:
    """What `limit`, `order` and `after` of a query ask for. Raises InvalidRequest."""
    text = query.get("limit", str(_DEFAULT_PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PAGE)) else 0
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"The parameter `limit` must be from 1 to {MAX_PAGE}", param="limit")
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidRequest("The parameter `order` must be `asc` or `desc`", param="order")
    return PageOptions(limit, order == "desc", query.get("after"))


def listed(page: ItemPage) -> Json:
    """A page of items as its API shows it."""
    data = [whole_item(item) for item in page.items]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.has_more,
    }


def queued(id_: str, model: str, repeated: JsonMapping) -> Json:
    """A response that waits for its turn."""
    return {**response_object(id_, model, chunks.now(), repeated), "status": "queued"}
