"""openai-python with the Responses API."""

from __future__ import annotations

import json
from typing import Any

import openai
from harness import (
    FACTS,
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
from pydantic import BaseModel

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOLS: list[Any] = [{"type": "function", "strict": True, **WEATHER_TOOL["function"]}]
client = openai.OpenAI(base_url=FACTS["base_url"], api_key=FACTS["key"], max_retries=0)


class Trip(BaseModel):
    city: str
    days: int


def create(task: Task, made: openai.OpenAI = client, **arguments: Any) -> Any:
    return made.responses.create(**{"model": task.model, "input": HELLO, "store": False, **arguments})


def streamed(task: Task, **arguments: Any) -> Any:
    """The response that a stream comes to, after a look at its events."""
    numbers, texts = [], []
    with client.responses.stream(
        **{"model": task.model, "input": HELLO, "store": False, **arguments}
    ) as events:
        for event in events:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
        response = events.get_final_response()
    check(numbers, list(range(len(numbers))), "sequence numbers")
    check("".join(texts), response.output_text, "text of the deltas")
    return response


def check_answer(response: Any) -> None:
    check(response.output_text, FACTS["text"], "text")
    check(response.status, "completed", "status")
    check_usage(response.usage.input_tokens, response.usage.output_tokens)


def round_trip(task: Task, ask: Any, cities: list[str]) -> None:
    response = ask(task, tools=TOOLS)
    calls = [item for item in response.output if item.type == "function_call"]
    asked = [json.loads(call.arguments)["city"] for call in calls]
    check(asked, cities, "cities asked for")
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": get_weather(city)}
        for call, city in zip(calls, asked, strict=True)
    ]
    past = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output]
    response = ask(task, tools=TOOLS, input=[*HELLO, *past, *results])
    check((response.output_text, response.status), (FACTS["final"], "completed"), "final text")


def structured(task: Task) -> None:
    answer = client.responses.parse(model=task.model, input=HELLO, text_format=Trip)
    check(answer.output_parsed, Trip(**FACTS["trip"]), "object")
    check(streamed(task, text_format=Trip).output_parsed, Trip(**FACTS["trip"]), "object of a stream")


def wrong_key(task: Task) -> None:
    other = client.with_options(api_key=FACTS["wrong_key"])
    check(raised(openai.AuthenticationError, lambda: create(task, other)).status_code, 401, "status")


def rate_limited(task: Task) -> None:
    error = raised(openai.RateLimitError, lambda: create(task))
    check(error.response.headers["retry-after"], str(FACTS["retry_after_s"]), "Retry-After")


def failed(task: Task) -> None:
    raised(openai.InternalServerError, lambda: create(task))
    raised(openai.InternalServerError, lambda: create(task, stream=True))


def cut(task: Task) -> None:
    """A stream that fails ends with `response.failed`, which is no exception in this client."""

    def read() -> None:
        events = list(create(task, stream=True))
        if events[-1].type != "response.failed":
            raise AssertionError(f"it ends with {events[-1].type}")
        raise openai.OpenAIError(events[-1].response.error.message)

    raised_as_broken(openai.OpenAIError, read)


def cancel(task: Task) -> float:
    """The user leaves while nothing but heartbeats has come, which the client does not show."""

    async def read() -> None:
        async with openai.AsyncOpenAI(base_url=FACTS["base_url"], api_key=FACTS["key"]) as other:
            async for _ in await other.responses.create(model=task.model, input=HELLO, stream=True):
                pass

    return leave_once_requested(read)


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
    }
)
