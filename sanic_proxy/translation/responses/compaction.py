"""Conversations that are made shorter: `POST /v1/responses/compact` for providers that have no such endpoint.

The model of the conversation summarises it; the summary travels to the client and back as a compaction item,
whose `encrypted_content` is the text under a prefix of our own. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sanic_proxy import errors
from sanic_proxy.translation.conversation import Answer, Conversation, Text, ToolChoice, Turn
from sanic_proxy.translation.signatures import unwrapped, wrapped

Json = dict[str, Any]

_ORIGIN = "compaction"
_PROMPT = (
    "Summarize this conversation so that it can be continued from the summary alone. Keep the goals and "
    "instructions of the user, decisions and their reasons, names of files, commands and identifiers as they "
    "were written, results of tools that are still needed, the state of the work, and what remains to be "
    "done. Leave out greetings and repetitions. Answer with the summary only."
)
_HEADING = "Summary of the conversation so far:\n\n"


def summary_of(encrypted_content: str) -> str | None:
    """The text in a compaction item of ours, for the model to read; None for anybody else's."""
    found = unwrapped(encrypted_content)
    return _HEADING + found[1] if found is not None and found[0] == _ORIGIN else None


def compaction_request(conversation: Conversation) -> Conversation:
    """The request for the summary of a conversation: its turns, and the task as the last one.

    Tools stay declared, as some providers reject calls in the history of a request without them; none may
    be called.
    """
    return replace(
        conversation,
        turns=[*conversation.turns, Turn("user", [Text(_PROMPT)])],
        is_streaming=False,
        tool_choice=ToolChoice("none") if conversation.tools else None,
        output=None,
        stop=[],
    )


def compacted(answer: Answer, usage: Json, id_: str) -> Json:
    """The answer of the endpoint, made of the answer to `compaction_request`.

    `usage` is that of the answer in the form of Responses, `id_` the id of the compaction. Raises
    UpstreamBadResponse if the answer has no text.
    """
    summary = "".join(part.text for part in answer.parts if isinstance(part, Text)).strip()
    if not summary:
        raise errors.UpstreamBadResponse("The provider's summary of the conversation is empty")
    item = {
        "id": f"cmp_{id_.removeprefix('resp_')}",
        "type": "compaction",
        "encrypted_content": wrapped(_ORIGIN, summary),
    }
    return {
        "id": id_,
        "object": "response.compaction",
        "created_at": answer.created,
        "output": [item],
        "usage": usage,
    }


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether `item` is a compaction item that `compacted` made."""
    content = item.get("encrypted_content")
    return item.get("type") == "compaction" and isinstance(content, str) and summary_of(content) is not None
