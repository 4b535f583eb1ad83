"""The handling of every parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.parameters import (
    PARAMETERS,
    Parameter,
    dropped_params,
    dropped_parts,
)

PAGE = (Path(__file__).parents[3] / "scripts/docs/straico.md").read_text("utf-8")
NAMES = [row.name for row in PARAMETERS]


def test_every_parameter_of_openais_client_has_one_row() -> None:
    assert {*CompletionCreateParamsBase.__annotations__, "stream"} == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("row", PARAMETERS, ids=NAMES)
def test_the_readme_has_the_row(row: Parameter) -> None:
    assert f"\n{row.row()}\n" in PAGE


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "modalities": ["text"], "audio": None},
        {"top_p": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "store": False},
        {"seed": None, "unknown": None, "metadata": {}, "service_tier": "auto", "verbosity": "medium"},
        {"model": "m", "messages": [], "temperature": 2, "max_tokens": 1, "stop": "x", "stream": True},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "response_format": {}},
    ],
)
def test_supported_parameters_and_default_values_are_not_dropped(fields: dict[str, Any]) -> None:
    assert dropped_params(fields) == []


def test_dropped_parameters_are_named_in_the_order_sent() -> None:
    fields = {"model": "m", "seed": 7, "cache_prompt": True, "top_p": 0.5, "logit_bias": {"1": 2}, "user": ""}
    assert dropped_params(fields) == ["seed", "cache_prompt", "top_p", "logit_bias", "user"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", 0),
        ("n", "1"),
        ("n", True),
        ("logprobs", True),
        ("logprobs", 0),
        ("top_logprobs", 5),
        ("modalities", ["text", "audio"]),
        ("modalities", "text"),
        ("audio", {"voice": "alloy", "format": "mp3"}),
    ],
)
def test_parameters_that_change_the_form_of_the_answer_are_rejected(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        dropped_params({name: value})
    assert caught.value.param == name


def test_parts_of_messages_that_straico_cannot_get_are_named() -> None:
    mark = {"type": "ephemeral"}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}}
    messages = [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "hi", "cache_control": mark}]},
        {"role": "user", "content": [image]},
        {"role": "assistant", "content": "ok", "reasoning_content": "hm"},
    ]
    named = ["messages.name", "messages.cache_control", "messages.image.detail", "messages.reasoning"]
    assert dropped_parts(messages) == named
    assert dropped_parts([{"role": "assistant", "content": "ok", "reasoning_details": [{}]}]) == [named[-1]]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "reasoning": None}],
        [{"role": "function", "name": "f", "content": "1"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "auto"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}, "x", None]}, 7],
        None,
    ],
)
def test_nothing_else_of_messages_is_named(messages: Any) -> None:
    assert dropped_parts(messages) == []
