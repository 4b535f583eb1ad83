"""LangChain's OpenAI integration."""

from __future__ import annotations

from typing import Any

import openai
from harness import FACTS, Task, check, check_usage, get_weather, now, raised, raised_as_broken, serve
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

weather = tool(get_weather)


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def chat(task: Task, **options: Any) -> ChatOpenAI:
    address = {"base_url": FACTS["base_url"], "api_key": FACTS["key"], "max_retries": 0, "stream_usage": True}
    return ChatOpenAI(model=task.model, **{**address, **options})


def joined(model: Any, messages: Any) -> Any:
    pieces = iter(model.stream(messages))
    whole = next(pieces)
    for piece in pieces:
        whole += piece
    return whole


def check_answer(message: AIMessage) -> None:
    check(message.content, FACTS["text"], "text")
    check(message.response_metadata["finish_reason"], "stop", "finish reason")
    check_usage(message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"])


def round_trip(task: Task, call_model: Any, cities: list[str]) -> None:
    model = chat(task).bind_tools([weather])
    messages: list[Any] = [HumanMessage("Hello")]
    calling = call_model(model, messages)
    check([call["args"] for call in calling.tool_calls], [{"city": city} for city in cities], "calls")
    check(calling.response_metadata["finish_reason"], "tool_calls", "finish reason")
    results = [weather.invoke(call) for call in calling.tool_calls]
    answer = call_model(model, [*messages, calling, *results])
    check(answer.content, FACTS["final"], "final text")


def invoke(model: Any, messages: Any) -> Any:
    return model.invoke(messages)


def structured(task: Task) -> None:
    model = chat(task).with_structured_output(Trip, method="json_schema")
    check(model.invoke("Hello"), Trip(**FACTS["trip"]), "object")


def wrong_key(task: Task) -> None:
    model = chat(task, api_key=FACTS["wrong_key"])
    raised(openai.AuthenticationError, lambda: model.invoke("Hello"))


def failed(task: Task) -> None:
    raised(openai.InternalServerError, lambda: chat(task).invoke("Hello"))
    raised(openai.InternalServerError, lambda: list(chat(task).stream("Hello")))


def cancel(task: Task) -> float:
    pieces = chat(task).stream("Hello")
    next(pieces)
    left_at = now()
    pieces.close()
    return left_at


def embeddings(task: Task) -> None:
    # With the check it would count tokens with a table from elsewhere, and send numbers for text.
    made = OpenAIEmbeddings(
        model=task.model,
        base_url=FACTS["base_url"],
        api_key=FACTS["key"],
        check_embedding_ctx_length=False,
    )
    check(made.embed_documents(["a", "b"]), FACTS["vectors"], "vectors")


serve(
    {
        "text": lambda task: check_answer(chat(task).invoke("Hello")),
        "stream": lambda task: check_answer(joined(chat(task), "Hello")),
        "slow": lambda task: check_answer(joined(chat(task), "Hello")),
        "tools": lambda task: round_trip(task, invoke, FACTS["cities"][:1]),
        "tools-stream": lambda task: round_trip(task, joined, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, joined, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, joined, FACTS["cities"]),
        "structured": structured,
        "wrong-key": wrong_key,
        "429-retried": lambda task: check_answer(chat(task, max_retries=2).invoke("Hello")),
        "429-raised": lambda task: raised(openai.RateLimitError, lambda: chat(task).invoke("Hello")),
        "500": failed,
        "cut": lambda task: raised_as_broken(openai.APIError, lambda: joined(chat(task), "Hello")),
        "cancel": cancel,
        "embeddings": embeddings,
    }
)
