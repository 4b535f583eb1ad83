"""Conversations that are made shorter: `POST /v1/responses/compact` for providers that have no such endpoint.

The model of the conversation summarises it; the summary travels to the client and back as a compaction item,
whose `encrypted_content` is the text under a prefix of our own. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.signatures import unwrapped, wrapped

_ORIGIN = "compaction"
_PROMPT = (
    "Summarize this conversation so that it can be continued from the summary alone. Keep the goals and "
    "instructions of the user, decisions and their reasons, names of files, commands and identifiers as they "
    "were written, results of tools that are still needed, the state of the work, and what remains to be "
    "done. Leave out greetings and repetitions. Answer with the summary only."
)
# What of the client's request the summary is asked for with.
_KEPT = frozenset({"model", "instructions", "tools", "reasoning", "prompt_cache_key", "safety_identifier"})
_HEADING = "Summary of the conversation so far:\n\n"


def summary_of(encrypted_content: str) -> str | None:
    """The text in a compaction item of ours, for the model to read; None for anybody else's."""
    found = unwrapped(encrypted_content)
    return _HEADING + found[1] if found is not None and found[0] == _ORIGIN else None


def compaction_request(fields: JsonMapping) -> Json:
    """The request for the summary of the conversation in `fields`: its items, and the task as the last one.

    Tools stay declared, as some providers reject calls in the history of a request without them; none may
    be called.
    """
    items = fields.get("input")
    history = items if isinstance(items, list) else [{"role": "user", "content": items}] if items else []
    kept = {name: value for name, value in fields.items() if name in _KEPT}
    if kept.get("tools"):
        kept["tool_choice"] = "none"
    task = {"role": "user", "content": _PROMPT}
    return {**kept, "input": [*history, task], "stream": False, "store": False}


def compacted(response: JsonMapping) -> Json:
    """The answer of the endpoint, made of the response to `compaction_request`.

    Raises UpstreamBadResponse if the response has no text.
    """
    summary = "".join(_texts(response.get("output"))).strip()
    if not summary:
        raise errors.UpstreamBadResponse("The provider's summary of the conversation is empty")
    id_ = str(response.get("id"))
    item = {
        "id": f"cmp_{id_.removeprefix('resp_')}",
        "type": "compaction",
        "encrypted_content": wrapped(_ORIGIN, summary),
    }
    return {
        "id": id_,
        "object": "response.compaction",
        "created_at": response.get("created_at"),
        "output": [item],
        "usage": response.get("usage"),
    }


def _texts(output: object) -> Iterator[str]:
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "message":
            for part in item.get("content") or ():
                if isinstance(part, dict) and isinstance(text := part.get("text"), str):
                    yield text
