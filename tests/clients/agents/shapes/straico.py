"""Straico's chat endpoint: whole answers, text in three roles, and tools described in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Refusal, Round, Shape, Turn
from tests.clients.agents.shapes.chat import USAGE, ChatShape
from tests.clients.features import straico_results
from tests.support.upstream import Exchange, Seen, straico_completion

_FIELDS: base.Fields = {
    "model": base.TEXT,
    "messages": base.LIST,
    "temperature": base.NUMBER,
    "max_tokens": (int,),
}
_MESSAGE: base.Fields = {"role": base.TEXT, "content": base.TEXT}
# The proxy's markup for models that have none of their own.
_TOOLS = re.compile(r"(?s)<tools>\n(.*?)\n</tools>")
_CALLS = re.compile(r"(?s)<tool_calls>\n(.*?)\n</tool_calls>")


class StraicoShape(Shape):
    name = "straico"
    path = "/v2/chat/completions"
    headers = ChatShape.headers
    refusals: Mapping[str, Refusal] = {
        "busy": Refusal(
            429, {"error": base.BUSY, "success": False}, (("retry-after", str(base.RETRY_AFTER_S)),)
        ),
        "quota": Refusal(
            422, {"error": "The daily API limit for spending coins has been reached", "success": False}
        ),
    }

    @override
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        await exchange.answer(self._completion(exchange, turn))

    def _completion(self, exchange: Exchange, turn: Turn) -> dict[str, Any]:
        names = self.tool_names(exchange.seen.json)
        calls = [
            {
                "name": base.declared(call.tool, names),
                "arguments": {"input": call.arguments} if isinstance(call.arguments, str) else call.arguments,
            }
            for call in turn.calls
        ]
        text = f"{turn.text}\n<tool_calls>{json.dumps(calls)}</tool_calls>" if calls else turn.text
        return straico_completion(text, usage=USAGE)

    @override
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        whole = json.dumps(self._completion(exchange, turn)).encode()
        await exchange.head(200, ("content-length", str(len(whole))))
        await exchange.send(whole[: len(whole) // 2])
        exchange.close()

    @override
    def is_streamed(self, seen: Seen) -> bool:
        return False

    @override
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        system = "\n".join(message["content"] for message in body["messages"] if message["role"] == "system")
        described = _TOOLS.findall(system)
        return [tool["name"] for tool in json.loads(described[-1])] if described else []

    @override
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        results = straico_results(body["messages"])
        rounds = []
        for message in body["messages"]:
            text = _CALLS.search(message["content"]) if message["role"] == "assistant" else None
            if text:
                calls = json.loads(text[1])
                rounds.append(
                    Round(
                        tuple(Call(call["name"], call["arguments"]) for call in calls),
                        tuple(results.get(call["id"], "") for call in calls),
                    )
                )
        return rounds

    @override
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        yield from base.field_faults(body, _FIELDS, "body")
        last_role = ""
        for index, message in enumerate(body["messages"]):
            where, role = f"messages[{index}]", str(message.get("role"))
            yield from base.field_faults(message, _MESSAGE, where)
            if role not in {"system", "user", "assistant"}:
                yield f"{where} has the role {role}"
            elif role == "system" and last_role not in {"", "system"}:
                yield f"{where}: system after the conversation has begun"
            elif role == "assistant" and last_role != "user":
                yield f"{where}: the role {role} after {last_role or 'nothing'}"
            if not message.get("content"):
                yield f"{where} is empty"
            last_role = role
        if last_role != "user":
            yield "the last message is not the user's"
