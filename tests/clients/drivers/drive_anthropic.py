"""anthropic-python."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
from harness import (
    FACTS,
    TRIP_SCHEMA,
    WEATHER_TOOL,
    Task,
    check,
    check_usage,
    get_weather,
    leave_once_requested,
    raised,
    raised_as_broken,
    serve,
)

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
FUNCTION = WEATHER_TOOL["function"]
TOOLS: list[Any] = [
    {
        "name": FUNCTION["name"],
        "description": FUNCTION["description"],
        "input_schema": FUNCTION["parameters"],
    }
]
# The client adds `/v1` itself.
client = anthropic.Anthropic(
    base_url=FACTS["base_url"].removesuffix("/v1"), api_key=FACTS["key"], max_retries=0
)


def arguments(task: Task, more: dict[str, Any]) -> dict[str, Any]:
    return {"model": task.model, "max_tokens": 1000, "messages": HELLO, **more}


def create(task: Task, made: anthropic.Anthropic = client, **more: Any) -> Any:
    return made.messages.create(**arguments(task, more))


def streamed(task: Task, **more: Any) -> Any:
    """The message that a stream comes to, after a look at its text."""
    with client.messages.stream(**arguments(task, more)) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
    check(text, text_of(message), "text of the deltas")
    return message


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def check_answer(message: Any) -> None:
    check(text_of(message), FACTS["text"], "text")
    check(message.stop_reason, "end_turn", "stop reason")
    check_usage(message.usage.input_tokens, message.usage.output_tokens)


def round_trip(task: Task, ask: Any, cities: list[str]) -> None:
    message = ask(task, tools=TOOLS)
    check(message.stop_reason, "tool_use", "stop reason")
    calls = [block for block in message.content if block.type == "tool_use"]
    asked = [call.input["city"] for call in calls]
    check(asked, cities, "cities asked for")
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(city)}
        for call, city in zip(calls, asked, strict=True)
    ]
    past: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    message = ask(task, tools=TOOLS, messages=past)
    check((text_of(message), message.stop_reason), (FACTS["final"], "end_turn"), "final text")


def structured(task: Task) -> None:
    wanted = {"format": {"type": "json_schema", "schema": TRIP_SCHEMA}}
    for ask in (create, streamed):
        check(json.loads(text_of(ask(task, output_config=wanted))), FACTS["trip"], "object")


def wrong_key(task: Task) -> None:
    other = client.with_options(api_key=FACTS["wrong_key"])
    check(raised(anthropic.AuthenticationError, lambda: create(task, other)).status_code, 401, "status")


def rate_limited(task: Task) -> None:
    error = raised(anthropic.RateLimitError, lambda: create(task))
    check(error.response.headers["retry-after"], str(FACTS["retry_after_s"]), "Retry-After")
    check(error.body["error"]["type"], "rate_limit_error", "type")


def failed(task: Task) -> None:
    raised(anthropic.InternalServerError, lambda: create(task))
    raised(anthropic.InternalServerError, lambda: create(task, stream=True))


def cut(task: Task) -> None:
    raised_as_broken(anthropic.APIError, lambda: list(create(task, stream=True)))


def cancel(task: Task) -> float:
    """The user leaves while nothing but heartbeats has come, which the client does not show."""

    async def read() -> None:
        async with anthropic.AsyncAnthropic(base_url=client.base_url, api_key=FACTS["key"]) as other:
            async for _ in await other.messages.create(**arguments(task, {"stream": True})):
                pass

    return leave_once_requested(read)


def models(task: Task) -> None:
    wanted = FACTS["models"][task.provider]
    if wanted not in [entry.id for entry in client.models.list(limit=1000)]:
        raise AssertionError(f"{wanted} is not listed")
    check(client.models.retrieve(wanted).id, wanted, "model")


def count_tokens(task: Task) -> None:
    counted = client.messages.count_tokens(model=task.model, messages=HELLO)
    if counted.input_tokens < 1:
        raise AssertionError(f"{counted.input_tokens} tokens")


def stop(task: Task) -> None:
    message = create(task, stop_sequences=[FACTS["stop"]])
    check(text_of(message), FACTS["text"], "text")


def image(task: Task) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
    content: list[Any] = [{"type": "text", "text": "Look"}, {"type": "image", "source": source}]
    check_answer(create(task, messages=[{"role": "user", "content": content}]))


def reasoning(task: Task) -> None:
    """Reasoning is a block of its own, and goes back with the answer."""
    for ask in (create, streamed):
        message = ask(task, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
        check([block.type for block in message.content], ["thinking", "text"], "blocks")
        check(message.content[0].thinking, FACTS["thought"], "reasoning")
        past: list[Any] = [
            *HELLO,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": "Go on"},
        ]
        check(text_of(ask(task, messages=past)), FACTS["text"], "text")


serve(
    {
        "text": lambda task: check_answer(create(task)),
        "stream": lambda task: check_answer(streamed(task)),
        "slow": lambda task: check_answer(streamed(task)),
        "tools": lambda task: round_trip(task, create, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, streamed, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "structured": structured,
        "wrong-key": wrong_key,
        "429-retried": lambda task: check_answer(create(task, client.with_options(max_retries=2))),
        "429-raised": rate_limited,
        "500": failed,
        "cut": cut,
        "cancel": cancel,
        "models": models,
        "count-tokens": count_tokens,
        "stop": stop,
        "image": image,
        "reasoning": reasoning,
    }
)
