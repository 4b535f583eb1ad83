"""LlamaIndex with its integrations for OpenAI-like servers."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from harness import FACTS, Task, check, check_usage, get_weather, now, raised, raised_as_broken, serve
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

HELLO = [ChatMessage(role=MessageRole.USER, content="Hello")]
weather = FunctionTool.from_defaults(get_weather)


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def chat(task: Task, **options: Any) -> OpenAILike:
    given = {
        "model": task.model,
        "api_base": FACTS["base_url"],
        "api_key": FACTS["key"],
        "is_chat_model": True,
        "is_function_calling_model": True,
        "max_retries": 0,
    }
    return OpenAILike(**{**given, **options})


def check_answer(text: str | None, raw: Any) -> None:
    check(text, FACTS["text"], "text")
    check_usage(raw.usage.prompt_tokens, raw.usage.completion_tokens)


def text(task: Task, **options: Any) -> None:
    answer = chat(task, **options).chat(HELLO)
    check_answer(answer.message.content, answer.raw)
    check(answer.raw.choices[0].finish_reason, "stop", "finish reason")


def stream(task: Task) -> None:
    wanted = {"stream_options": {"include_usage": True}}
    answers = list(chat(task, additional_kwargs=wanted).stream_chat(HELLO))
    check("".join(answer.delta or "" for answer in answers), FACTS["text"], "deltas")
    check_answer(answers[-1].message.content, answers[-1].raw)
    choices = [answer.raw.choices[0] for answer in answers if answer.raw.choices]
    check([choice.finish_reason for choice in choices if choice.finish_reason], ["stop"], "finish reasons")


def whole(model: OpenAILike, history: list[ChatMessage]) -> Any:
    return model.chat_with_tools([weather], chat_history=history, allow_parallel_tool_calls=True)


def streamed(model: OpenAILike, history: list[ChatMessage]) -> Any:
    return list(
        model.stream_chat_with_tools([weather], chat_history=history, allow_parallel_tool_calls=True)
    )[-1]


def round_trip(task: Task, call_model: Any, cities: list[str]) -> None:
    model = chat(task)
    answer = call_model(model, HELLO)
    calls = model.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    check([call.tool_kwargs for call in calls], [{"city": city} for city in cities], "calls")
    results = [
        ChatMessage(
            role=MessageRole.TOOL,
            content=weather(**call.tool_kwargs).content,
            additional_kwargs={"tool_call_id": call.tool_id},
        )
        for call in calls
    ]
    answer = call_model(model, [*HELLO, answer.message, *results])
    check(answer.message.content, FACTS["final"], "final text")


def structured(task: Task) -> None:
    model = chat(task, should_use_structured_outputs=True).as_structured_llm(Trip)
    check(model.chat(HELLO).raw, Trip(**FACTS["trip"]), "object")


def failed(task: Task) -> None:
    raised(openai.InternalServerError, lambda: chat(task).chat(HELLO))
    raised(openai.InternalServerError, lambda: list(chat(task).stream_chat(HELLO)))


def cancel(task: Task) -> float:
    """As an agent does it. A blocking stream's generator leaves its connection to the garbage collector."""

    async def give_up() -> float:
        async def read() -> None:
            async for answer in await chat(task).astream_chat(HELLO):
                str(answer)

        reading = asyncio.create_task(read())
        await asyncio.sleep(1)
        left_at = now()
        reading.cancel()
        await asyncio.wait([reading])
        return left_at

    return asyncio.run(give_up())


def embeddings(task: Task) -> None:
    model = OpenAILikeEmbedding(
        model_name=task.model, api_base=FACTS["base_url"], api_key=FACTS["key"], max_retries=0
    )
    check(model.get_text_embedding_batch(["a", "b"]), FACTS["vectors"], "vectors")


serve(
    {
        "text": text,
        "stream": stream,
        "slow": stream,
        "tools": lambda task: round_trip(task, whole, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, streamed, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, streamed, FACTS["cities"]),
        "structured": structured,
        "wrong-key": lambda task: raised(
            openai.AuthenticationError, lambda: chat(task, api_key=FACTS["wrong_key"]).chat(HELLO)
        ),
        "429-retried": lambda task: text(task, max_retries=2),
        "429-raised": lambda task: raised(openai.RateLimitError, lambda: chat(task).chat(HELLO)),
        "500": failed,
        "cut": lambda task: raised_as_broken(openai.APIError, lambda: list(chat(task).stream_chat(HELLO))),
        "cancel": cancel,
        "embeddings": embeddings,
    }
)
