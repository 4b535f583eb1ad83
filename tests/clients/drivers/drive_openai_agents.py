"""OpenAI's Agents SDK, which speaks the Responses API."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from harness import FACTS, Task, check, check_usage, get_weather, now, raised, raised_as_broken, serve
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
# One loop for all: a client's connections belong to the loop that opened them.
runner = asyncio.Runner()


class Trip(BaseModel):
    city: str
    days: int


def agent(task: Task, *, output_type: Any = None, tools: Any = (), **options: Any) -> Agent[None]:
    address = {"base_url": FACTS["base_url"], "api_key": FACTS["key"], "max_retries": 0}
    client = AsyncOpenAI(**{**address, **options})
    model = OpenAIResponsesModel(model=task.model, openai_client=client)
    return Agent(name="agent", model=model, tools=list(tools), output_type=output_type)


def whole(made: Agent[None]) -> Any:
    return runner.run(Runner.run(made, "Hello"))


async def read(made: Agent[None]) -> Any:
    result = Runner.run_streamed(made, "Hello")
    async for _ in result.stream_events():
        pass
    return result


def streamed(made: Agent[None]) -> Any:
    return runner.run(read(made))


def check_answer(result: Any) -> None:
    check(result.final_output, FACTS["text"], "text")
    usage = result.context_wrapper.usage
    check_usage(usage.input_tokens, usage.output_tokens)


def round_trip(task: Task, ask: Any, cities: list[str]) -> None:
    """The client runs the tool and asks again by itself."""
    asked = []

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return get_weather(city)

    tool = function_tool(weather, name_override=FACTS["tool"])
    check(ask(agent(task, tools=[tool])).final_output, FACTS["final"], "final text")
    check(sorted(asked), sorted(cities), "cities asked for")


def structured(task: Task) -> None:
    for ask in (whole, streamed):
        check(ask(agent(task, output_type=Trip)).final_output, Trip(**FACTS["trip"]), "object")


def status(kind: type[openai.APIStatusError], act: Any) -> None:
    raised(kind, act)


def failed(task: Task) -> None:
    for ask in (whole, streamed):
        status(openai.InternalServerError, lambda ask=ask: ask(agent(task)))


def cancel(task: Task) -> float:
    """Whoever waits for an agent's answer gives up."""

    async def give_up() -> float:
        waiting = asyncio.create_task(Runner.run(agent(task), "Hello"))
        await asyncio.sleep(1)
        left_at = now()
        waiting.cancel()
        await asyncio.wait([waiting])
        return left_at

    return runner.run(give_up())


serve(
    {
        "text": lambda task: check_answer(whole(agent(task))),
        "stream": lambda task: check_answer(streamed(agent(task))),
        "slow": lambda task: check_answer(streamed(agent(task))),
        "tools": lambda task: round_trip(task, whole, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, streamed, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "structured": structured,
        "wrong-key": lambda task: status(
            openai.AuthenticationError, lambda: whole(agent(task, api_key=FACTS["wrong_key"]))
        ),
        "429-retried": lambda task: check_answer(whole(agent(task, max_retries=2))),
        "429-raised": lambda task: status(openai.RateLimitError, lambda: whole(agent(task))),
        "500": failed,
        "cut": lambda task: raised_as_broken(Exception, lambda: streamed(agent(task))),
        "cancel": cancel,
    }
)
