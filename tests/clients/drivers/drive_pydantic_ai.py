"""Pydantic AI with OpenAI's protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from harness import FACTS, Task, check, check_usage, get_weather, now, raised, raised_as_broken, serve
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

# One loop for all: a client's connections belong to the loop that opened them.
runner = asyncio.Runner()


class Trip(BaseModel):
    city: str
    days: int


def provider(**options: Any) -> OpenAIProvider:
    address = {"base_url": FACTS["base_url"], "api_key": FACTS["key"], "max_retries": 0}
    return OpenAIProvider(openai_client=AsyncOpenAI(**{**address, **options}))


def agent(task: Task, *, output_type: Any = str, tools: Any = (), **options: Any) -> Agent[None, Any]:
    model = OpenAIChatModel(task.model, provider=provider(**options))
    return Agent(model, output_type=output_type, tools=tools)


def whole(made: Agent[None, Any]) -> Any:
    return runner.run(made.run("Hello"))


async def read(made: Agent[None, Any]) -> Any:
    async with made.run_stream("Hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        return "".join(pieces), result


def streamed(made: Agent[None, Any]) -> Any:
    return runner.run(read(made))


def check_answer(text: str, result: Any) -> None:
    check(text, FACTS["text"], "text")
    check(result.response.finish_reason, "stop", "finish reason")
    check_usage(result.usage.input_tokens, result.usage.output_tokens)


def text(task: Task, **options: Any) -> None:
    result = whole(agent(task, **options))
    check_answer(result.output, result)


def round_trip(task: Task, cities: list[str], *, streaming: bool) -> None:
    """The client runs the tool and sends the second request by itself."""
    requested = []

    def weather(city: str) -> str:
        requested.append(city)
        return get_weather(city)

    weather.__name__ = FACTS["tool"]
    made = agent(task, tools=[weather])
    answer = streamed(made)[0] if streaming else whole(made).output
    check(answer, FACTS["final"], "final text")
    check(sorted(requested), sorted(cities), "cities requested for")


def structured(task: Task) -> None:
    check(whole(agent(task, output_type=NativeOutput(Trip))).output, Trip(**FACTS["trip"]), "object")


def status(expected: int, act: Any) -> None:
    check(raised(ModelHTTPError, act).status_code, expected, "status")


def failed(task: Task) -> None:
    for run_agent in (whole, streamed):
        error = raised(ModelHTTPError, lambda run_agent=run_agent: run_agent(agent(task)))
        check(error.status_code >= 500, True, f"status {error.status_code}")


def cancel(task: Task) -> float:
    """The task that awaits an agent's answer is cancelled."""

    async def give_up() -> float:
        waiting = asyncio.create_task(read(agent(task)))
        await asyncio.sleep(1)
        left_at = now()
        waiting.cancel()
        await asyncio.wait([waiting])
        return left_at

    return runner.run(give_up())


def embeddings(task: Task) -> None:
    embedder = Embedder(OpenAIEmbeddingModel(task.model, provider=provider()))
    made = runner.run(embedder.embed_documents(["a", "b"]))
    check([list(vector) for vector in made.embeddings], FACTS["vectors"], "vectors")


def stream(task: Task) -> None:
    check_answer(*streamed(agent(task)))


serve(
    {
        "text": text,
        "stream": stream,
        "slow": stream,
        "tools": lambda task: round_trip(task, FACTS["cities"][:1], streaming=False),
        "tools-stream": lambda task: round_trip(task, FACTS["cities"][:1], streaming=True),
        "parallel": lambda task: round_trip(task, FACTS["cities"], streaming=True),
        "interleaved": lambda task: round_trip(task, FACTS["cities"], streaming=True),
        "structured": structured,
        "wrong-key": lambda task: status(401, lambda: whole(agent(task, api_key=FACTS["wrong_key"]))),
        "429-retried": lambda task: text(task, max_retries=2),
        "429-raised": lambda task: status(429, lambda: whole(agent(task))),
        "500": failed,
        "cut": lambda task: raised_as_broken(ModelAPIError, lambda: streamed(agent(task))),
        "cancel": cancel,
        "embeddings": embeddings,
    }
)
