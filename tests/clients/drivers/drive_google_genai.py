"""google-genai: Gemini's API from Python."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from google import genai
from google.genai import errors, types
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
    serve,
)

FUNCTION = WEATHER_TOOL["function"]
TOOLS: list[Any] = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(
                name=FUNCTION["name"],
                description=FUNCTION["description"],
                parameters_json_schema=FUNCTION["parameters"],
            )
        ]
    )
]
HELLO = [types.Content(role="user", parts=[types.Part(text="Hello")])]


def client_with(key: str, attempts: int = 1) -> genai.Client:
    """A client that sends each request up to `attempts` times. It adds the API's version itself."""
    retry = types.HttpRetryOptions(attempts=attempts, initial_delay=1.0)
    url = FACTS["base_url"].removesuffix("/v1")
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, retry_options=retry))


client = client_with(FACTS["key"])


def create(task: Task, contents: Any = None, made: genai.Client = client, **config: Any) -> Any:
    return made.models.generate_content(
        model=task.model,
        contents=HELLO if contents is None else contents,
        config=types.GenerateContentConfig(**config) if config else None,
    )


def chunks(task: Task, contents: Any = None, **config: Any) -> list[Any]:
    return list(
        client.models.generate_content_stream(
            model=task.model,
            contents=HELLO if contents is None else contents,
            config=types.GenerateContentConfig(**config) if config else None,
        )
    )


def streamed(task: Task, contents: Any = None, **config: Any) -> Any:
    """The last response of a stream, with the parts of all of them."""
    got = chunks(task, contents, **config)
    last = got[-1]
    last.candidates[0].content.parts = [
        part for response in got for part in response.candidates[0].content.parts or ()
    ]
    return last


def text_of(response: Any) -> str:
    parts = response.candidates[0].content.parts
    return "".join(part.text or "" for part in parts if not part.thought)


def check_answer(response: Any) -> None:
    check(text_of(response), FACTS["text"], "text")
    check(response.candidates[0].finish_reason, types.FinishReason.STOP, "finish reason")
    usage = response.usage_metadata
    check_usage(usage.prompt_token_count, usage.candidates_token_count)


def round_trip(task: Task, ask: Any, cities: list[str]) -> None:
    content = ask(task, tools=TOOLS).candidates[0].content
    calls = [part.function_call for part in content.parts if part.function_call]
    check([call.args["city"] for call in calls], cities, "cities asked for")
    results = [
        types.Part(
            function_response=types.FunctionResponse(
                id=call.id, name=call.name, response={"output": get_weather(call.args["city"])}
            )
        )
        for call in calls
    ]
    past = [*HELLO, content, types.Content(role="user", parts=results)]
    check(text_of(ask(task, past, tools=TOOLS)), FACTS["final"], "final text")


def structured(task: Task) -> None:
    config = {"response_mime_type": "application/json", "response_json_schema": TRIP_SCHEMA}
    for ask in (create, streamed):
        check(json.loads(text_of(ask(task, **config))), FACTS["trip"], "object")


def wrong_key(task: Task) -> None:
    other = client_with(FACTS["wrong_key"])
    error = raised(errors.ClientError, lambda: create(task, made=other))
    check((error.code, error.status), (401, "UNAUTHENTICATED"), "status")


def rate_limited(task: Task) -> None:
    error = raised(errors.ClientError, lambda: create(task))
    check((error.code, error.status), (429, "RESOURCE_EXHAUSTED"), "status")


def failed(task: Task) -> None:
    raised(errors.ServerError, lambda: create(task))
    raised(errors.ServerError, lambda: chunks(task))


def cut(task: Task) -> None:
    """A stream that ends without a finish reason is no complete answer; the client raises nothing."""
    reasons = [response.candidates[0].finish_reason for response in chunks(task)]
    check([reason for reason in reasons if reason is not None], [], "finish reasons")


def cancel(task: Task) -> float:
    """The user leaves while nothing but heartbeats has come, which the client does not show."""

    async def read() -> None:
        stream = await client.aio.models.generate_content_stream(model=task.model, contents=HELLO)
        async for _ in stream:
            pass

    async def give_up() -> float:
        waiting = asyncio.create_task(read())
        while not (waiting.done() or Path(FACTS["requested_file"]).exists()):  # noqa: ASYNC110, ASYNC240 - one client waits
            await asyncio.sleep(0.05)
        left_at = now()
        waiting.cancel()
        await asyncio.wait([waiting])
        return left_at

    return asyncio.run(give_up())


def models(task: Task) -> None:
    wanted = f"models/{FACTS['models'][task.provider]}"
    if wanted not in [model.name for model in client.models.list()]:
        raise AssertionError(f"{wanted} is not listed")
    check(client.models.get(model=wanted).name, wanted, "model")


def count_tokens(task: Task) -> None:
    counted = client.models.count_tokens(model=task.model, contents=HELLO)
    if not counted.total_tokens:
        raise AssertionError(f"{counted.total_tokens} tokens")


def stop(task: Task) -> None:
    check(text_of(create(task, stop_sequences=[FACTS["stop"]])), FACTS["text"], "text")


def image(task: Task) -> None:
    parts = [types.Part(text="Look"), types.Part.from_bytes(data=b"png", mime_type="image/png")]
    check_answer(create(task, contents=[types.Content(role="user", parts=parts)]))


def reasoning(task: Task) -> None:
    """Thoughts are parts of their own, and go back with the answer."""
    thinking = types.ThinkingConfig(include_thoughts=True)
    for ask in (create, streamed):
        content = ask(task, thinking_config=thinking).candidates[0].content
        thought = "".join(part.text for part in content.parts if part.thought)
        check(thought, FACTS["thought"], "reasoning")
        past = [*HELLO, content, types.Content(role="user", parts=[types.Part(text="Go on")])]
        check(text_of(ask(task, past, thinking_config=thinking)), FACTS["text"], "text")


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
        "429-retried": lambda task: check_answer(create(task, made=client_with(FACTS["key"], 3))),
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
