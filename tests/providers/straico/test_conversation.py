"""OpenAI's messages converted to text turns."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.conversation import Conversation, add_system_text, merge_system_turns
from sanic_proxy.providers.straico.images import MAX_IMAGES
from sanic_proxy.providers.straico.tools import family_of
from tests.support.machine import slowness

HELLO = {"role": "user", "content": "Hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}


def convert(*messages: Any, model: str = "openai/gpt-4o") -> list[dict[str, str]]:
    return Conversation(family_of(model)).convert(list(messages))


def test_developer_is_system_and_parts_are_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert convert({"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}) == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "a\nb"},
    ]


def test_an_empty_assistant_turn_is_omitted() -> None:
    assert convert(HELLO, {"role": "assistant", "content": None}, HELLO) == [HELLO, HELLO]


def call(call_id: str | None, name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str | None, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def history(model: str) -> list[dict[str, str]]:
    calls = [call("call_a", "ls", '{"p":"/"}'), call("call_b", "rm", "not json")]
    return convert(
        HELLO,
        {"role": "assistant", "content": "Looking.", "tool_calls": calls},
        result("call_b", "gone"),
        result("call_a", [{"type": "text", "text": "etc"}]),
        model=model,
    )


@pytest.mark.parametrize("model", ["openai/gpt-4o", "qwen/qwen3", "z-ai/glm-4.6"])
def test_results_are_matched_to_their_calls_in_any_order(model: str) -> None:
    _user, calls, results = history(model)
    assert calls["content"].startswith("Looking.\n\n<tool_call")
    assert "call_a" in calls["content"]
    assert "not json" in calls["content"]
    assert results["role"] == "user"
    turn = results["content"]
    assert turn.index("call_b") < turn.index("gone") < turn.index("call_a") < turn.index("etc")


def test_kimis_labels_are_names_with_numbers() -> None:
    *_, calls, results = history("moonshotai/kimi-k2")
    assert "functions.ls:0" in calls["content"]
    assert "## Return of functions.rm:1\ngone" in results["content"]


@pytest.mark.parametrize("call_id", ["same", None])
def test_calls_without_unique_ids_get_distinct_labels(call_id: str | None) -> None:
    calls = [call(call_id, "ls", '{"p":"/a"}'), call(call_id, "ls", '{"p":"/b"}')]
    answered = call_id or ""
    _, turn, results = convert(
        HELLO, {"role": "assistant", "tool_calls": calls}, result(answered, "A"), result(answered, "B")
    )
    first, second = ("same", "same-2") if call_id else ("ls", "ls-2")
    assert f'"id": "{first}"' in turn["content"]
    assert f'"id": "{second}"' in turn["content"]
    assert f'<tool_response id="{first}" name="ls">\nA' in results["content"]
    assert f'<tool_response id="{second}" name="ls">\nB' in results["content"]


def test_an_id_may_be_repeated_in_a_later_turn() -> None:
    calling = {"role": "assistant", "tool_calls": [call("c", "ls")]}
    *_, last = convert(HELLO, calling, result("c", "A"), calling, result("c", "B"))
    assert last["content"] == '<tool_response id="c-2" name="ls">\nB\n</tool_response>'


def test_a_result_without_its_call_is_kept() -> None:
    (turn,) = convert(result("lost", "A"))
    assert turn["content"] == '<tool_response id="lost">\nA\n</tool_response>'


def test_a_legacy_function_call_is_identified_by_its_name() -> None:
    calling = {"role": "assistant", "content": None, "function_call": {"name": "ls", "arguments": "{}"}}
    *_, last = convert(HELLO, calling, {"role": "function", "name": "ls", "content": "etc"})
    assert last["content"] == '<tool_response id="ls" name="ls">\netc\n</tool_response>'


def test_images_are_replaced_by_numbered_references() -> None:
    conversation = Conversation("json")
    second = {"type": "input_image", "image_url": "https://a/c.png"}
    turns = conversation.convert(
        [{"role": "user", "content": [IMAGE, {"type": "text", "text": "and"}, second]}]
    )
    assert turns == [{"role": "user", "content": "[image 1]\nand\n[image 2]"}]
    assert conversation.images == ["https://a/b.png", "https://a/c.png"]


def test_text_is_appended_to_the_system_turn_or_becomes_one() -> None:
    assert add_system_text([dict(HELLO)], "x") == [{"role": "system", "content": "x"}, HELLO]
    assert add_system_text([{"role": "system", "content": "a"}], "x") == [
        {"role": "system", "content": "a\n\nx"}
    ]
    assert merge_system_turns([{"role": "system", "content": "a"}, dict(HELLO)]) == [
        {"role": "user", "content": "a\n\nHello"}
    ]
    assert merge_system_turns([{"role": "system", "content": "a"}]) == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "robot", "content": "x"}, "messages.0.role"),
        ({"role": "user", "content": 7}, "messages.0.content"),
        ({"role": "user", "content": ["x"]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content.0.image_url"),
        ({"role": "user", "content": [IMAGE] * (MAX_IMAGES + 1)}, "messages.0.content.32.image_url"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": ["text"]}]}, "messages.0.content.0"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages.0.tool_calls.0"),
        ({"role": "assistant", "tool_calls": "x"}, "messages.0.tool_calls"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": 1}}]},
            "messages.0.tool_calls.0",
        ),
    ],
)
def test_an_invalid_message_is_rejected_by_name(message: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(message)
    assert caught.value.param == param


@pytest.mark.parametrize("role", [["user"], {}, 7, None])
def test_an_invalid_role_is_rejected_by_name(role: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert({"role": role, "content": "x"})
    assert caught.value.param == "messages.0.role"


def test_long_conversations_take_no_longer_than_their_messages() -> None:
    calls = [{"id": str(number), "function": {"name": "f"}} for number in range(20_000)]
    results = [{"role": "tool", "content": "x" * 20}] * 80_000
    began = time.process_time()
    turns = Conversation("json").convert([{"role": "assistant", "tool_calls": calls}, *results])
    assert time.process_time() - began < 3 * slowness()
    assert len(turns) == 2
