"""LiteLLM as a client library."""

from __future__ import annotations

import json
import os
from typing import Any

# Its price list is else fetched when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
from harness import (
    FACTS,
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
from litellm.exceptions import MidStreamFallbackError
from pydantic import BaseModel

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
litellm.telemetry = False
litellm.suppress_debug_info = True


class Trip(BaseModel):
    city: str
    days: int


def address(task: Task) -> dict[str, Any]:
    return {"model": f"openai/{task.model}", "api_base": FACTS["base_url"], "api_key": FACTS["key"]}


def complete(task: Task, messages: list[Any] = HELLO, **options: Any) -> Any:
    return litellm.completion(**{**address(task), "messages": messages, "max_retries": 0, **options})


def joined(task: Task, messages: list[Any] = HELLO, **options: Any) -> Any:
    usage = {"include_usage": True}
    chunks = list(complete(task, messages, stream=True, stream_options=usage, **options))
    return litellm.stream_chunk_builder(chunks, messages=messages)


def check_answer(answer: Any) -> None:
    check(answer.choices[0].message.content, FACTS["text"], "text")
    check(answer.choices[0].finish_reason, "stop", "finish reason")
    check_usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)


def round_trip(task: Task, call_model: Any, cities: list[str]) -> None:
    choice = call_model(task, HELLO, tools=[WEATHER_TOOL]).choices[0]
    check(choice.finish_reason, "tool_calls", "finish reason")
    calls = choice.message.tool_calls
    requested = [json.loads(call.function.arguments)["city"] for call in calls]
    check(requested, cities, "cities requested for")
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": get_weather(city)}
        for call, city in zip(calls, requested, strict=True)
    ]
    answer = call_model(task, [*HELLO, choice.message.model_dump(), *results], tools=[WEATHER_TOOL])
    check(answer.choices[0].message.content, FACTS["final"], "final text")


def structured(task: Task) -> None:
    answer = complete(task, response_format=Trip)
    made = Trip.model_validate_json(answer.choices[0].message.content)
    check(made, Trip(**FACTS["trip"]), "object")


def failed(task: Task) -> None:
    # It has a class for each status, which have one of OpenAI's in common.
    for streaming in (False, True):
        error = raised(openai.APIStatusError, lambda given=streaming: complete(task, stream=given))
        check(error.status_code >= 500, True, f"status {error.status_code}")


def cancel(task: Task) -> float:
    chunks = complete(task, stream=True)
    next(chunks)
    left_at = now()
    chunks.completion_stream.close()
    return left_at


def embeddings(task: Task) -> None:
    made = litellm.embedding(**address(task), input=["a", "b"])
    check([entry["embedding"] for entry in made.data], FACTS["vectors"], "vectors")
    check(made.usage.prompt_tokens, 9, "usage")


def models(task: Task) -> None:
    wanted = FACTS["models"][task.provider]
    listed = litellm.get_valid_models(
        check_provider_endpoint=True,
        custom_llm_provider="openai",
        api_base=FACTS["base_url"].removesuffix("/v1"),
        api_key=FACTS["key"],
    )
    if wanted not in listed:
        raise AssertionError(f"{wanted} is not listed in {listed}")


serve(
    {
        "text": lambda task: check_answer(complete(task)),
        "stream": lambda task: check_answer(joined(task)),
        "slow": lambda task: check_answer(joined(task)),
        "tools": lambda task: round_trip(task, complete, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, joined, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, joined, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, joined, FACTS["cities"]),
        "structured": structured,
        "wrong-key": lambda task: raised(
            litellm.AuthenticationError, lambda: complete(task, api_key=FACTS["wrong_key"])
        ),
        "429-retried": lambda task: check_answer(complete(task, max_retries=2)),
        "429-raised": lambda task: raised(litellm.RateLimitError, lambda: complete(task)),
        "500": failed,
        "cut": lambda task: raised_as_broken(MidStreamFallbackError, lambda: joined(task)),
        "cancel": cancel,
        "embeddings": embeddings,
        "models": models,
    }
)
