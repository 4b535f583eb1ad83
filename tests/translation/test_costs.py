"""The cost of large requests and answers is linear in the number of their items.

The bounds are in units of `reference_s`. A quadratic algorithm exceeds them many times over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import (
    Conversation,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.gemini import GeminiFormat
from sanic_proxy.translation.messages.accumulate import MessageAccumulator
from sanic_proxy.translation.responses import ResponsesFormat
from tests.support.chat_translation import CHAT
from tests.support.machine import least_cost

ITEMS = 20_000
BOUND = 100
TARGET = TargetTraits("acme", "acme-1")
HELLO = Turn("user", [Text("Hi")])


def gemini_results(*, have_ids: bool) -> Callable[[], object]:
    """All calls first, then their results, by id in the reverse order, else by name."""

    def part(kind: str, number: int, **fields: Any) -> dict[str, Any]:
        own = {"id": f"c{number}"} if have_ids else {}
        return {kind: {"name": f"f{number % 3}", **own, **fields}}

    calls = [part("functionCall", number) for number in range(ITEMS)]
    results = [
        part("functionResponse", number, response={"output": "x"}) for number in reversed(range(ITEMS))
    ]
    contents = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": calls},
        {"role": "user", "parts": results},
    ]
    return lambda: GeminiFormat().read_request({"model": "m", "stream": False, "contents": contents})


def responses_results() -> Callable[[], object]:
    """Each call between two messages of the user's, and the results of all of them at the end."""
    items: list[dict[str, Any]] = []
    for number in range(ITEMS):
        items.append({"role": "user", "content": "x"})
        call = {"call_id": f"c{number}", "name": "f", "arguments": "{}"}
        items.append({"type": "function_call", **call})
    items.append({"role": "user", "content": "x"})
    items += [
        {"type": "function_call_output", "call_id": f"c{number}", "output": "x"}
        for number in reversed(range(ITEMS))
    ]
    return lambda: ResponsesFormat().read_request({"model": "m", "input": items})


def responses_phases() -> Callable[[], object]:
    """One turn: much reasoning, a call, and messages whose phases alternate."""
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]} for _ in range(ITEMS // 2)
    ]
    items.append({"type": "message", "role": "assistant", "content": "x"})
    items.append({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})
    for number in range(ITEMS // 2):
        phase = ("commentary", "final_answer")[number % 2]
        items.append({"type": "message", "role": "assistant", "content": "x", "phase": phase})
    return lambda: ResponsesFormat().read_request({"model": "m", "input": items})


def gemini_orphans() -> Callable[[], object]:
    """Calls and results, all with one id: half of the results have no call."""
    calls = [ToolCall("same", "f", "{}") for _ in range(ITEMS // 2)]
    results = [ToolResult("same", [Text(str(number))]) for number in range(ITEMS)]
    turns = [HELLO, Turn("assistant", [*calls]), Turn("tool", [*results])]
    return lambda: GeminiFormat().write_request(Conversation("m", turns), TARGET)


def allowed_tools(write: Callable[[Conversation], object]) -> Callable[[], object]:
    names = tuple(f"f{number}" for number in range(ITEMS))
    tools = [Tool(name) for name in reversed(names)]
    conversation = Conversation("m", [HELLO], tools=tools, tool_choice=ToolChoice("required", names))
    return lambda: write(conversation)


def citations() -> Callable[[], object]:
    events: list[Any] = [
        {"type": "message_start", "message": {"usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    delta = {"type": "citations_delta", "citation": {}}
    events += [{"type": "content_block_delta", "index": 0, "delta": delta}] * (4 * ITEMS)
    frames = b"".join(b"data: %b\n\n" % codec.dumps(event) for event in events)

    def accumulate() -> None:
        accumulator = MessageAccumulator()
        accumulator.feed(frames)
        assert len(accumulator.message()["content"][0]["citations"]) == 4 * ITEMS

    return accumulate


WORK: dict[str, Callable[[], Callable[[], object]]] = {
    "gemini-results-by-id": partial(gemini_results, have_ids=True),
    "gemini-results-by-name": partial(gemini_results, have_ids=False),
    "responses-results": responses_results,
    "responses-phases": responses_phases,
    "gemini-orphans": gemini_orphans,
    "gemini-allowed-tools": partial(allowed_tools, lambda asked: GeminiFormat().write_request(asked, TARGET)),
    "chat-allowed-tools": partial(allowed_tools, lambda asked: CHAT.write_request(asked, TARGET)),
    "messages-citations": citations,
}


@pytest.mark.parametrize("prepare", WORK.values(), ids=WORK)
def test_many_items_cost_little_each(prepare: Callable[[], Callable[[], object]]) -> None:
    assert least_cost(prepare(), enough=BOUND) < BOUND
