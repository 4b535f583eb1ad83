"""Reasoning in chats, which OpenAI's API does not have. Pure.

*Providers* send it as text under one of three names (`TEXT_FIELDS`), or as OpenRouter's `reasoning_details`:
a list of objects of the types `reasoning.text`, `reasoning.summary` and `reasoning.encrypted`, with a
signature or encrypted data. Some demand it back with the history: DeepSeek refuses a request whose message
with calls comes without its `reasoning_content`. So the middle shape gets a signature for all of them that
says how to write it back: the name of the text's field, or the JSON of the detail without its text. It is
returned to the provider that made it, and to no other. Thoughts in Mistral's content parts have no signature:
they are not returned.

*Clients* get the text as `reasoning_content`, which most libraries know, and `reasoning_details` with the
signature of each piece where it has one, wrapped with its origin (`signatures.py`). A client that returns the
message as it was returns them too. A detail stands in one delta, whole, with an `index`: openai-python's
accumulation then keeps it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import Reasoning
from sanic_proxy.translation.signatures import unwrapped, wrapped

TEXT_FIELDS = ("reasoning_content", "reasoning", "reasoning_text")
_TEXT, _SUMMARY, _ENCRYPTED = "reasoning.text", "reasoning.summary", "reasoning.encrypted"


def named_text(message: JsonMapping) -> tuple[str, str]:
    """The name and the text of the reasoning of a message or delta, both empty if it has none."""
    for name in TEXT_FIELDS:
        if isinstance(text := message.get(name), str) and text:
            return name, text
    return "", ""


def details_of(message: JsonMapping) -> Iterator[JsonMapping]:
    details = message.get("reasoning_details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("type"), str):
            yield detail


def of_provider(message: JsonMapping) -> list[Reasoning]:
    """The reasoning in a provider's message, with signatures as described above, and without an origin."""
    parts = [of_detail(detail) for detail in details_of(message)]
    return _with_named(parts, message, is_signed=True)


def of_client(message: JsonMapping) -> list[Reasoning]:
    """The reasoning in an assistant message of a client's history."""
    parts = [_of_client_detail(detail) for detail in details_of(message)]
    return _with_named(parts, message, is_signed=False)


def _with_named(parts: list[Reasoning], message: JsonMapping, *, is_signed: bool) -> list[Reasoning]:
    """`parts`, and the text that stands beside the details unless they have it as well."""
    name, text = named_text(message)
    if text and not any(part.text for part in parts):
        parts.insert(0, Reasoning(text, signature=name if is_signed else ""))
    return parts


def of_detail(detail: JsonMapping) -> Reasoning:
    text, rest = split(detail)
    kind = detail.get("type")
    return Reasoning(text, signature_of(rest), is_redacted=kind == _ENCRYPTED, is_summary=kind == _SUMMARY)


def signature_of(rest: JsonMapping) -> str:
    """The signature of a detail, whose fields beside the text are `rest`."""
    return codec.dumps(rest).decode("utf-8", "surrogatepass")


def split(detail: JsonMapping) -> tuple[str, Json]:
    """The text of a detail, and its other fields."""
    text = detail.get("summary" if detail.get("type") == _SUMMARY else "text")
    rest = {
        key: value for key, value in detail.items() if key not in {"text", "summary"} and value is not None
    }
    return text if isinstance(text, str) else "", rest


def _of_client_detail(detail: JsonMapping) -> Reasoning:
    part = of_detail(detail)
    mark = detail.get("data" if part.is_redacted else "signature")
    found = unwrapped(mark) if isinstance(mark, str) else None
    if found is not None:
        part.origin, part.signature = found
    if isinstance(identity := detail.get("id"), str):
        part.id = identity
    return part


def client_detail(part: Reasoning, index: int) -> Json | None:
    """The detail number `index` of a message for a client; None for reasoning that nobody needs back."""
    if not part.signature or not part.origin:
        return None
    signature = wrapped(part.origin, part.signature)
    identity = {} if part.id is None else {"id": part.id}
    if part.is_redacted:
        return {"type": _ENCRYPTED, "index": index, "data": signature, **identity}
    kind, name = (_SUMMARY, "summary") if part.is_summary else (_TEXT, "text")
    return {"type": kind, "index": index, name: part.text, "signature": signature, **identity}


def returned(parts: Iterable[Reasoning]) -> Json:
    """The fields of a message that return `parts` to the provider which made them."""
    fields: Json = {}
    for part in parts:
        detail = codec.loads_tolerant(part.signature.encode("utf-8", "surrogatepass"))
        if isinstance(detail, dict):
            name = "summary" if part.is_summary else "text"
            fields.setdefault("reasoning_details", []).append(
                {**detail, name: part.text} if part.text else detail
            )
        elif part.text:
            name = part.signature if part.signature in TEXT_FIELDS else TEXT_FIELDS[0]
            fields[name] = fields.get(name, "") + part.text
    return fields
