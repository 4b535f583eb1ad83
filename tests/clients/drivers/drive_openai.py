"""openai-python, the newest and an old one, which lacks `.stream()` and `.parse()`."""

from __future__ import annotations

import json
from typing import Any

import openai
from harness import (
    FACTS,
    TRIP_SCHEMA,
    WEATHER_TOOL,
    Task,
    check,
    check_usage,
    get_weather,
    now,
    raised,
    raised_as_broken,
    serve,
)
from pydantic import BaseModel

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
client = openai.OpenAI(base_url=FACTS["base_url"], api_key=FACTS["key"], max_retries=0)
IS_OLD = openai.__version__.startswith("1.")


class Trip(BaseModel):
    city: str
    days: int


def text(task: Task) -> None:
    answer = client.chat.completions.create(model=task.model, messages=HELLO)
    check(answer.choices[0].message.content, FACTS["text"], "text")
    check(answer.choices[0].finish_reason, "stop", "finish reason")
    check_usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)


def stream(task: Task) -> None:
    chunks = list(
        client.chat.completions.create(
            model=task.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    check("".join(choice.delta.content or "" for choice in choices), FACTS["text"], "text")
    check([choice.finish_reason for choice in choices if choice.finish_reason], ["stop"], "finish reasons")
    check_usage(chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


def whole_message(task: Task, messages: list[Any]) -> Any:
    choice = client.chat.completions.create(
        model=task.model, messages=messages, tools=[WEATHER_TOOL]
    ).choices[0]
    return choice.message.model_dump(exclude_none=True), choice.finish_reason


def streamed_message(task: Task, messages: list[Any]) -> Any:
    arguments = {"model": task.model, "messages": messages, "tools": [WEATHER_TOOL]}
    if IS_OLD:
        return joined(client.chat.completions.create(stream=True, **arguments))
    with client.chat.completions.stream(**arguments) as events:
        choice = events.get_final_completion().choices[0]
    message = choice.message.model_dump(exclude_none=True, exclude={"parsed", "tool_calls"})
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in choice.message.tool_calls or ()
    ]
    return {**message, **({"tool_calls": calls} if calls else {})}, choice.finish_reason


def joined(chunks: Any) -> Any:
    """The message of a stream, as users of the old client put it together."""
    content, calls, finish = "", {}, None
    for chunk in chunks:
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        finish = choice.finish_reason or finish
        for delta in choice.delta.tool_calls or ():
            call = calls.setdefault(
                delta.index, {"type": "function", "function": {"name": "", "arguments": ""}}
            )
            call.update({"id": delta.id} if delta.id else {})
            call["function"]["name"] += delta.function.name or ""
            call["function"]["arguments"] += delta.function.arguments or ""
    made = [calls[index] for index in sorted(calls)]
    return {"role": "assistant", "content": content, **({"tool_calls": made} if made else {})}, finish


def round_trip(task: Task, call_model: Any, cities: list[str]) -> None:
    message, finish = call_model(task, HELLO)
    check(finish, "tool_calls", "finish reason")
    requested = [json.loads(call["function"]["arguments"])["city"] for call in message["tool_calls"]]
    check(requested, cities, "cities requested for")
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": get_weather(city)}
        for call, city in zip(message["tool_calls"], requested, strict=True)
    ]
    message, finish = call_model(task, [*HELLO, message, *results])
    check((message["content"], finish), (FACTS["final"], "stop"), "final text")


def structured(task: Task) -> None:
    if IS_OLD:
        schema = {"name": "Trip", "schema": TRIP_SCHEMA, "strict": True}
        wanted: Any = {"type": "json_schema", "json_schema": schema}
        answer = client.chat.completions.create(model=task.model, messages=HELLO, response_format=wanted)
        check(json.loads(answer.choices[0].message.content), FACTS["trip"], "object")
        return
    answer = client.chat.completions.parse(model=task.model, messages=HELLO, response_format=Trip)
    check(answer.choices[0].message.parsed, Trip(**FACTS["trip"]), "object")
    with client.chat.completions.stream(model=task.model, messages=HELLO, response_format=Trip) as events:
        parsed = events.get_final_completion().choices[0].message.parsed
    check(parsed, Trip(**FACTS["trip"]), "object of a stream")


def create(task: Task, made: openai.OpenAI = client, **arguments: Any) -> Any:
    return made.chat.completions.create(model=task.model, messages=HELLO, **arguments)


def wrong_key(task: Task) -> None:
    other = client.with_options(api_key=FACTS["wrong_key"])
    check(raised(openai.AuthenticationError, lambda: create(task, other)).status_code, 401, "status")


def retried(task: Task) -> None:
    check(create(task, client.with_options(max_retries=2)).choices[0].message.content, FACTS["text"], "text")


def rate_limited(task: Task) -> None:
    error = raised(openai.RateLimitError, lambda: create(task))
    check(error.response.headers["retry-after"], str(FACTS["retry_after_s"]), "Retry-After")


def failed(task: Task) -> None:
    raised(openai.InternalServerError, lambda: create(task))
    raised(openai.InternalServerError, lambda: create(task, stream=True))


def cut(task: Task) -> None:
    raised_as_broken(openai.APIError, lambda: list(create(task, stream=True)))


def cancel(task: Task) -> float:
    chunks = create(task, stream=True)
    next(iter(chunks))
    left_at = now()
    (chunks.response if IS_OLD else chunks).close()
    return left_at


def embeddings(task: Task) -> None:
    made = client.embeddings.create(model=task.model, input=["a", "b"])
    check([entry.embedding for entry in made.data], FACTS["vectors"], "vectors")
    check(made.usage.prompt_tokens, 9, "usage")


def models(task: Task) -> None:
    wanted = FACTS["models"][task.provider]
    if wanted not in [entry.id for entry in client.models.list()]:
        raise AssertionError(f"{wanted} is not listed")
    check(client.models.retrieve(wanted).id, wanted, "model")


serve(
    {
        "text": text,
        "stream": stream,
        "slow": stream,
        "tools": lambda task: round_trip(task, whole_message, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, streamed_message, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, streamed_message, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, streamed_message, FACTS["cities"]),
        "structured": structured,
        "wrong-key": wrong_key,
        "429-retried": retried,
        "429-raised": rate_limited,
        "500": failed,
        "cut": cut,
        "cancel": cancel,
        "embeddings": embeddings,
        "models": models,
    }
)
