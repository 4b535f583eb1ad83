"""Where the messages and the results of tools stand in a Messages request. Pure.

A message is an object with a list of blocks here. Neighbours of one role are one message; the results of an
answer's calls stand at the beginning of the user's message behind it, all together.
"""

from __future__ import annotations

from collections.abc import Iterator

from sanic_proxy.json_types import Json


def append(messages: list[Json], role: str, blocks: list[Json]) -> None:
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def place_results(messages: list[Json]) -> None:
    """Move the results of each message's calls to the beginning of the user's message behind it.

    A result without a call among the messages stays in its message, first.
    """
    results: dict[str, list[Json]] = {}
    for block in _results(messages):
        results.setdefault(block["tool_use_id"], []).append(block)
    if not results:
        return
    moved = [(at, own) for at, message in enumerate(messages) if (own := _taken(message, results))]
    _remove([block for _, own in moved for block in own], messages)
    for at, own in reversed(moved):
        if at + 1 < len(messages) and messages[at + 1]["role"] == "user":
            messages[at + 1]["content"][:0] = own
        else:
            messages.insert(at + 1, {"role": "user", "content": own})
    _merge(messages)


def _results(messages: list[Json]) -> Iterator[Json]:
    for message in messages:
        if message["role"] == "user":
            yield from (block for block in message["content"] if block["type"] == "tool_result")


def _taken(message: Json, results: dict[str, list[Json]]) -> list[Json]:
    """The results of the calls in `message`, which are taken out of `results`."""
    if message["role"] != "assistant":
        return []
    calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    return [block for call in calls for block in results.pop(call, ())]


def _remove(blocks: list[Json], messages: list[Json]) -> None:
    """Take `blocks` out of the user's messages, whose other results come first then."""
    removed = set(map(id, blocks))
    for message in messages:
        if message["role"] == "user":
            left = [block for block in message["content"] if id(block) not in removed]
            message["content"] = sorted(left, key=lambda block: block["type"] != "tool_result")


def _merge(messages: list[Json]) -> None:
    """Remove messages that have lost all of their blocks, and join neighbours of one role."""
    merged: list[Json] = []
    for message in messages:
        if not message["content"]:
            continue
        if merged and merged[-1]["role"] == message["role"] != "system":
            merged[-1]["content"] += message["content"]
        else:
            merged.append(message)
    messages[:] = merged


def lacks_thinking(messages: list[Json]) -> bool:
    """Whether the last answer is being continued behind its calls, and does not begin with thinking.

    Anthropic then accepts no `thinking` with a budget.
    """
    for message in reversed(messages):
        if message["role"] == "assistant":
            blocks = message["content"]
            is_called = isinstance(blocks, list) and any(block["type"] == "tool_use" for block in blocks)
            return is_called and blocks[0]["type"] not in {"thinking", "redacted_thinking"}
    return False


def trim_prefill(messages: list[Json]) -> None:
    """The API takes no white space at the end of an answer that the model has to continue."""
    last = messages[-1]
    if last["role"] == "assistant" and last["content"] and last["content"][-1]["type"] == "text":
        block = last["content"][-1]
        last["content"][-1] = {**block, "text": block["text"].rstrip()}


def simple_content(blocks: list[Json]) -> str | list[Json]:
    """A single text without further fields is written as a string."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks
